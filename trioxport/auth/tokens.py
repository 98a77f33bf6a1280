"""Bearer tokens (RFC 6750): fixed ones, and those of a provider, which expire."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import trio

from trioxport._diagnostics.validators import kind_of
from trioxport.auth.credentials import field_value
from trioxport.auth.secret import Secret, secret
from trioxport.auth.single_flight import SingleFlight
from trioxport.errors import AuthenticationError, TransportError, UsageError
from trioxport.messages import HIDDEN

AUTHORIZATION: Final = "authorization"


@attrs.frozen
class Token:
    """An access token as a provider returns it.

    Args:
        value: The token itself.
        expires_in: Seconds of its validity, from the call of the provider; None if that is unknown.
    """

    value: Secret = attrs.field(converter=secret)
    expires_in: float | None = None


TokenProvider: TypeAlias = Callable[[], Awaitable[Token | Secret | str]]
"""An async function that returns a new token with each call."""


@attrs.frozen
class _CurrentToken:
    """The token in use: the value of its header, and the time at which to replace it."""

    header: Secret
    until: float


class Bearer:
    """``Authorization: Bearer ...`` on every request.

    Args:
        token: The token, or an async function that returns one, best as a :class:`Token` with ``expires_in``. The
            token of a provider is replaced before it expires, and after a 401; many requests that get 401 at once
            replace it once. There is one call of the provider at a time: all requests wait for it, and all get its
            failure. If the request that began the call is cancelled, the next one that waits calls again.
        margin: Seconds before its expiry at which a token is replaced; at half of its validity if that is later.
        timeout: Seconds that the provider may take.

    Raises:
        UsageError: The token is not valid in a header, or a time is not positive.
    """

    def __init__(self, token: str | Secret | TokenProvider, *, margin: float = 30.0, timeout: float = 30.0) -> None:
        if not (_is_number(margin) and _is_number(timeout) and margin >= 0 and timeout > 0):
            raise UsageError("margin is a number that is not negative, and timeout a positive one")
        self._provider: TokenProvider | None = None
        self._held: _CurrentToken | None = None
        if isinstance(token, str | Secret):
            self._held = _CurrentToken(_header(secret(token)), math.inf)
        elif callable(token):
            self._provider = token
        else:
            raise UsageError(
                f"Bearer needs a token, not {kind_of(token)}",
                hint="Pass a str or an async function that returns one; is the environment variable that holds it set?",
            )
        self._margin = margin
        self._timeout = timeout
        self._refreshes = SingleFlight[None, _CurrentToken]()

    def __repr__(self) -> str:
        return f"Bearer({HIDDEN})"

    async def headers(self) -> Mapping[str, str]:
        """The header of the next request; waits for a new token if one is due.

        Raises ``AuthenticationError`` if the provider fails or takes too long.
        """
        held = self._held
        if held is None or trio.current_time() >= held.until:
            held = await self._refreshes.run(None, self._replace)  # and used even if it expires at once
        return {AUTHORIZATION: held.header.reveal()}

    async def refused(self, headers: Mapping[str, str]) -> bool:
        """Replace the token if it still is the refused one. Returns False for a fixed token."""
        if self._provider is None:
            return False
        if self._held is not None and Secret(headers.get(AUTHORIZATION, "")) == self._held.header:
            self._held = None
        return True

    async def _replace(self) -> _CurrentToken:
        self._held = held = await self._provided()
        return held

    async def _provided(self) -> _CurrentToken:
        assert self._provider is not None
        asked = trio.current_time()
        with trio.move_on_after(self._timeout):
            try:
                found: Any = await self._provider()
            except Exception as error:
                raise _failed(error) from error
            if not isinstance(found, Token | Secret | str):
                raise AuthenticationError(f"the token provider returned a {type(found).__name__}, which is no token")
            token = found if isinstance(found, Token) else Token(found)
            life = math.inf if token.expires_in is None else token.expires_in
            return _CurrentToken(_header(token.value), asked + life - min(self._margin, life / 2))
        raise AuthenticationError(f"the token provider took more than {self._timeout:g} s", retryable=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _header(token: Secret) -> Secret:
    return Secret(f"Bearer {field_value(token, 'the token')}")


def _failed(error: Exception) -> AuthenticationError:
    """The error of a failed provider. It does not quote the exception, whose text may contain credentials."""
    if isinstance(error, TransportError):
        return AuthenticationError(f"the token provider failed: {error.reason}", retryable=error.retryable)
    return AuthenticationError(f"the token provider failed with {type(error).__name__}")
