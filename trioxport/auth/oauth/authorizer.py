"""The authorization of one client at one MCP server: discovery, registration, grants and refreshes, over a store."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from typing import Final, TypeVar

import attrs
import trio

from trioxport.auth.addresses import canonical, shown_url
from trioxport.auth.oauth.authorization import AuthorizationRequest
from trioxport.auth.oauth.challenges import oauth_challenge, offers_dpop
from trioxport.auth.oauth.clients import REGISTRATION_STEP, OAuthClient, RegistrationMetadata, register
from trioxport.auth.oauth.discovery import Discovery, discover
from trioxport.auth.oauth.grants import AuthorizationCode, Grant
from trioxport.auth.oauth.logins import Login, client_in, client_key, login_in, login_key, to_text
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.network import NetworkPolicy
from trioxport.auth.oauth.sender import GuardedSender
from trioxport.auth.oauth.steps import Steps, run_steps
from trioxport.auth.oauth.stores import LOCK_SECONDS, CredentialStore
from trioxport.auth.oauth.token_requests import DPoPState, TokenSet, require_jose, token_request
from trioxport.auth.secret import Secret
from trioxport.errors import InteractionRequired, OAuthError, UsageError

CONSENT_LOCK_SECONDS: Final = 330.0
"""The time to wait for a person who is asked by another process: longer than a browser has."""
RECENT_SECONDS: Final = 60.0
"""The age of a token below which a server that refuses it is not worth asking a person again."""
OFFLINE_ACCESS: Final = "offline_access"
UNKNOWN_CLIENT: Final = "invalid_client"

Result = TypeVar("Result")
AskClient = Callable[[str], Awaitable[OAuthClient]]


@attrs.frozen
class OAuthOptions:
    """The options of :class:`~trioxport.auth.oauth.OAuth`, which documents them."""

    store: CredentialStore
    grant: Grant
    client: OAuthClient | None
    client_document: str | None
    metadata: RegistrationMetadata
    ask_client: AskClient | None
    scopes: tuple[str, ...]
    issuer: str | None
    dpop: bool | None
    network: NetworkPolicy


@attrs.frozen
class TokenRefusal:
    """A response of the MCP server that asks for another token.

    Args:
        token: The token that was sent; None without one.
        header: The value of ``WWW-Authenticate``.
        upgrade: The scopes that the token lacks, for a step-up.
        thorough: Whether a refreshed token was refused as well.
    """

    token: Secret | None = None
    header: str | None = None
    upgrade: tuple[str, ...] = ()
    thorough: bool = False


class Authorizer:
    """Gets and renews the login for one MCP server, and keeps it in the store.

    Args:
        server: The URL of the MCP server.
        options: The options.
    """

    def __init__(self, server: str, options: OAuthOptions) -> None:
        self.server = canonical(server, keep_query=True)
        self.options = options
        self._url = server
        self._key = login_key(self.server)
        self._send = GuardedSender(server, options.network).send
        self._dpop_state: DPoPState | None = None
        self._waiting: Authorization | None = None

    async def run(self, steps: Steps[Result]) -> Result:
        """Run steps over the network. Raises ``OAuthError`` that names the server."""
        return await run_steps(steps, self._send)

    async def load(self) -> Login | None:
        """The login in the store. Raises ``OAuthError``."""
        return login_in(await self.options.store.read(self._key))

    async def forget(self) -> None:
        """Delete the login from the store."""
        async with self.options.store.fence(self._key, LOCK_SECONDS):
            await self.options.store.write(self._key, None)

    def renewable(self, login: Login) -> bool:
        """Whether a new access token needs no person."""
        return login.refresh_token is not None or not self.options.grant.asks

    async def renew(self, stale: Login) -> Login | None:
        """A login with a new access token: one that another process has got, or one of a refresh.

        Returns None if there is no login any more, and a person has to be asked. Raises ``OAuthError`` for any other
        failure, which leaves the login as it is.
        """
        async with self.options.store.fence(self._key, LOCK_SECONDS):
            kept = await self.load()
            if kept is None:
                return None
            if kept.access_token != stale.access_token and kept.is_alive():
                return kept
            if not self.renewable(kept):
                return None
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 4 * self.options.network.timeout):
                return await self._refreshed(kept)
        raise OAuthError("the refresh took too long", step="refresh", issuer=stale.server.issuer, retryable=True)

    async def _refreshed(self, kept: Login) -> Login | None:
        """Refresh and persist; the fence is held, and no cancellation comes between the two."""
        try:
            tokens = await self._new_tokens(kept)
        except OAuthError as error:
            if error.code == UNKNOWN_CLIENT and kept.client.is_dynamic:
                error.hint = (
                    "If the server has forgotten the client: run trioxport logout URL --client, and log in again"
                )
            if error.code != "invalid_grant" or kept.refresh_token is None:
                raise
            return await self._without_refresh_token(kept)
        renewed = kept.renewed(tokens)
        await self.options.store.write(self._key, to_text(renewed))
        return renewed

    async def _new_tokens(self, kept: Login) -> TokenSet:
        dpop = self.dpop_state(kept.dpop_key)
        if kept.refresh_token is None:
            discovery = Discovery(kept.resource, kept.server)
            return await self.options.grant.obtain(Authorization(self, discovery, kept.requested, dpop, kept))
        form = {
            "grant_type": "refresh_token",
            "refresh_token": kept.refresh_token.reveal(),
            "resource": kept.resource,
        }
        if kept.scopes:
            form["scope"] = " ".join(kept.scopes)
        return await self.run(token_request(kept.server, kept.client, form, dpop=dpop, step="refresh"))

    async def _without_refresh_token(self, kept: Login) -> Login | None:
        """Delete a refresh token that is refused, if it still is the stored one; a living access token stays."""
        found = await self.load()
        if found is None or found.refresh_token != kept.refresh_token:
            return found if found is not None and found.is_alive() else None
        left = attrs.evolve(found, refresh_token=None) if found.is_alive() else None
        await self.options.store.write(self._key, None if left is None else to_text(left))
        return left

    async def authorize(self, refusal: TokenRefusal) -> Login:
        """A login that the server may accept after ``refusal``. Raises ``OAuthError`` and ``InteractionRequired``."""
        kept = await self.load()
        discovery = await self._discover(refusal.header, kept)
        if kept is not None and kept.server.issuer != discovery.server.issuer:
            self._check_moved(kept, discovery)
            kept = None  # nothing of the old authorization server is used at the new one
        found = await self._without_asking(kept, refusal)
        if found is not None:
            return found
        asks = self.options.grant.asks
        key, seconds = (f"{self._key}#consent", CONSENT_LOCK_SECONDS) if asks else (self._key, LOCK_SECONDS)
        async with self.options.store.fence(key, seconds):
            current = await self.load()
            if current is not None and self._fits(current, refusal, discovery):
                return current
            return await self._obtain(discovery, refusal, kept)

    def _check_moved(self, kept: Login, discovery: Discovery) -> None:
        """Raise ``OAuthError`` if a client that was registered by hand would be used at another server."""
        configured = self.options.client or self.options.grant.client
        if configured is not None and configured.client_id == kept.client.client_id:
            reason = f"the client was used at {shown_url(kept.server.issuer)}, and the server has moved here"
            hint = "Register the client at the new authorization server, run trioxport logout, and log in again"
            raise OAuthError(reason, step=REGISTRATION_STEP, issuer=shown_url(discovery.server.issuer), hint=hint)

    async def _without_asking(self, kept: Login | None, refusal: TokenRefusal) -> Login | None:
        """The login after a refresh, if one is possible and may help."""
        if kept is None or refusal.upgrade:
            return None
        if kept.access_token != refusal.token and kept.is_alive():
            return kept
        if kept.refresh_token is not None and not refusal.thorough:
            return await self.renew(attrs.evolve(kept, access_token=refusal.token))
        age = time.time() - kept.issued_at
        is_costly = self.options.grant.asks or refusal.thorough
        if refusal.token is not None and is_costly and age < RECENT_SECONDS:
            reason = f"the server refuses a token that was issued {max(age, 0):.0f} s ago"
            hint = "The server may expect another audience or issuer: run trioxport doctor auth URL"
            raise OAuthError(reason, step="request with a token", issuer=kept.server.issuer, hint=hint)
        return None

    def _fits(self, login: Login, refusal: TokenRefusal, discovery: Discovery) -> bool:
        return (
            login.is_alive()
            and login.access_token != refusal.token
            and login.server.issuer == discovery.server.issuer
            and set(refusal.upgrade) <= {*login.scopes, *login.requested}
        )

    async def _obtain(self, discovery: Discovery, refusal: TokenRefusal, kept: Login | None) -> Login:
        context = self._context(discovery, refusal, kept)
        try:
            tokens = await self.options.grant.obtain(context)
        except InteractionRequired:
            if context.pending is not None:
                self._waiting = context
            raise
        except OAuthError as error:
            if error.code == UNKNOWN_CLIENT:
                await context.forget_client(error)
            raise
        return await self._keep(context, tokens)

    async def complete(self, redirected: str) -> Login:
        """The login for the answer of a person who was asked elsewhere. Raises ``UsageError`` if none was asked."""
        context = self._waiting
        if context is None or context.pending is None or not isinstance(self.options.grant, AuthorizationCode):
            raise UsageError("no authorization request waits for an answer", target=self.server)
        return await self._keep(context, await self.options.grant.complete(context, redirected))

    async def _keep(self, context: Authorization, tokens: TokenSet) -> Login:
        if context.dpop is not None and tokens.token_type != "dpop" and self.options.dpop:
            reason = "the authorization server did not bind the token to the key"
            server = context.discovery.server
            raise OAuthError(reason, step="token request", issuer=server.issuer, section="RFC 9449, section 5")
        login = Login.of(
            tokens,
            resource=context.discovery.resource,
            server=context.discovery.server,
            client=context.used_client(),
            requested=context.scopes,
            dpop_key=context.dpop.key.pem() if context.dpop is not None and tokens.token_type == "dpop" else None,
        )
        if self.options.grant.asks:
            async with self.options.store.fence(self._key, LOCK_SECONDS):
                await self.options.store.write(self._key, to_text(login))
        else:
            await self.options.store.write(self._key, to_text(login))
        return login

    async def _discover(self, header: str | None, kept: Login | None) -> Discovery:
        configured = self.options.client or self.options.grant.client
        issuer = self.options.issuer or (configured.issuer if configured else None)
        known = [kept.server.issuer] if kept else []
        challenge = oauth_challenge(header, dpop=self.options.dpop is not False)
        return await self.run(discover(self._url, challenge, issuer=issuer, known=known))

    def _context(self, discovery: Discovery, refusal: TokenRefusal, kept: Login | None) -> Authorization:
        previous = kept.requested if kept is not None else ()
        challenge = oauth_challenge(refusal.header, dpop=self.options.dpop is not False)
        demanded = refusal.upgrade or (challenge.scopes if challenge else None)
        wanted = demanded or self.options.scopes or discovery.scopes_supported or ()
        scopes = dict.fromkeys([*previous, *wanted, *(self.options.scopes if demanded else ())])
        if scopes and self.options.grant.asks and OFFLINE_ACCESS in discovery.server.scopes_supported:
            scopes[OFFLINE_ACCESS] = None
        return Authorization(self, discovery, tuple(scopes), self._dpop(discovery, refusal.header, kept), kept)

    def _dpop(self, discovery: Discovery, header: str | None, kept: Login | None) -> DPoPState | None:
        """The key to bind new tokens to: that of the login, or a new one; None for bearer tokens."""
        offered = offers_dpop(header) or (discovery.metadata is not None and discovery.metadata.dpop)
        listed = "ES256" in discovery.server.dpop_algorithms
        able = find_spec("joserfc") is not None
        if self.options.dpop is False or (self.options.dpop is None and not (offered and listed and able)):
            return None
        require_jose()
        from trioxport.auth.dpop import DPoPKey

        if kept is not None and kept.dpop_key is not None:
            return self.dpop_state(kept.dpop_key)
        return self.dpop_state(DPoPKey.generate().pem())

    def dpop_state(self, pem: Secret | None) -> DPoPState | None:
        """The key in ``pem``, with the nonces that were received for it, unless another key was asked for since."""
        if pem is None:
            return None
        from trioxport.auth.dpop import DPoPKey

        key = DPoPKey(pem)
        if self._dpop_state is None or self._dpop_state.key.thumbprint != key.thumbprint:
            self._dpop_state = DPoPState(key)
        return self._dpop_state


@attrs.define
class Authorization:
    """One authorization: the context of a grant.

    Args:
        authorizer: The authorizer.
        discovery: The authorization server.
        scopes: The scopes to ask for.
        dpop: The key to bind the tokens to.
        kept: The login so far at the same authorization server.
        pending: The request whose answer a person brings later.
    """

    authorizer: Authorizer
    discovery: Discovery
    scopes: tuple[str, ...]
    dpop: DPoPState | None
    kept: Login | None
    pending: AuthorizationRequest | None = None
    _used: OAuthClient | None = None

    async def run(self, steps: Steps[Result]) -> Result:
        return await self.authorizer.run(steps)

    def used_client(self) -> OAuthClient:
        assert self._used is not None
        return self._used

    async def forget_client(self, refusal: OAuthError) -> None:
        """Delete a client that was registered dynamically and that the authorization server no longer knows."""
        options = self.authorizer.options
        async with options.store.fence(self._client_key(), LOCK_SECONDS):
            stored = await self._stored()
            if stored is not None and stored.is_dynamic and stored == self._used:
                await options.store.write(self._client_key(), None)
                refusal.hint = "The server no longer knows the client, which is registered anew with the next attempt"

    async def registered(self) -> Sequence[str]:
        configured = self._configured()
        if configured is not None:
            return configured.redirect_uris
        stored = await self._stored()
        return stored.redirect_uris if stored is not None else ()

    async def client(self, redirect_uris: Sequence[str] = (), grants: Sequence[str] = ()) -> OAuthClient:
        self._used = await self._client(redirect_uris, grants)
        return self._used

    async def _client(self, redirect_uris: Sequence[str], grants: Sequence[str]) -> OAuthClient:
        """The client by the order of the specification: pre-registered, by a document, dynamic, asked for."""
        options, server = self.authorizer.options, self.discovery.server
        if (configured := self._configured()) is not None:
            return configured
        if options.client_document is not None and server.client_id_documents:
            return OAuthClient(options.client_document, issuer=server.issuer, auth_method="none")
        async with options.store.fence(self._client_key(), LOCK_SECONDS):
            stored = await self._stored()
            if stored is not None and not stored.is_expired() and set(redirect_uris) <= set(stored.redirect_uris):
                return stored
            client = await self._new_client(server, redirect_uris, grants)
            await options.store.write(self._client_key(), to_text(client))
            return client

    async def _new_client(
        self, server: AuthorizationServer, redirect_uris: Sequence[str], grants: Sequence[str]
    ) -> OAuthClient:
        options = self.authorizer.options
        if server.registration_endpoint is not None:
            metadata = attrs.evolve(options.metadata, redirect_uris=redirect_uris, grant_types=grants)
            return await self.run(register(server, metadata))
        if options.ask_client is not None:
            given = await options.ask_client(server.issuer)
            return attrs.evolve(given, issuer=server.issuer, redirect_uris=given.redirect_uris or redirect_uris)
        raise OAuthError(
            "it registers no clients by itself",
            step=REGISTRATION_STEP,
            issuer=shown_url(server.issuer),
            hint="Register a client there by hand, and pass client=OAuthClient(client_id, issuer=...)",
        )

    def _configured(self) -> OAuthClient | None:
        """The pre-registered client, bound to this authorization server. Raises ``OAuthError`` if it is another's."""
        options, issuer = self.authorizer.options, self.discovery.server.issuer
        configured = options.client or options.grant.client
        if configured is None:
            return None
        if configured.issuer not in (None, issuer):
            reason = f"the client is registered at {shown_url(configured.issuer or '')}"
            hint = "Register the client at the new authorization server"
            raise OAuthError(reason, step=REGISTRATION_STEP, issuer=shown_url(issuer), hint=hint)
        return attrs.evolve(configured, issuer=issuer)

    async def _stored(self) -> OAuthClient | None:
        return client_in(await self.authorizer.options.store.read(self._client_key()))

    def _client_key(self) -> str:
        return client_key(self.discovery.server.issuer)
