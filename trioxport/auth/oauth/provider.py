"""The credentials of OAuth: what an application makes, and passes as ``auth``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trioxport.auth.addresses import canonical, fault_of
from trioxport.auth.oauth.authorizer import AskClient, Authorizer, OAuthOptions, TokenRefusal
from trioxport.auth.oauth.clients import OAuthClient, RegistrationMetadata, check_client_document
from trioxport.auth.oauth.grants import AuthorizationCode, Grant
from trioxport.auth.oauth.httpx_auth import flow_for
from trioxport.auth.oauth.interaction import Browser, Interaction
from trioxport.auth.oauth.logins import Login
from trioxport.auth.oauth.network import NetworkPolicy
from trioxport.auth.oauth.session import RequestAttempt, ResourceSession
from trioxport.auth.oauth.stores import CredentialStore, MemoryStore
from trioxport.errors import UsageError

if TYPE_CHECKING:
    import httpx


class OAuth:
    """Authorization by OAuth as the specification of MCP describes it; the server names the authorization server.

    ::

        auth = OAuth(client_name="My program", store=FileStore())
        async with open_transport(Http("https://mcp.example.com/mcp", auth=auth)) as (tx, rx):
            ...

    One object serves any number of servers and connections, all in the same Trio run. Each server gets its own tokens
    only. The person is asked once; after that tokens are refreshed before they expire.

    Args:
        client_name: The name of the application that the person sees.
        store: The store of tokens and registrations; by default this program's memory.
        interaction: The way to the person who consents: :class:`Browser` (the default), or :class:`OutOfBand`.
        grant: Another grant instead of consent in a browser: :class:`ClientCredentials`, :class:`WorkloadIdentity`,
            :class:`EnterpriseManaged` or :class:`DeviceAuthorization`.
        client: The client, if it is registered by hand.
        client_document: The URL of the client's metadata document, which is its id where the authorization server
            supports that. The document is the application's to publish.
        ask_client: An async function that gets an issuer, and returns the :class:`OAuthClient` there; called if no
            other registration is possible.
        client_metadata: Further members of a dynamic registration, such as ``client_uri``.
        scopes: Scopes to ask for, if the server demands no others; more are asked for when the server demands them.
        issuer: The only authorization server that is allowed; needed for a server that names none.
        dpop: Whether tokens are bound to a key (RFC 9449): True, False, or None for where both servers offer it.
        network: Proxies, trusted authorities, hosts and limits of the requests to authorization servers.

    Raises:
        UsageError: For options that cannot work.
    """

    def __init__(
        self,
        *,
        client_name: str = "trioxport",
        store: CredentialStore | None = None,
        interaction: Interaction | None = None,
        grant: Grant | None = None,
        client: OAuthClient | None = None,
        client_document: str | None = None,
        ask_client: AskClient | None = None,
        client_metadata: dict[str, Any] | None = None,
        scopes: Sequence[str] = (),
        issuer: str | None = None,
        dpop: bool | None = None,
        network: NetworkPolicy | None = None,
    ) -> None:
        if grant is not None and interaction is not None:
            raise UsageError(
                "interaction is for consent in a browser, and grant replaces that", hint="Pass one of them"
            )
        if isinstance(scopes, str):
            raise UsageError("scopes is a list of texts", hint=f"Pass scopes={scopes.split()!r}")
        if issuer is not None and (fault := fault_of(issuer)):
            raise UsageError(f"the issuer cannot be used: {fault}")
        if client_document is not None:
            check_client_document(client_document)
        self._grant = grant
        self._interaction = interaction or Browser()
        self._options = OAuthOptions(
            store=store or MemoryStore(),
            grant=grant or AuthorizationCode(self._interaction),
            client=client,
            client_document=client_document,
            metadata=RegistrationMetadata(client_name, extra=client_metadata or {}),
            ask_client=ask_client,
            scopes=tuple(scopes),
            issuer=issuer,
            dpop=dpop,
            network=network or NetworkPolicy(),
        )
        self._sessions: dict[str, ResourceSession] = {}

    def __repr__(self) -> str:
        return f"OAuth({self._options.metadata.client_name!r})"

    def session(self, server: str) -> ResourceSession:
        """The tokens for the MCP server at the URL ``server``."""
        found = self._sessions.get(server)
        if found is None:
            key = canonical(server, keep_query=True)
            found = self._sessions.setdefault(key, ResourceSession(Authorizer(server, self._options)))
            self._sessions[server] = found
        return found

    def attempt(self, server: str, operation: str = "") -> RequestAttempt:
        """The authorization of one request to ``server``; see :class:`~trioxport.auth.RequestAuthorizer`."""
        return self.session(server).attempt(operation)

    async def login(self, server: str, *, challenge: str | None = None) -> Login:
        """Log in now, with a person if that is needed. Returns the stored login if there is one.

        Args:
            server: The URL of the MCP server.
            challenge: The ``WWW-Authenticate`` of its response to a request without a token, if that is known: it may
                name scopes, and the place of the metadata.

        Raises:
            OAuthError: It failed.
            InteractionRequired: It needs a person, who cannot be asked here.
        """
        session = self.session(server)
        held = await session.current(None)
        if held is None:
            held = await session.replaced(None, TokenRefusal(header=challenge))
        assert held is not None
        return held.login

    async def complete(self, server: str, redirected: str) -> Login:
        """Complete the login of an ``InteractionRequired``.

        Args:
            server: The MCP server.
            redirected: The URL that the browser was redirected to, with its query.

        Raises:
            OAuthError: The answer is not the one to the request, which waits on then, or the authorization server
                refuses.
            UsageError: No request waits for an answer.
        """
        session = self.session(server)
        login = await session.authorizer.complete(redirected)
        session.use(login)
        return login

    async def logout(self, server: str) -> None:
        """Forget the tokens for ``server``; the registration of the client is kept."""
        session = self.session(server)
        session.use(None)
        await session.authorizer.forget()

    def httpx_auth(self, server: str) -> httpx.Auth:
        """An ``httpx.Auth`` for the MCP server at the URL ``server``; requests to other origins get no token."""
        import httpx

        flow: httpx.Auth = flow_for(httpx, server, self.attempt)
        return flow

    def httpx2_auth(self, server: str) -> Any:
        """The same for ``httpx2``, which the official SDK uses."""
        import httpx2

        return flow_for(httpx2, server, self.attempt)
