"""A server of the official SDK, on the SDK's own transport or on trioxport: the other process of ``mcp_sdk.py``.

    python -m benchmarks.programs.sdk_program stdio|http sdk|trioxport
    python -m benchmarks.programs.sdk_program http both
    python -m benchmarks.programs.sdk_program own modern|legacy COUNT

Over HTTP it writes its address as a line, and ends with its standard input. The last prints the microseconds that the
SDK's own work for a request takes, without any transport.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

import trio
import uvicorn
from mcp.server.connection import Connection
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.runner import serve_loop, serve_one
from mcp.shared.inbound import InboundModernRoute, classify_inbound_request
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import JSONRPCNotification, JSONRPCRequest

from benchmarks.programs.load_server import answer
from benchmarks.programs.sdk_tools import add_answer
from trioxport import Connection as OpenConnection
from trioxport import Request, serve_transport
from trioxport.interop.mcp_sdk import serve_sdk

INFO = {"name": "load", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}
CALL: dict[str, Any] = {"name": "answer", "arguments": {"size": 100, "steps": 0}}
server = MCPServer("benchmark", log_level="ERROR")
lowlevel = server._lowlevel_server


@server.tool()
async def echo(text: str) -> str:
    return text


add_answer(server, Context, structured_output=False)


async def serve_http() -> None:
    async with trio.open_nursery() as nursery:
        await serve_until_end(nursery, serve_sdk, server)


async def serve_until_end(nursery: trio.Nursery, serve: Callable[..., Any], served: object) -> None:
    """Serve over HTTP until the end of standard input."""
    [address] = await nursery.start(serve, served, "http://127.0.0.1:0/mcp")
    announce(address)
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    nursery.cancel_scope.cancel()


class AnnouncingServer(uvicorn.Server):
    """Uvicorn bound by host and port, as the SDK's ``run`` and uvicorn's own documentation have it.

    A listening socket made by hand has no protocol number, so that asyncio leaves ``TCP_NODELAY`` off, and each answer
    waits 40 ms for an acknowledgement.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        announce(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/mcp")


def uvicorn_server(app: Any = None) -> AnnouncingServer:
    """The server of an application; without one, of the SDK's."""
    app = app or server.streamable_http_app()
    return AnnouncingServer(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))


def run_uvicorn(app: Any = None) -> None:
    """Serve until the end of standard input."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    uvicorn_server(app).run()


class _NoTransport:
    """The SDK's context of a request that no transport has brought."""

    transport = TransportContext(kind="benchmark", can_send_request=False, headers=None)
    request_id = 1
    message_metadata = None
    can_send_request = False


class OwnWork:
    """The SDK's own work for calls of the tool ``answer``, by the drivers of its own HTTP server.

    Args:
        state: The state of the server's lifespan.
    """

    def __init__(self, state: Any) -> None:
        self._state = state
        self._to_server, self._from_client = trio.open_memory_channel[SessionMessage](1)
        self._from_server, self._answers = trio.open_memory_channel[SessionMessage](1)

    async def modern(self) -> None:
        """Classify a request, and serve it by the driver for single requests."""
        params = {**CALL, "_meta": META}
        route = classify_inbound_request({"method": "tools/call", "params": params})
        assert isinstance(route, InboundModernRoute)
        known = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        context: Any = _NoTransport()
        await serve_one(lowlevel, context, "tools/call", params, connection=known, lifespan_state=self._state)

    async def legacy(self) -> None:
        """Pass a request to the session, and wait for the answer."""
        await self._ask("tools/call", CALL)

    async def open_session(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._serve_session)
        await self._ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": INFO})
        told = JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized")
        await self._to_server.send(SessionMessage(told))

    async def _ask(self, method: str, params: dict[str, Any]) -> None:
        request = JSONRPCRequest(jsonrpc="2.0", id=1, method=method, params=params)
        await self._to_server.send(SessionMessage(request))
        await self._answers.receive()

    async def _serve_session(self) -> None:
        read: Any = self._from_client
        write: Any = self._from_server
        await serve_loop(lowlevel, read, write, lifespan_state=self._state)


async def own_work(era: str, count: int) -> float:
    """Microseconds of CPU time of a call of the tool, after as many calls as are measured.

    The first calls are slower, and the first full collection of garbage takes as long as hundreds of them.
    """
    async with lowlevel.lifespan(lowlevel) as state, trio.open_nursery() as nursery:
        work = OwnWork(state)
        call = work.modern if era == "modern" else work.legacy
        if era == "legacy":
            await work.open_session(nursery)
        for _ in range(count):
            await call()
        gc.collect()
        began = process_time()
        for _ in range(count):
            await call()
        took = process_time() - began
        nursery.cancel_scope.cancel()
    return took / count * 1e6


async def serve_both() -> None:
    """Serve a handler that does the SDK's own work for each call, and then answers it by hand."""
    async with lowlevel.lifespan(lowlevel) as state, trio.open_nursery() as nursery:
        modern = OwnWork(state).modern

        async def handle(connection: OpenConnection) -> None:
            if connection.info.era == "modern":
                await answer_calls(connection, modern)
                return
            work = OwnWork(state)
            async with trio.open_nursery() as session:
                await work.open_session(session)
                await answer_calls(connection, work.legacy)
                session.cancel_scope.cancel()

        await serve_until_end(nursery, serve_transport, handle)


async def answer_calls(connection: OpenConnection, work: Callable[[], Awaitable[None]]) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            if message.method == "tools/call":
                await work()
            await answer(connection, message)


def announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stdio", "sdk"]:
            server.run("stdio")
        case ["stdio", "trioxport"]:
            trio.run(serve_sdk, server, "stdio:")
        case ["http", "sdk"]:
            run_uvicorn()
        case ["http", "trioxport"]:
            trio.run(serve_http)
        case ["http", "both"]:
            trio.run(serve_both)
        case ["own", era, count]:
            announce(f"{trio.run(own_work, era, int(count)):.0f}")
