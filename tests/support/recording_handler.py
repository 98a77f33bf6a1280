"""A handler for HTTP servers under test, which does what the methods of its requests say, and what it saw."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from trioxport import Connection, ErrorResponse, Notification, Request, Response, Target, serve_transport
from trioxport.abc import ConnectionInfo
from trioxport.transports.http.server import HttpServer

__all__ = ["Ending", "Served", "serving"]


@attrs.define
class Served:
    """The messages that the handlers of one server saw, and the events that let them go on.

    Attributes:
        url: Where the server is.
        infos: Of each connection.
        received: Each message, in order.
        cancelled: The methods during which a handler was cancelled.
        go: Lets requests that ``wait`` go on.
        over: How many handlers have ended.
    """

    url: str = ""
    infos: list[ConnectionInfo] = attrs.Factory(list[ConnectionInfo])
    received: list[Any] = attrs.Factory(list[Any])
    cancelled: list[str] = attrs.Factory(list[str])
    connections: list[Connection] = attrs.Factory(list[Connection])
    go: trio.Event = attrs.Factory(trio.Event)
    over: int = 0
    _changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that handlers change is so."""
        while not condition():
            await self._changed.park()

    async def handle(self, connection: Connection) -> None:
        self.infos.append(connection.info)
        self.connections.append(connection)
        try:
            async with trio.open_nursery() as nursery:
                async for message in connection.rx:
                    self.received.append(message)
                    self._changed.unpark_all()
                    if isinstance(message, Request):
                        nursery.start_soon(self.reply, connection, message)
        finally:
            self.over += 1
            self._changed.unpark_all()

    async def reply(self, connection: Connection, asked: Request) -> None:
        """Do what the method of a request says."""
        tx, params = connection.tx, asked.params if isinstance(asked.params, dict) else {}
        related = {"related_request": asked.id}
        match asked.method:
            case "initialize":
                result = {"protocolVersion": params["protocolVersion"], "capabilities": {}, "serverInfo": {}}
                await tx.send(Response(asked.id, result))
            case "wait" | "subscriptions/listen":
                try:
                    await self.go.wait()
                except trio.Cancelled:
                    self.cancelled.append(asked.method)
                    self._changed.unpark_all()
                    raise
                await tx.send(Response(asked.id, {}))
            case "notify":
                for number in range(params["count"]):
                    said = {"for": asked.id, "number": number, "ballast": params.get("ballast")}
                    note = Notification("note", said, metadata=related)
                    await tx.send(note)
                if params.get("wait"):
                    await self.go.wait()
                await tx.send(Response(asked.id, {"for": asked.id}))
            case "progress":
                token = params["_meta"]["progressToken"]
                await tx.send(Notification("notifications/progress", {"progressToken": token, "progress": 1}))
                await tx.send(Response(asked.id, {}))
            case "ask":
                await tx.send(Request(f"server-{asked.id}", "roots/list", metadata=related))
                await self.go.wait()
                await tx.send(Response(asked.id, {}))
            case "announce":
                await tx.send(Notification("announced", params))
                await tx.send(Response(asked.id, {}))
            case "refuse":
                await tx.send(ErrorResponse(asked.id, params["code"], "refused"))
            case "fail":
                raise LookupError("the handler's own")
            case "silent":
                pass
            case _:
                await tx.send(Response(asked.id, {"method": asked.method}))


@asynccontextmanager
async def serving(config: Target = "http://127.0.0.1:0/mcp", **options: Any) -> AsyncGenerator[Served]:
    """A server for the time of a block, which it leaves by cancellation."""
    served = Served()
    options.setdefault("close_timeout", 0.5)
    handler: Callable[[Connection], Awaitable[object]] = options.pop("handler", served.handle)
    async with trio.open_nursery() as nursery:
        [served.url] = await nursery.start(partial(serve_transport, handler, config, **options))
        yield served
        nursery.cancel_scope.cancel()


class Ending:
    """A server that can be told to end while the test goes on."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.url = ""
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self.over = trio.Event()

    async def start(
        self,
        handler: Callable[[Connection], Awaitable[object]],
        config: HttpServer | str = "http://127.0.0.1:0/mcp",
        close_timeout: float = 5.0,
    ) -> None:
        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            with self._scope:
                await serve_transport(handler, config, close_timeout=close_timeout, task_status=task_status)
            self.over.set()

        [self.url] = await self._nursery.start(serve)

    def end(self) -> None:
        self._scope.cancel()

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0
