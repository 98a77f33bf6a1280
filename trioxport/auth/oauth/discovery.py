"""Discovery: from a challenge of a server to its authorization server (RFC 9728, RFC 8414, OpenID Connect Discovery).

Specification 2026-07-28, basic/authorization/authorization-server-discovery.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from trioxport.auth.addresses import (
    canonical,
    fault_of,
    resource_metadata_urls,
    root_of,
    server_metadata_urls,
    shown_url,
)
from trioxport.auth.oauth.challenges import TokenChallenge
from trioxport.auth.oauth.metadata import (
    RESOURCE_STEP,
    SERVER_STEP,
    AuthorizationServer,
    ResourceMetadata,
    document_in,
)
from trioxport.auth.oauth.steps import OAuthResponse, Steps, get
from trioxport.errors import OAuthError


@attrs.frozen
class Discovery:
    """The result of discovery.

    Args:
        resource: The ``resource`` of all requests for tokens (RFC 8707, section 2).
        server: The chosen authorization server.
        metadata: The server's own metadata; None for a server that has none.
    """

    resource: str
    server: AuthorizationServer
    metadata: ResourceMetadata | None = None

    @property
    def scopes_supported(self) -> tuple[str, ...] | None:
        return None if self.metadata is None else self.metadata.scopes_supported


def discover(
    url: str, challenge: TokenChallenge | None = None, *, issuer: str | None = None, known: Collection[str] = ()
) -> Steps[Discovery]:
    """Find the authorization server of the MCP server at ``url``.

    Args:
        url: The MCP server.
        challenge: Its challenge, which may name its metadata.
        issuer: The only authorization server that is allowed; also that of a server without metadata.
        known: Issuers that are preferred if the server names several, since the client is registered there.

    Raises:
        OAuthError: A document is missing, broken, or about another resource or issuer.
    """
    metadata = yield from find_resource(url, challenge)
    if metadata is None:
        server = yield from find_server(issuer or root_of(url), assumed=issuer is None)
        return Discovery(canonical(url), server)
    chosen = _choice(metadata.authorization_servers, issuer, known)
    server = yield from find_server(chosen)
    return Discovery(metadata.resource, server, metadata)


def find_resource(url: str, challenge: TokenChallenge | None = None) -> Steps[ResourceMetadata | None]:
    """The metadata of the server at ``url``, or None if it has none. Raises ``OAuthError``.

    The URL in the challenge is used if there is one; else the well-known URLs, with the server's path and at the root.
    """
    named = challenge.parameters.get("resource_metadata") if challenge else None
    urls = resource_metadata_urls(url)
    if named is not None:
        if fault := fault_of(named):
            reason = f"the challenge names the metadata {shown_url(named)}: {fault}"
            raise OAuthError(reason, step=RESOURCE_STEP, section="RFC 9728, section 5.1")
        urls = [named]
    for each in urls:
        response = yield get(each)
        if (members := document_in(response)) is not None:
            return ResourceMetadata.parse(members, each, url)
        _check_usable(response, each, RESOURCE_STEP)
    if named is not None:
        reason = f"the challenge names the metadata {shown_url(named)}, where there is no document"
        raise OAuthError(reason, step=RESOURCE_STEP, section="RFC 9728, section 5.1")
    return None


def find_server(issuer: str, *, assumed: bool = False) -> Steps[AuthorizationServer]:
    """The metadata of the authorization server ``issuer``. Raises ``OAuthError``.

    Args:
        issuer: The issuer identifier; each of its well-known URLs is tried.
        assumed: Whether the issuer is only the origin of a server that has no metadata, as servers of 2025-03-26 do.
    """
    for each in server_metadata_urls(issuer):
        response = yield get(each)
        if (members := document_in(response)) is not None:
            return AuthorizationServer.parse(members, each, issuer)
        _check_usable(response, each, SERVER_STEP, issuer)
    if assumed:
        reason = "the server demands authorization, and names no authorization server"
        raise OAuthError(
            reason,
            step=RESOURCE_STEP,
            section="RFC 9728, section 3",
            hint="Pass issuer=... if you know its authorization server, or credentials of another kind",
        )
    reason = "it has no metadata document at any of its well-known URLs"
    raise OAuthError(reason, step=SERVER_STEP, issuer=shown_url(issuer), section="RFC 8414, section 3.1")


def _check_usable(response: OAuthResponse, url: str, step: str, issuer: str | None = None) -> None:
    """Raise ``OAuthError`` for a server that is out of order, where another URL would not help."""
    if response.status >= 500 or response.status == 429:
        reason = f"{shown_url(url)} answers with HTTP {response.status}"
        raise OAuthError(reason, step=step, issuer=issuer, retryable=True, hint="Try again later")


def _choice(servers: Sequence[str], issuer: str | None, known: Collection[str]) -> str:
    """The authorization server to use (RFC 9728, section 7.6)."""
    if issuer is None:
        return next((each for each in servers if each in known), servers[0])
    if issuer in servers:
        return issuer
    named = ", ".join(map(shown_url, servers[:5]))
    raise OAuthError(
        f"the server names the authorization servers {named}, and the client is set up for {shown_url(issuer)}",
        step=RESOURCE_STEP,
        section="MCP 2026-07-28, authorization server binding",
        hint="If the server has moved to another authorization server, register the client there",
    )
