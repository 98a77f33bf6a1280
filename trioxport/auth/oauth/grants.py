"""Grants: the ways to get the first tokens of a login. :class:`AuthorizationCode` asks a person, and is the default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias, TypeVar

import attrs

from trioxport.auth.addresses import fault_of
from trioxport.auth.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    check_pkce,
    code_in,
    redeem,
)
from trioxport.auth.oauth.clients import OAuthClient
from trioxport.auth.oauth.discovery import Discovery
from trioxport.auth.oauth.interaction import Consent, Interaction
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.steps import Steps, json_object, post_form, refusal
from trioxport.auth.oauth.token_requests import DPoPState, TokenSet, client_authentication, token_request
from trioxport.auth.secret import Secret, secret
from trioxport.errors import InteractionRequired, OAuthError, UsageError

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
SAML2: Final = "urn:ietf:params:oauth:token-type:saml2"

AssertionProvider: TypeAlias = Callable[[], Awaitable[str | Secret]]
"""An async function that returns an assertion, such as the token of a workload, or the ID token of a person."""

Result = TypeVar("Result")


class GrantContext(Protocol):
    """The parts of an authorization that a grant uses."""

    @property
    def discovery(self) -> Discovery: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def dpop(self) -> DPoPState | None: ...

    pending: AuthorizationRequest | None
    """The request whose answer a person brings later."""

    async def run(self, steps: Steps[Result]) -> Result:
        """Run steps over the network."""
        ...

    async def client(self, redirect_uris: Sequence[str] = (), grants: Sequence[str] = ()) -> OAuthClient:
        """The client at this authorization server, registered now if that is needed and possible."""
        ...

    async def registered(self) -> Sequence[str]:
        """The redirect URIs that the client has registered."""
        ...


class Grant(Protocol):
    """A way to get the first tokens of a login.

    Attributes:
        asks: Whether it asks a person.
        client: The client that it is made for; None for the one of the ``OAuth``.
    """

    @property
    def asks(self) -> bool: ...
    @property
    def client(self) -> OAuthClient | None: ...

    async def obtain(self, context: GrantContext) -> TokenSet:
        """Get tokens. Raises ``OAuthError`` and ``InteractionRequired``."""
        ...


def base_form(context: GrantContext, grant_type: str) -> dict[str, str]:
    """The parameters of a grant that carries its own proof, with the resource and the scopes."""
    form = {"grant_type": grant_type, "resource": context.discovery.resource}
    if context.scopes:
        form["scope"] = " ".join(context.scopes)
    return form


class AuthorizationCode:
    """Consent of a person in a browser, with PKCE (OAuth 2.1, section 4.1).

    Args:
        interaction: The way to the person.
    """

    asks = True
    client = None

    def __init__(self, interaction: Interaction) -> None:
        self._interaction = interaction

    async def obtain(self, context: GrantContext) -> TokenSet:
        check_pkce(context.discovery.server)
        async with self._open(await context.registered()) as consent:
            uri = consent.redirect_uri
            client = await context.client([uri], ("authorization_code", "refresh_token"))
            request = await context.run(
                authorization_request(
                    context.discovery.server,
                    client,
                    redirect_uri=uri,
                    resource=context.discovery.resource,
                    scopes=context.scopes,
                    dpop=context.dpop,
                )
            )
            try:
                redirected = await consent.ask(request.url)
            except InteractionRequired as error:
                context.pending = request
                error.issuer = request.server.issuer
                raise
            return await self._redeem(context, request, code_in(request, redirected))

    async def complete(self, context: GrantContext, redirected: str) -> TokenSet:
        """The tokens for the answer to the request of the last ``InteractionRequired``.

        The request waits on after an answer that is not its own, or that holds no code.
        """
        request = context.pending
        assert request is not None
        code = code_in(request, redirected)
        context.pending = None
        return await self._redeem(context, request, code)

    async def _redeem(self, context: GrantContext, request: AuthorizationRequest, code: Secret) -> TokenSet:
        return await context.run(redeem(request, code, dpop=context.dpop))

    def _open(self, registered: Sequence[str]) -> AbstractAsyncContextManager[Consent]:
        return self._interaction.open(registered)


@attrs.frozen
class ClientCredentials:
    """The client's own credentials, without a person (RFC 6749, section 4.4).

    Args:
        client: The client, with its secret, or its key for ``private_key_jwt``.
    """

    client: OAuthClient
    asks: bool = attrs.field(default=False, init=False)

    async def obtain(self, context: GrantContext) -> TokenSet:
        form = base_form(context, "client_credentials")
        client = await context.client()
        return await context.run(token_request(context.discovery.server, client, form, dpop=context.dpop))


@attrs.frozen
class WorkloadIdentity:
    """The identity of a workload, as its platform asserts it (RFC 7523, section 2.1). One attempt, and no other grant.

    Args:
        client: The client.
        assertion: An async function that returns the JWT of the workload; called for each token.
    """

    client: OAuthClient
    assertion: AssertionProvider
    asks: bool = attrs.field(default=False, init=False)

    async def obtain(self, context: GrantContext) -> TokenSet:
        given = secret(await self.assertion())
        form = base_form(context, JWT_BEARER) | {"assertion": given.reveal()}
        client = await context.client()
        return await context.run(token_request(context.discovery.server, client, form, dpop=context.dpop))


@attrs.frozen
class EnterpriseManaged:
    """Authorization that the identity provider of an enterprise manages (Identity Assertion JWT Authorization Grant).

    The person is known by single sign-on. The identity provider exchanges the assertion for an ID-JAG (RFC 8693),
    which the authorization server of the MCP server takes for an access token (RFC 7523).

    Args:
        client: The client at the authorization server of the MCP server.
        token_endpoint: The token endpoint of the identity provider.
        idp_client: The client at the identity provider.
        subject_token: An async function that returns the ID token, or SAML assertion, of the person.
        subject_token_type: The type of that token.
    """

    client: OAuthClient
    token_endpoint: str
    idp_client: OAuthClient
    subject_token: AssertionProvider
    subject_token_type: str = ID_TOKEN
    asks: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if fault := fault_of(self.token_endpoint):
            raise UsageError(f"the token endpoint of the identity provider cannot be used: {fault}")

    async def obtain(self, context: GrantContext) -> TokenSet:
        given = secret(await self.subject_token())
        assertion = await context.run(self._exchange(context, given))
        form = base_form(context, JWT_BEARER) | {"assertion": assertion.reveal()}
        client = await context.client()
        return await context.run(token_request(context.discovery.server, client, form, dpop=context.dpop))

    def _exchange(self, context: GrantContext, subject_token: Secret) -> Steps[Secret]:
        """The first leg: the ID-JAG for the authorization server and the MCP server."""
        form = base_form(context, TOKEN_EXCHANGE) | {
            "requested_token_type": ID_JAG,
            "audience": context.discovery.server.issuer,
            "subject_token": subject_token.reveal(),
            "subject_token_type": self.subject_token_type,
        }
        provider = AuthorizationServer(self.idp_client.issuer or self.token_endpoint, self.token_endpoint)
        fields, added = client_authentication(provider, self.idp_client)
        response = yield post_form(self.token_endpoint, {**form, **added}, fields)
        step, section = "token exchange at the identity provider", "RFC 8693, section 2.2"
        if response.status != 200:
            raise refusal(response, step, section=section, secrets=[subject_token])
        found = json_object(response) or {}
        token = found.get("access_token")
        if found.get("issued_token_type") != ID_JAG or not isinstance(token, str) or not token:
            raise OAuthError("the response holds no ID-JAG", step=step, section=section)
        return Secret(token)
