"""The request context that handlers of the SDK get: HTTP request, stream control and authenticated user."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.shared.message import ServerMessageMetadata
from starlette.requests import Request as HTTPRequest

from trioxport._diagnostics.redaction import Headers, encoded
from trioxport.auth import VerifiedToken
from trioxport.connection import Connection
from trioxport.interop.mcp_sdk._tokens import SDKToken, access_token_of
from trioxport.messages import Incoming, Notification, Request
from trioxport.metadata import metadata_of


def sdk_metadata_of(connection: Connection, message: Incoming) -> ServerMessageMetadata | None:
    """The SDK's metadata of a message: over HTTP its request, and the functions that control its stream."""
    headers = connection.info.headers
    if not headers or not isinstance(message, (Request, Notification)):
        return None
    noted = metadata_of(message)
    user = _user(connection, noted.get("token", connection.info.token))
    return ServerMessageMetadata(
        request_context=_http_request(noted.get("headers", headers), user),
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


def _http_request(headers: Mapping[str, str], user: AuthenticatedUser | None) -> HTTPRequest:
    """Starlette's request, which handlers expect; its body is read already."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": list(headers.encoded if isinstance(headers, Headers) else encoded(headers)),
    }
    if user is not None:
        scope["user"] = user
    return HTTPRequest(scope)


def set_auth_context(connection: Connection) -> None:
    """Set the SDK's authenticated user for this task and the tasks that it starts."""
    auth_context_var.set(_user(connection, connection.info.token))


def auth_context_of(connection: Connection, message: Incoming) -> contextvars.Context | None:
    """The context for the handler of a message that came with another token than the connection's first."""
    token = metadata_of(message).get("token") if isinstance(message, Request) else None
    if token is None:
        return None
    context = contextvars.copy_context()
    context.run(auth_context_var.set, _user(connection, token))
    return context


def _user(connection: Connection, token: object) -> AuthenticatedUser | None:
    principal = connection.info.principal
    if principal is None:
        return None
    if isinstance(token, SDKToken):
        return AuthenticatedUser(token.access_token)
    if not isinstance(token, VerifiedToken):
        return AuthenticatedUser(AccessToken(token="", client_id=principal, subject=principal, scopes=[]))
    return AuthenticatedUser(access_token_of(token))
