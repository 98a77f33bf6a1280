"""The SDK's OAuth providers, as the authorization scenarios need them: no user is asked, every consent is given."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.auth.utils import build_protected_resource_metadata_discovery_urls
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

REDIRECT: Final = AnyUrl("http://localhost:3000/callback")
CLIENT_METADATA: Final = "https://conformance-test.local/client-metadata.json"
TIMEOUT: Final = 30.0


class Store:
    """Tokens and registrations, in memory."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self._client = client
        self._tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


class Consent:
    """Follows the authorization URL itself, and keeps what it is sent back with."""

    def __init__(self) -> None:
        self._answer: dict[str, str] = {}

    async def redirect(self, authorization_url: str) -> None:
        async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
            response = await client.get(authorization_url, follow_redirects=False)
        query = parse_qs(urlsplit(response.headers["location"]).query)
        self._answer = {name: values[0] for name, values in query.items()}

    async def callback(self) -> AuthorizationCodeResult:
        answer, self._answer = self._answer, {}
        return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))


async def provider_for(scenario: str, url: str, context: dict[str, Any]) -> httpx2.Auth:
    """The provider that authorizes requests to ``url`` in ``scenario``."""
    match scenario:
        case "auth/client-credentials-jwt":
            return _by_signed_jwt(url, context)
        case "auth/client-credentials-basic":
            return ClientCredentialsOAuthProvider(
                server_url=url,
                storage=Store(),
                client_id=context["client_id"],
                client_secret=context["client_secret"],
                token_endpoint_auth_method="client_secret_basic",
            )
        case "auth/enterprise-managed-authorization":
            return await _by_identity_assertion(url, context)
    return _by_code(url, context)


def _by_code(url: str, context: dict[str, Any]) -> httpx2.Auth:
    known: OAuthClientInformationFull | None = None
    if "client_id" in context:
        secret = context.get("client_secret")
        method = "client_secret_basic" if secret else "none"
        known = OAuthClientInformationFull(
            client_id=context["client_id"],
            client_secret=secret,
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method=method,
        )
    consent = Consent()
    return OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(
            client_name="trioxport",
            redirect_uris=[REDIRECT],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
        ),
        storage=Store(known),
        redirect_handler=consent.redirect,
        callback_handler=consent.callback,
        client_metadata_url=CLIENT_METADATA,
    )


def _by_signed_jwt(url: str, context: dict[str, Any]) -> httpx2.Auth:
    client_id = context["client_id"]
    signed = SignedJWTParameters(
        issuer=client_id,
        subject=client_id,
        signing_algorithm=context.get("signing_algorithm", "ES256"),
        signing_key=context["private_key_pem"],
    )
    return PrivateKeyJWTOAuthProvider(
        server_url=url, storage=Store(), client_id=client_id, assertion_provider=signed.create_assertion_provider()
    )


async def _by_identity_assertion(url: str, context: dict[str, Any]) -> httpx2.Auth:
    """The enterprise's identity provider vouches for the user (RFC 8693, RFC 7523)."""
    metadata_url = build_protected_resource_metadata_discovery_urls(None, url)[0]
    async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
        metadata = (await client.get(metadata_url)).raise_for_status().json()

    async def exchange(audience: str, resource: str) -> str:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token": context["idp_id_token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "audience": audience,
            "resource": resource,
            "client_id": context["idp_client_id"],
        }
        async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
            response = await client.post(context["idp_token_endpoint"], data=form)
        token: str = response.raise_for_status().json()["access_token"]
        return token

    return IdentityAssertionOAuthProvider(
        server_url=url,
        storage=Store(),
        client_id=context["client_id"],
        client_secret=context["client_secret"],
        issuer=metadata["authorization_servers"][0],
        assertion_provider=exchange,
        token_endpoint_auth_method="client_secret_basic",
    )
