"""A small HTTP server whose every byte is the test's own: a script says what happens to each request."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import attrs
import trio


@attrs.frozen
class Asked:
    """One HTTP request, with the names of its headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)

    @property
    def rpc(self) -> str:
        """The JSON-RPC method, or the HTTP method of a request without a body; empty for a response."""
        return str(self.message.get("method", "")) if self.body else self.method


@attrs.define
class Reply:
    """The response that the script writes to the client."""

    asked: Asked
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    over: bool = False

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def status(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; underscores in the names of headers stand for hyphens."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.raw(f"HTTP/1.1 {status} Said\r\n{fields}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def json(self, value: object, status: int = 200, **headers: str) -> None:
        await self.status(status, json.dumps(value).encode(), content_type="application/json", **headers)

    async def result(self, result: object = None, **headers: str) -> None:
        answer = {"jsonrpc": "2.0", "id": self.asked.message["id"], "result": {} if result is None else result}
        await self.json(answer, 200, **headers)

    async def error(self, code: int, request_id: object = None, status: int = 400) -> None:
        await self.json({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": "no"}}, status)

    async def begin_events(self, **headers: str) -> None:
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.raw(
            f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{fields}transfer-encoding: chunked\r\n\r\n".encode()
        )

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, message: object, fields: str = "") -> None:
        await self.chunk(f"{fields}data: {json.dumps(message)}\n\n".encode())

    async def answer(self, result: object = None) -> None:
        """The response, as an event."""
        request_id = self.asked.message["id"]
        await self.event({"jsonrpc": "2.0", "id": request_id, "result": {} if result is None else result})

    async def end_events(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Wait until the client closes the connection."""
        self.over = True
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass

    def reset(self) -> None:
        """Cut the connection at once."""
        self.over = True
        assert isinstance(self.stream, trio.SocketStream)
        linger = b"\1\0\0\0\0\0\0\0"
        self.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        self.stream.socket.close()

    async def close(self) -> None:
        """End the connection in order."""
        self.over = True
        await self.stream.aclose()


Script: TypeAlias = Callable[[Reply], Awaitable[None]]


class Server:
    def __init__(self, script: Script, port: int) -> None:
        self.asked: list[Asked] = []
        self.accepted = 0
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"
        self._script = script
        self._asked_more = trio.Event()

    async def serve(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.accepted += 1
        async with stream:
            try:
                await self._serve(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _serve(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = await stream.receive_some()
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = int(headers.get("content-length", 0))
            while len(data) < size:
                data += await stream.receive_some()
            method, path, _ = first.split(" ")
            asked = Asked(method, path, headers, data[:size])
            data = data[size:]
            self.asked.append(asked)
            self._asked_more.set()
            reply = Reply(asked, stream)
            await self._script(reply)
            if reply.over:
                return

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for requests until ``condition`` holds."""
        while not condition():
            self._asked_more = trio.Event()
            await self._asked_more.wait()

    def rpcs(self) -> list[str]:
        return [asked.rpc for asked in self.asked]


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None, *, port: int = 0) -> AsyncGenerator[Server]:
    """A server on a port of its own, for the time of a block; with TLS if there is a ``context``."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        server = Server(script, listeners[0].socket.getsockname()[1])
        if context is None:
            await nursery.start(trio.serve_listeners, server.serve, listeners)
        else:
            server.url = server.url.replace("http", "https")
            tls = [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners]
            await nursery.start(trio.serve_listeners, server.serve, tls)
        yield server
        nursery.cancel_scope.cancel()
