"""Bridges between a client and a server that the test plays, message by message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from trioxport import (
    Connection,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    open_transport,
    serve_transport,
)
from trioxport.messages import Incoming
from trioxport.protocol import META
from trioxport.servers.bridge import serve_bridge
from trioxport.transports.memory import MemorySwitch

VERSION = "2026-07-28"
MODERN = {META + "protocolVersion": VERSION, META + "clientCapabilities": {}}
INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}, "logging": {}, "resources": {"subscribe": True}},
    "serverInfo": {"name": "played", "version": "1", "odd": 1.5},
}


class PlayedServer:
    """The server behind a bridge: each connection of the bridge, as it is opened."""

    def __init__(self) -> None:
        self._opened, self._connections = trio.open_memory_channel[Connection](100)
        self.switch = MemorySwitch()

    async def handler(self, connection: Connection) -> None:
        self._opened.send_nowait(connection)
        await trio.sleep_forever()

    async def connection(self) -> Connection:
        """Wait for the next connection of the bridge."""
        return await self._connections.receive()

    async def legacy(self, **changes: Any) -> Connection:
        """The next connection, which the bridge has initialized."""
        connection = await self.connection()
        request = await next_request(connection)
        while request.method != "initialize":
            await connection.tx.send(refusal(request))
            request = await next_request(connection)
        await connection.tx.send(Response(request.id, {**INITIALIZED, **changes}))
        initialized = await connection.rx.receive()
        assert isinstance(initialized, Notification)
        assert initialized.method == "notifications/initialized"
        return connection

    async def modern(self) -> Connection:
        """The next connection, on which the bridge has found a modern server."""
        connection = await self.connection()
        request = await next_request(connection)
        assert request.method == "server/discover"
        result = {"resultType": "complete", "supportedVersions": [VERSION], "capabilities": {}}
        await connection.tx.send(Response(request.id, result))
        return connection


def refusal(request: Request) -> Message:
    return ErrorResponse(request.id, -32601, "Method not found")


async def next_request(connection: Connection) -> Request:
    message = await connection.rx.receive()
    assert isinstance(message, Request), message
    return message


@asynccontextmanager
async def bridged(server: PlayedServer, **options: Any) -> AsyncGenerator[MemorySwitch]:
    """A bridge to the played server; yields the target for clients."""
    listen = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(_serve, server))
        await nursery.start(partial(serve_bridge, listen, server.switch, **options))
        yield listen
        nursery.cancel_scope.cancel()


async def _serve(server: PlayedServer, *, task_status: trio.TaskStatus[list[str]]) -> None:
    await serve_transport(server.handler, server.switch, task_status=task_status)


@asynccontextmanager
async def legacy_client(target: MemorySwitch, **capabilities: Any) -> AsyncGenerator[Connection]:
    """A legacy client that has initialized."""
    async with open_transport(target) as connection:
        params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "c"}}
        await connection.tx.send(Request("init", "initialize", params))
        answer = await connection.rx.receive()
        assert isinstance(answer, Response), answer
        assert answer.result["serverInfo"]["name"] == "played"
        await connection.tx.send(Notification("notifications/initialized"))
        yield connection


def modern(request_id: int | str, method: str, meta: dict[str, Any] | None = None, **params: Any) -> Request:
    """A request of a modern client."""
    return Request(request_id, method, {**params, "_meta": {**MODERN, **(meta or {})}})


async def answered(connection: Connection, request: Request) -> Incoming:
    """Send a request, and return the next message."""
    await connection.tx.send(request)
    return await connection.rx.receive()


@asynccontextmanager
async def legacy_pair(
    server: PlayedServer, target: MemorySwitch, one: Sequence[str] = (), two: Sequence[str] = ()
) -> AsyncGenerator[tuple[Connection, Connection, Connection]]:
    """The connection of the bridge to a legacy server, and two clients with their capabilities."""
    async with trio.open_nursery() as nursery:
        played: list[Connection] = []

        async def play() -> None:
            played.append(await server.legacy())

        nursery.start_soon(play)
        async with (
            legacy_client(target, **{name: {} for name in one}) as first,
            legacy_client(target, **{name: {} for name in two}) as second,
        ):
            yield played[0], first, second
