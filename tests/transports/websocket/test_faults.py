"""WebSockets through a network that cuts, stalls and splits, at every point of a handshake and of a conversation."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.proxied import Cut, Direction, Forward, proxied
from tests.transports.websocket.test_websocket import LOCAL, serving
from trioxport import (
    ConnectError,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    Request,
    Response,
    Undelivered,
    open_transport,
)
from trioxport.transports.websocket import WebSocket

Outcome: TypeAlias = Literal["refused", "lost", "done"]
PING_INTERVAL: Final = 20.0
PING_TIMEOUT: Final = 10.0
EMPTY_LINE: Final = b"\r\n\r\n"


class Echo:
    """A handler that counts its connections, and how they ended."""

    def __init__(self) -> None:
        self.open = 0
        self.ends: Counter[Outcome] = Counter()

    async def handle(self, connection: Connection) -> None:
        self.open += 1
        try:
            async for message in connection.rx:
                if isinstance(message, Request):
                    await connection.tx.send(Response(message.id, message.params))
            self.ends["done"] += 1
        except ConnectionLost:
            self.ends["lost"] += 1
        finally:
            self.open -= 1


@asynccontextmanager
async def through(server: str, forward: Forward) -> AsyncGenerator[WebSocket]:
    """The target of a proxy in front of ``server``."""
    async with proxied(server.removesuffix("/mcp"), forward) as address:
        port = address.rpartition(":")[2]
        target = f"ws://127.0.0.1:{port}/mcp"
        yield WebSocket(target, ping_interval=PING_INTERVAL, ping_timeout=PING_TIMEOUT)


async def converse(target: WebSocket) -> Outcome:
    """How a conversation went. Fails if a request that was sent is not settled, or anything is settled twice."""
    try:
        async with open_transport(target) as (tx, rx):
            for number in range(2):
                await tx.send(Request(number, "tools/list", {"name": "é"}))
                answer = await rx.receive()
                assert isinstance(answer, Response | Undelivered) and answer.id == number
                if isinstance(answer, Undelivered):
                    with pytest.raises(ConnectionLost):
                        await rx.receive()
                    return "lost"
            await tx.aclose()
            assert [message async for message in rx] == []
    except ConnectError:
        return "refused"
    except ConnectionLost:
        return "lost"
    return "done"


async def measure(server: str) -> tuple[Counter[Direction], Counter[Direction]]:
    """How many bytes the handshake takes in each direction, and the whole conversation."""
    data: dict[Direction, bytes] = {"out": b"", "in": b""}

    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        data[direction] += chunk
        await sink.send_all(chunk)

    async with through(server, forward) as target:
        assert await converse(target) == "done"
    heads = Counter({direction: said.index(EMPTY_LINE) + len(EMPTY_LINE) for direction, said in data.items()})
    return heads, Counter({direction: len(said) for direction, said in data.items()})


@pytest.mark.parametrize("cut_direction", ["out", "in"])
async def test_cuts_between_any_two_bytes(cut_direction: Direction) -> None:
    echo = Echo()
    left = 0

    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        nonlocal left
        if direction == cut_direction:
            if len(chunk) > left:
                await sink.send_all(chunk[:left])
                raise Cut
            left -= len(chunk)
        await sink.send_all(chunk)

    async with serving(echo.handle) as server:
        heads, all_bytes = await measure(server)
        async with through(server, forward) as target:
            for place in range(all_bytes[cut_direction]):
                left = place
                with trio.fail_after(5):
                    outcome = await converse(target)
                assert outcome == "refused" if place < heads[cut_direction] else outcome != "done", place
        await wait_all_tasks_blocked(0.01)
        assert echo.open == 0
        assert await converse(WebSocket(server)) == "done"
        if cut_direction == "out":  # those whose request was whole, up to the one whose close frame was not
            assert echo.ends["lost"] == all_bytes["out"] - heads["out"]


async def test_stalls_at_any_point(autojump_clock: MockClock) -> None:
    """A network that swallows everything from some byte on: both sides notice, each within the times it was given."""
    echo = Echo()
    left = 0

    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        nonlocal left
        if left:
            passed, left = chunk[:left], max(0, left - len(chunk))
            await sink.send_all(passed)

    target = WebSocket(LOCAL, ping_interval=PING_INTERVAL, ping_timeout=PING_TIMEOUT)
    async with serving(echo.handle, target) as server:
        heads, all_bytes = await measure(server)
        for place in range(0, all_bytes.total() - 16, 7):  # without the close frames, after which there are no pings
            left = place
            started = trio.current_time()
            async with through(server, forward) as stalled:
                outcome = await converse(stalled)
                took = trio.current_time() - started
                assert outcome == ("refused" if place < heads.total() else "lost")
                assert took <= (30 if outcome == "refused" else PING_INTERVAL + PING_TIMEOUT) + 1
                await trio.sleep(PING_INTERVAL + PING_TIMEOUT + 1)
                assert echo.open == 0, place


async def test_a_stalled_handshake_is_told_as_such(autojump_clock: MockClock) -> None:
    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        if direction == "out":
            await sink.send_all(chunk)

    async with serving(Echo().handle) as server, through(server, forward) as target:
        with pytest.raises(ConnectTimeout, match="within 3 s"):
            async with open_transport(target, connect_timeout=3):
                pass


async def test_splits_between_all_bytes() -> None:
    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(chunk)):
            await sink.send_all(chunk[place : place + 1])
            await wait_all_tasks_blocked()  # so that it is read before the next one comes

    async with serving(Echo().handle) as server, through(server, forward) as target:
        assert await converse(target) == "done"
