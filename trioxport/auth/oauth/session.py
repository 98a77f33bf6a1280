"""The tokens for one MCP server, as its requests use them: headers, early refreshes, answers to 401 and 403."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import trio

from trioxport.auth.oauth.authorizer import Authorizer, TokenRefusal
from trioxport.auth.oauth.challenges import TokenChallenge, oauth_challenge
from trioxport.auth.oauth.logins import Login
from trioxport.auth.oauth.token_requests import USE_NONCE, DPoPState
from trioxport.auth.secret import Secret
from trioxport.auth.tokens import AUTHORIZATION
from trioxport.errors import AuthenticationError, UsageError

MARGIN_SECONDS: Final = 60.0
"""The time before its expiry at which a token is refreshed; half of its life if that is less."""
EARLY_RETRY_SECONDS: Final = 10.0
"""The time between attempts to refresh a token that still lives."""
MAX_RENEWALS: Final = 2
MAX_UPGRADES: Final = 2
MAX_NONCES: Final = 2
"""Attempts within one request: new tokens after 401, step-ups after 403, and nonces."""
UPGRADE_MEMORY_SECONDS: Final = 600.0
"""The time for which a step-up that did not help is not tried again, for the same operation and scopes."""
MAX_UPGRADES_KEPT: Final = 1000

StartSoon: TypeAlias = Callable[..., Any]
_log: Final = logging.getLogger("trioxport.auth")


@attrs.define
class HeldToken:
    """A login in use: the headers that it makes, and when it is due, in Trio's time."""

    login: Login
    fields: Mapping[str, str]
    due_at: float
    dead_at: float
    dpop: DPoPState | None = None
    ath: str | None = None


@attrs.define
class _Renewal:
    """A renewal that is under way, and its failure for the tasks that wait for it."""

    over: trio.Event = attrs.Factory(trio.Event)
    failure: AuthenticationError | UsageError | None = None


class ResourceSession:
    """The authorization of requests to one MCP server. One object serves any number of connections.

    Args:
        authorizer: Gets and renews the login.
    """

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer = authorizer
        self._held: HeldToken | None = None
        self._is_loaded = False
        self._flight: _Renewal | None = None
        self._early_after = -math.inf
        self._upgrades: dict[tuple[str, frozenset[str]], float] = {}

    def attempt(self, operation: str = "") -> RequestAttempt:
        """The authorization of one request.

        Args:
            operation: The operation, such as ``"tools/call add"``: step-ups that do not help it are remembered.
        """
        return RequestAttempt(self, operation)

    async def current(self, start_soon: StartSoon | None) -> HeldToken | None:
        """The token for a request that is about to be sent; None if there is none yet.

        Waits only for a token that has expired. One that soon will is refreshed by a task of ``start_soon``, or,
        without it, by one of the requests.
        """
        held = self._held
        if held is None:
            return await self._loaded()
        if trio.current_time() < held.due_at:
            return held
        if self._is_alive(held):
            if self._flight is None and trio.current_time() >= self._early_after:
                self._early_after = trio.current_time() + EARLY_RETRY_SECONDS
                if start_soon is None:
                    await self._renew_early(held)
                else:
                    start_soon(self._renew_early, held)
            return held
        if not self.authorizer.renewable(held.login):
            self._held = None
            return None
        return await self.renewed(held, lambda: self.authorizer.renew(held.login))

    async def renewed(self, old: HeldToken | None, work: Callable[[], Awaitable[Login | None]]) -> HeldToken | None:
        """The token that replaces ``old``: of ``work``, or of the renewal that is under way already.

        All that wait get the same failure. If the task that does the work is cancelled, the next one does it.
        """
        while self._held is old:
            if (flight := self._flight) is None:
                return await self._fly(work)
            await flight.over.wait()
            if flight.failure is not None:
                failure = copy.copy(flight.failure)
                failure.__cause__ = flight.failure.__cause__
                raise failure
        return self._held

    async def _fly(self, work: Callable[[], Awaitable[Login | None]]) -> HeldToken | None:
        self._flight = flight = _Renewal()
        try:
            self.use(await work())
        except (AuthenticationError, UsageError) as failure:
            failure.target = failure.target or self.authorizer.server
            flight.failure = failure
            raise
        finally:
            self._flight = None
            flight.over.set()
        return self._held

    async def _renew_early(self, held: HeldToken) -> None:
        """Refresh a token that still lives; a failure leaves it in use, and is logged."""
        if not self.authorizer.renewable(held.login):
            return
        try:
            await self.renewed(held, lambda: self.authorizer.renew(held.login))
        except (AuthenticationError, UsageError) as failure:
            _log.warning("the token for %s is not refreshed yet: %s", self.authorizer.server, failure.reason)
        except Exception:  # of a store of the application's own: the token in use is still good
            _log.exception("the token for %s is not refreshed yet", self.authorizer.server)

    async def _loaded(self) -> HeldToken | None:
        if not self._is_loaded:
            login = await self.authorizer.load()
            if not self._is_loaded:
                self._is_loaded = True
                self.use(login)
        held = self._held
        if held is not None and not self._is_alive(held):
            if not self.authorizer.renewable(held.login):
                return None
            return await self.renewed(held, lambda: self.authorizer.renew(held.login))
        return held

    def use(self, login: Login | None) -> None:
        """Use ``login`` for all requests from now on."""
        self._early_after = -math.inf
        if login is None or login.access_token is None:
            self._held = None
            return
        self._is_loaded = True
        now = trio.current_time()
        left = math.inf if login.expires_at is None else login.expires_at - time.time()
        life = math.inf if login.expires_at is None else login.expires_at - login.issued_at
        token = login.access_token.reveal()
        dpop = self.authorizer.dpop_state(login.dpop_key) if login.token_type == "dpop" else None
        ath = None
        if dpop is not None:
            from trioxport.auth.dpop import token_hash

            ath = token_hash(token)
        fields = {AUTHORIZATION: f"{'DPoP' if dpop else 'Bearer'} {token}"}
        due_at = now + left - min(MARGIN_SECONDS, life / 2) if left < math.inf else math.inf
        self._held = HeldToken(login, fields, due_at, now + left, dpop, ath)

    async def replaced(self, held: HeldToken | None, refusal: TokenRefusal) -> HeldToken | None:
        """The token after a response that refused ``held``. Raises ``OAuthError`` and ``InteractionRequired``."""
        if self._held is not held and self._held is not None and self._is_alive(self._held):
            return self._held
        return await self.renewed(self._held, lambda: self.authorizer.authorize(refusal))

    def may_upgrade(self, operation: str, scopes: frozenset[str]) -> bool:
        """Whether a step-up is worth trying; each counts, and is not tried again for some time."""
        now = trio.current_time()
        if now - self._upgrades.get((operation, scopes), -math.inf) < UPGRADE_MEMORY_SECONDS:
            return False
        if len(self._upgrades) >= MAX_UPGRADES_KEPT:
            self._upgrades.pop(next(iter(self._upgrades)))
        self._upgrades[operation, scopes] = now
        return True

    def _is_alive(self, held: HeldToken) -> bool:
        return trio.current_time() < held.dead_at and held.login.is_alive()


