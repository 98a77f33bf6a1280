"""Bearer tokens (RFC 6750), and the metadata that tells clients where to get one (RFC 9728).

Specification 2026-07-28, basic/authorization.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import attrs
import msgspec

from trioxport.auth import VerifiedToken
from trioxport.errors import PermissionDenied
from trioxport.transports._access.request import AccessRefused, AccessRequest

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")

Verify: TypeAlias = Callable[[str], Awaitable[str | VerifiedToken | None]]
"""The verifier of bearer tokens: returns the principal or a ``VerifiedToken``, or None for a token that is not valid
(any more). Raises ``PermissionDenied`` for a valid one that lacks permission."""


@attrs.frozen
class ProtectedResource:
    """A server that answers only requests with a valid bearer token.

    Args:
        verify: Returns the principal of a token.
        authorization_servers: URLs of the servers that issue tokens, published as the metadata of RFC 9728.
        scopes: The scopes that tokens need, published likewise; ``verify`` checks that they have them.
        resource: The URL under which clients know this server; by default the URL that they ask for. A WebSocket
            server that listens alone publishes no metadata, and names its place only with this.
    """

    verify: Verify
    authorization_servers: Sequence[str] = attrs.field(default=(), kw_only=True)
    scopes: Sequence[str] = attrs.field(default=(), kw_only=True)
    resource: str | None = attrs.field(default=None, kw_only=True)


class BearerAuth:
    """The check of bearer tokens at one endpoint.

    Args:
        resource: The resource that is protected.
        path: The path of the endpoint.
        publishes_metadata: Whether this server answers requests for ``metadata_path``.

    Attributes:
        metadata_path: The path of the metadata.
    """

    def __init__(self, resource: ProtectedResource, path: str, *, publishes_metadata: bool) -> None:
        self._resource = resource
        self._path = path
        self._has_metadata = publishes_metadata or resource.resource is not None
        self.metadata_path = WELL_KNOWN + (urlsplit(resource.resource).path if resource.resource else path).rstrip("/")

    def metadata(self, request: AccessRequest) -> bytes:
        """The metadata of the resource in JSON, which every client may read."""
        resource = self._resource
        metadata = {
            "resource": self._url(request, self._path),
            "authorization_servers": list(resource.authorization_servers),
            "bearer_methods_supported": ["header"],
        }
        if resource.scopes:
            metadata["scopes_supported"] = list(resource.scopes)
        return msgspec.json.encode(metadata)

    def token_of(self, request: AccessRequest) -> str:
        """The token of a request. Raises ``AccessRefused`` (401) if it has none."""
        token = _BEARER.fullmatch(request.headers.get("authorization", ""))
        if token is None:
            raise self._refusal(request, 401, "A bearer token is needed")
        return token[1]

    async def authenticate(self, request: AccessRequest, token: str) -> None:
        """Set the principal of a request. Raises ``AccessRefused``: 401 for an invalid token, 403 if it may not ask."""
        try:
            verified = await self._resource.verify(token)
        except PermissionDenied:
            raise self._refusal(request, 403, "The token is not good for this", "insufficient_scope") from None
        if verified is None:
            raise self._refusal(request, 401, "The token is not valid", "invalid_token")
        if isinstance(verified, VerifiedToken):
            request.principal, request.token = verified.principal, verified
        else:
            request.principal = verified

    def _refusal(self, request: AccessRequest, status: int, reason: str, error: str | None = None) -> AccessRefused:
        parameters: list[str] = []
        if error is not None:
            parameters.append(f'error="{error}"')
        if self._has_metadata:
            parameters.append(f'resource_metadata="{self._url(request, self.metadata_path)}"')
        if self._resource.scopes:
            parameters.append(f'scope="{" ".join(self._resource.scopes)}"')
        challenge = f"Bearer {', '.join(parameters)}".rstrip()
        return AccessRefused(status, reason, fields=[(b"www-authenticate", challenge.encode())])

    def _url(self, request: AccessRequest, path: str) -> str:
        """A URL of this server, as its clients know it."""
        known = self._resource.resource
        if known is not None:
            parts = urlsplit(known)
            return known if path == self._path else f"{parts.scheme}://{parts.netloc}{path}"
        scheme = "https" if request.secure else "http"
        host = request.headers.get("host", "").replace('"', "")
        return f"{scheme}://{host}{path}"
