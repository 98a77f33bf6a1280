"""The access policy at an HTTP endpoint: its paths, CORS, and the metadata of a protected resource."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from trioxport.messages import Message, Request
from trioxport.transports._access.policy import AccessPolicy
from trioxport.transports._access.request import AccessRefused
from trioxport.transports.http.server.options import HttpServerOptions
from trioxport.transports.http.server.refusals import Refusal
from trioxport.transports.http.server.request import Field, RequestHead, ServerRequest

_METHODS: Final = b"GET, POST, DELETE"
_ALLOWED: Final = (
    b"accept, authorization, content-type, dpop, last-event-id, mcp-method, mcp-name, mcp-protocol-version, "
    b"mcp-session-id"
)
_EXPOSED: Final = b"mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, dpop-nonce"
_PREFLIGHT_SECONDS: Final = b"600"


class HttpAccess:
    """The access policy of one endpoint. Raises ``UsageError`` if it listens on all addresses without ``hosts``.

    Attributes:
        policy: The checks that a WebSocket at the endpoint has to pass too.
    """

    def __init__(self, config: HttpServerOptions) -> None:
        self._cors = config.cors
        self._path = urlsplit(config.http_url).path or "/"
        self.policy = AccessPolicy(config, config.http_url, publishes_metadata=True)

    async def respond(self, request: ServerRequest) -> bool:
        """Answer a preflight or a request for the metadata, and return whether it was one. Raises ``AccessRefused``."""
        self.policy.check_host(request)
        self.policy.check_origin(request)
        if self._cors and (origin := request.headers.get("origin")) is not None:
            request.fields += _cors(origin)
            if request.method == "OPTIONS":
                await request.respond(204, b"", *_preflight(request))
                return True
        bearer = self.policy.bearer
        if bearer is not None and request.path == bearer.metadata_path and request.method == "GET":
            await request.respond(200, bearer.metadata(request))
            return True
        await self.policy.check_client(request)
        return False

    def check_message(self, request: ServerRequest, message: Message) -> None:
        """Raise ``Refusal`` (403) for a message for which the token of its request does not suffice."""
        if self.policy.bearer is None:
            return
        try:
            self.policy.bearer.check_message(request, message)
        except AccessRefused as refused:
            request_id = message.id if isinstance(message, Request) else None
            raise Refusal(
                refused.status,
                refused.reason,
                request_id=request_id,
                fields=refused.fields,
                about=refused.about,
                detail=refused.detail,
            ) from None

    def is_for_pages(self, request: RequestHead) -> bool:
        """Whether the response to a request has headers for the page that sends it."""
        return self._cors and "origin" in request.headers

    def is_endpoint(self, request: RequestHead) -> bool:
        """Whether a request is for the MCP endpoint."""
        path = self._path.rstrip("/")
        return path in (request.path.rstrip("/"), request.full_path.rstrip("/"))

    def has(self, request: RequestHead) -> bool:
        """Whether a request is for the endpoint, or for the metadata that tells where to get a token."""
        bearer = self.policy.bearer
        return self.is_endpoint(request) or (bearer is not None and request.path == bearer.metadata_path)


def _cors(origin: str) -> Sequence[Field]:
    """Headers that let the page of an origin read the response."""
    return (
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"origin"),
    )


def _preflight(request: ServerRequest) -> Sequence[Field]:
    """Headers of the answer to a preflight request (the Fetch standard, section CORS protocol)."""
    wanted = request.headers.get("access-control-request-headers", "").lower()
    params = [name.strip() for name in wanted.split(",") if name.strip().startswith("mcp-param-")]
    return (
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", b", ".join([_ALLOWED, *(name.encode("latin-1") for name in params)])),
        (b"access-control-max-age", _PREFLIGHT_SECONDS),
    )
