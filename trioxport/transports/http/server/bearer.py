"""Who may ask: bearer tokens (RFC 6750), and the metadata that tells clients where to get one (RFC 9728).

Specification 2026-07-28, basic/authorization.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from trioxport.auth import VerifiedToken
from trioxport.errors import PermissionDenied
from trioxport.transports.http.server.request import Refusal, ServerRequest
from trioxport.transports.http.server.target import ProtectedResource

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")


class BearerAuth:
    """Lets in whose token is good.

    Args:
        resource: What is protected, and by whom.
        path: Of the endpoint.
    """

    def __init__(self, resource: ProtectedResource, path: str) -> None:
        self._resource = resource
        self._path = path
        self._metadata_path = WELL_KNOWN + (urlsplit(resource.resource).path if resource.resource else path).rstrip("/")

    def has(self, exchange: ServerRequest) -> bool:
        """Whether a request is for the metadata."""
        return exchange.path == self._metadata_path

    async def answers(self, exchange: ServerRequest) -> bool:
        """Answer a request for the metadata, which anybody may see; whether it was one."""
        if not self.has(exchange) or exchange.method != "GET":
            return False
        resource = self._resource
        metadata = {
            "resource": self._url(exchange, self._path),
            "authorization_servers": list(resource.authorization_servers),
            "bearer_methods_supported": ["header"],
        }
        if resource.scopes:
            metadata["scopes_supported"] = list(resource.scopes)
        await exchange.respond(200, msgspec.json.encode(metadata))
        return True

    def token_of(self, exchange: ServerRequest) -> str:
        """The token that the client shows. Raises ``Refusal`` if it shows none."""
        token = _BEARER.fullmatch(exchange.headers.get("authorization", ""))
        if token is None:
            raise self._refusal(exchange, 401, "A bearer token is needed")
        return token[1]

    async def admit(self, exchange: ServerRequest, token: str) -> None:
        """Find out who the client is by its token. Raises ``Refusal`` for one that is not valid, or may not ask."""
        try:
            verified = await self._resource.verify(token)
        except PermissionDenied:
            raise self._refusal(exchange, 403, "The token is not good for this", "insufficient_scope") from None
        if verified is None:
            raise self._refusal(exchange, 401, "The token is not valid", "invalid_token")
        if isinstance(verified, VerifiedToken):
            exchange.principal, exchange.token = verified.principal, verified
        else:
            exchange.principal = verified

    def _refusal(self, exchange: ServerRequest, status: int, reason: str, error: str | None = None) -> Refusal:
        challenge = [f'resource_metadata="{self._url(exchange, self._metadata_path)}"']
        if error is not None:
            challenge.insert(0, f'error="{error}"')
        if self._resource.scopes:
            challenge.append(f'scope="{" ".join(self._resource.scopes)}"')
        return Refusal(status, reason, fields=[(b"www-authenticate", f"Bearer {', '.join(challenge)}".encode())])

    def _url(self, exchange: ServerRequest, path: str) -> str:
        """A URL of this server, as its clients know it."""
        known = self._resource.resource
        if known is not None:
            parts = urlsplit(known)
            return known if path == self._path else f"{parts.scheme}://{parts.netloc}{path}"
        scheme = "https" if exchange.secure else "http"
        host = exchange.headers.get("host", "").replace('"', "")
        return f"{scheme}://{host}{path}"
