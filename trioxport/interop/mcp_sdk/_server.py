"""A server of the SDK on a target."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from mcp.server import MCPServer, Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.message import MessageMetadata, ServerMessageMetadata

from trioxport.config import Target
from trioxport.connection import Connection
from trioxport.interop.mcp_sdk._context import introduce, metadata_of
from trioxport.interop.mcp_sdk._exchange import serve_exchange
from trioxport.interop.mcp_sdk._streams import SDKReadStream, SDKWriteStream
from trioxport.opening import serve_transport


async def serve_sdk(
    server: Server[Any] | MCPServer,
    target: Target,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Serve the SDK's ``server`` on ``target`` until cancelled, in the era that each client opens with.

    Takes what :func:`trioxport.serve_transport` takes, and raises what it raises. The server's lifespan is entered
    once, around everything that is served.
    """
    lowlevel = _lowlevel(server)
    async with lowlevel.lifespan(lowlevel) as lifespan:

        async def handle(connection: Connection) -> None:
            introduce(connection)
            if connection.info.era == "modern":
                await serve_exchange(lowlevel, connection, lifespan)
                return
            await serve_dual_era_loop(
                lowlevel,
                SDKReadStream(connection.rx, partial(metadata_of, connection)),
                SDKWriteStream(connection.tx, _sent),
                lifespan_state=lifespan,
                session_id=connection.info.session_id,
            )

        await serve_transport(handle, target, task_status=task_status, **options)


def _lowlevel(server: Server[Any] | MCPServer) -> Server[Any]:
    if isinstance(server, MCPServer):
        return server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # the SDK has no public name for it yet
    return server


def _sent(metadata: MessageMetadata) -> dict[str, Any]:
    if isinstance(metadata, ServerMessageMetadata) and metadata.related_request_id is not None:
        return {"related_request": metadata.related_request_id}
    return {}
