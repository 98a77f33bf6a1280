"""The request context that handlers of the SDK get: HTTP request, stream control and authenticated user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.shared.message import ServerMessageMetadata
from starlette.requests import Request as HTTPRequest

from trioxport.connection import Connection
from trioxport.interop.mcp_sdk._hosting import SDKToken
from trioxport.messages import Incoming, Notification, Request
from trioxport.metadata import metadata_of


def sdk_metadata_of(connection: Connection, message: Incoming) -> ServerMessageMetadata | None:
    """The SDK's metadata of a message: over HTTP its request, and the functions that control its stream."""
    if not isinstance(message, Request | Notification) or not connection.info.headers:
        return None
    noted = metadata_of(message)
    return ServerMessageMetadata(
        request_context=_http_request(connection, noted.get("headers", connection.info.headers)),
        close_sse_stream=_awaitable(noted.get("close_stream")),
        close_standalone_sse_stream=_awaitable(noted.get("close_standalone_stream")),
        on_request_unanswered=_awaitable(noted.get("unanswered")),
    )


def _awaitable(function: Callable[[], None] | None) -> Callable[[], Awaitable[None]] | None:
    if function is None:
        return None

    async def call() -> None:
        function()

    return call


def _http_request(connection: Connection, headers: Mapping[str, str]) -> HTTPRequest:
    """Starlette's request, which handlers expect; its body is read already."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    if (user := _user(connection)) is not None:
        scope["user"] = user
    return HTTPRequest(scope)


def set_auth_context(connection: Connection) -> None:
    """Set the SDK's authenticated user for this task and the tasks that it starts."""
    auth_context_var.set(_user(connection))


def _user(connection: Connection) -> AuthenticatedUser | None:
    principal, token = connection.info.principal, connection.info.token
    if principal is None:
        return None
    if isinstance(token, SDKToken):
        return AuthenticatedUser(token.access_token)
    if token is None:
        return AuthenticatedUser(AccessToken(token="", client_id=principal, subject=principal, scopes=[]))
    return AuthenticatedUser(
        AccessToken(
            token="",
            client_id=token.client_id or principal,
            subject=principal,
            scopes=list(token.scopes),
            expires_at=None if token.expires_at is None else int(token.expires_at),
            claims=dict(token.claims),
        )
    )
