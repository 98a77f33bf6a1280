"""A server of the SDK, or of FastMCP, on a target."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from mcp.server import Server
from mcp.server.runner import serve_dual_era_loop, serve_loop
from mcp.shared.message import MessageMetadata, ServerMessageMetadata

from trioxport._core.nursery import require_trio
from trioxport.connection import Connection
from trioxport.interop.asgi import McpApplication
from trioxport.interop.mcp_sdk._context import auth_context_of, sdk_metadata_of, set_auth_context
from trioxport.interop.mcp_sdk._exchange import serve_single_request
from trioxport.interop.mcp_sdk._hosting import AnyServer, Hosting
from trioxport.interop.mcp_sdk._streams import SDKReadStream, SDKWriteStream, UnansweredRequests
from trioxport.metadata import Metadata
from trioxport.opening import serve_transport
from trioxport.protocol import INITIALIZE
from trioxport.targets import Target
from trioxport.transports.http.server import HttpServer


async def serve_sdk(
    server: AnyServer,
    target: Target,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Serve the SDK's ``server`` on ``target`` until cancelled, in the era that each client opens with.

    Arguments and exceptions are those of :func:`trioxport.serve_transport`. The server's lifespan is entered once for
    all connections. When serving is cancelled, or a client half-closes, running calls may finish within
    ``close_timeout`` seconds.

    Args:
        server: An ``MCPServer``, a low-level ``Server``, or a ``FastMCP`` server. Over HTTP its own authentication
            (``auth``, ``token_verifier``, an authorization server's routes) and its custom routes hold.
        target: The target to serve it on.

    Raises:
        UsageError: The server checks tokens, and the target cannot carry them; or ``HttpServer`` and the server both
            configure authentication.
        TypeError: ``server`` is no server.
    """
    require_trio("serve_sdk")
    hosting = Hosting.of(server)
    host = _Host(hosting.server)
    on_target = hosting.on(target)
    async with host.running():
        await serve_transport(host.handle, on_target, task_status=task_status, **options)


def sdk_application(server: AnyServer, config: HttpServer, **options: Any) -> McpApplication:
    """The SDK's ``server`` as an ASGI application, to run or to mount in one that runs on Trio.

    The server's authentication and custom routes hold as with :func:`serve_sdk`; its lifespan is entered with the
    application's. ``options`` are those of :class:`~trioxport.interop.asgi.McpApplication`.

    Raises:
        UsageError: ``HttpServer`` and the server both configure authentication, or further routes.
        TypeError: ``server`` is no server.
    """
    hosting = Hosting.of(server)
    host = _Host(hosting.server)
    return McpApplication(host.handle, hosting.on_http(config), within=host.running, **options)


class _Host:
    """Runs one server over connections, in either era."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._lifespan: Any = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Enter the server's lifespan for the duration of a block."""
        async with self._server.lifespan(self._server) as self._lifespan:
            yield

    async def handle(self, connection: Connection) -> None:
        set_auth_context(connection)
        if connection.info.era == "modern":
            await serve_single_request(self._server, connection, self._lifespan)
            return
        unanswered = UnansweredRequests(connection.scope.settings.close_timeout)
        read = SDKReadStream(
            connection.rx,
            connection.tx,
            partial(sdk_metadata_of, connection),
            unanswered,
            partial(auth_context_of, connection),
        )
        # The loop for both eras passes each message on through a task and a stream of its own.
        is_legacy = connection.info.era == "legacy" and await read.begins_with(INITIALIZE)
        serve = serve_loop if is_legacy else serve_dual_era_loop
        await serve(
            self._server,
            read,
            SDKWriteStream(connection.tx, _sent, unanswered),
            lifespan_state=self._lifespan,
            session_id=connection.info.session_id,
        )


def _sent(metadata: MessageMetadata) -> Mapping[str, Any]:
    if isinstance(metadata, ServerMessageMetadata) and metadata.related_request_id is not None:
        return Metadata(related_request=metadata.related_request_id)
    return {}