class RequestAttempt:
    """The authorization of one request, and of its repetitions.

    Args:
        session: The tokens of the server.
        operation: The operation of the request.
    """

    __slots__ = ("_held", "_nonces", "_operation", "_renewals", "_session", "_upgrades")

    def __init__(self, session: ResourceSession, operation: str) -> None:
        self._session = session
        self._operation = operation
        self._held: HeldToken | None = None
        self._renewals = 0
        self._upgrades = 0
        self._nonces = 0

    async def fields(self, method: str, url: str, start_soon: StartSoon | None = None) -> Mapping[str, str]:
        """The headers that authorize the request; none as long as no server has asked for a token.

        Raises ``OAuthError`` if a token has expired and cannot be refreshed.
        """
        self._held = held = await self._session.current(start_soon)
        if held is None:
            return {}
        if held.dpop is None:
            return held.fields
        return {**held.fields, "dpop": held.dpop.proof(method, url, ath=held.ath)}

    async def answered(self, status: int, url: str, headers: Mapping[str, str]) -> bool:
        """Act on the response. Returns whether to send the request once more.

        Raises ``OAuthError`` and ``InteractionRequired`` if no token can be had.
        """
        held, header = self._held, headers.get("www-authenticate")
        fresh_nonce = held is not None and held.dpop is not None and held.dpop.note(url, headers)
        if status not in (401, 403):
            return False
        challenge = oauth_challenge(header, dpop=held is not None and held.dpop is not None)
        error = challenge.parameters.get("error") if challenge else None
        if status == 401 and error == USE_NONCE and fresh_nonce and self._nonces < MAX_NONCES:
            self._nonces += 1
            return True
        if status == 401:
            return await self._renew(held, header)
        return error == "insufficient_scope" and challenge is not None and await self._upgrade(held, header, challenge)

    async def _renew(self, held: HeldToken | None, header: str | None) -> bool:
        if self._renewals >= MAX_RENEWALS:
            return False
        self._renewals += 1
        refusal = TokenRefusal(_token(held), header, thorough=self._renewals > 1)
        await self._session.replaced(held, refusal)
        return True

    async def _upgrade(self, held: HeldToken | None, header: str | None, challenge: TokenChallenge) -> bool:
        """Ask for the union of the scopes so far and those of the challenge (specification, step-up flow)."""
        scopes = challenge.scopes or ()
        before = held.login.requested if held is not None else ()
        if self._upgrades >= MAX_UPGRADES or not self._session.may_upgrade(self._operation, frozenset(before + scopes)):
            return False
        self._upgrades += 1
        await self._session.replaced(held, TokenRefusal(_token(held), header, upgrade=scopes or before))
        return True


def _token(held: HeldToken | None) -> Secret | None:
    return None if held is None else held.login.access_token
