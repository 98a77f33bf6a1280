"""OAuth as the authorization scenarios need it: no user is asked, every consent is given."""

from __future__ import annotations

from typing import Any, Final

import httpx

from trioxport.auth.oauth import (
    Browser,
    ClientCredentials,
    EnterpriseManaged,
    OAuth,
    OAuthClient,
    WorkloadIdentity,
)

CLIENT_METADATA: Final = "https://conformance-test.local/client-metadata.json"
TIMEOUT: Final = 30.0


async def consent(url: str) -> None:
    """Open the page as a browser would, and follow its redirect to the listener on loopback."""
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        await client.get(url, follow_redirects=True)


def oauth_for(scenario: str, context: dict[str, Any]) -> OAuth:
    """The credentials for ``scenario``."""
    match scenario:
        case "auth/client-credentials-jwt":
            client = OAuthClient(
                context["client_id"],
                private_key=context["private_key_pem"],
                algorithm=context.get("signing_algorithm", "ES256"),
            )
            return OAuth(grant=ClientCredentials(client))
        case "auth/client-credentials-basic":
            return OAuth(grant=ClientCredentials(_registered(context)))
        case "auth/enterprise-managed-authorization":
            return OAuth(grant=_enterprise_managed(context))
        case "auth/wif-jwt-bearer":
            return OAuth(grant=WorkloadIdentity(OAuthClient(context["client_id"]), _always(context["valid_jwt"])))
    interaction = Browser(show=consent)
    if "client_id" in context:
        return OAuth(client=_registered(context), interaction=interaction)
    return OAuth(client_document=CLIENT_METADATA, interaction=interaction)


def _registered(context: dict[str, Any]) -> OAuthClient:
    return OAuthClient(context["client_id"], client_secret=context.get("client_secret"))


def _enterprise_managed(context: dict[str, Any]) -> EnterpriseManaged:
    """The enterprise's identity provider vouches for the user (RFC 8693, RFC 7523)."""
    return EnterpriseManaged(
        client=_registered(context),
        token_endpoint=context["idp_token_endpoint"],
        idp_client=OAuthClient(context["idp_client_id"]),
        subject_token=_always(context["idp_id_token"]),
    )


def _always(token: str) -> Any:
    async def provide() -> str:
        return token

    return provide
