"""A reconnecting client with killed servers, and with networks that cut, stall and split."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.support.proxied import HOST, Cut, Direction, proxied
from trioxport import (
    Backoff,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    Incoming,
    Notification,
    Reconnect,
    Request,
    Response,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer
from trioxport.layers import Retry
from trioxport.transports.stream import Tls

SOON: Final = Reconnect(backoff=Backoff(base=0.01, cap=0.1), attempts=None)
RESTARTABLE: Final = Path(__file__).parents[2] / "programs" / "restartable.py"


@asynccontextmanager
async def server_process(port: int, log: Path) -> AsyncGenerator[tuple[int, trio.Process]]:
    """A server that is killed at the end of the block, if not before; and its port."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(RESTARTABLE), str(port), str(log)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with process.stdout:
            yield int(await process.stdout.receive_some()), process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize("layers", [[], [Retry(attempts=10)]], ids=["plain", "with Retry"])
async def test_a_server_is_killed_during_a_hundred_requests(layers: list[Layer], tmp_path: Path) -> None:
    """The server is started again after a while. Half of the requests only read."""
    log = tmp_path / "log"
    requests = [Request(n, "tools/list" if n % 2 else "tools/call", {"n": n}) for n in range(400)]
    settled: dict[object, Incoming] = {}
    may_send = trio.Semaphore(100)
    progress = {50: trio.Event(), 200: trio.Event()}

    async def receive(connection: Connection) -> None:
        while len(settled) < len(requests):
            message = await connection.rx.receive()
            assert isinstance(message, Response | Undelivered)
            assert message.id not in settled
            settled[message.id] = message
            if len(settled) in progress:
                progress[len(settled)].set()
            may_send.release()

    async def send(connection: Connection) -> None:
        for request in requests:
            await may_send.acquire()
            await connection.tx.send(request)

    async def kill_twice(port: int, first: trio.Process) -> None:
        process = first
        for reached in progress.values():
            await reached.wait()
            process.kill()
            await process.wait()
            _, process = await restarted.enter_async_context(server_process(port, log))

    with trio.fail_after(25):
        async with AsyncExitStack() as restarted:
            port, first = await restarted.enter_async_context(server_process(0, log))
            async with (
                open_transport(f"tcp://{HOST}:{port}", reconnect=SOON, layers=layers) as connection,
                trio.open_nursery() as nursery,
            ):
                for task in (receive, send):
                    nursery.start_soon(task, connection)
                nursery.start_soon(kill_twice, port, first)
    assert settled.keys() == {request.id for request in requests}
    left = {request_id: each for request_id, each in settled.items() if isinstance(each, Undelivered)}
    acted_on = Counter(map(int, log.read_text().split()))
    assert left
    assert max(acted_on.values()) == 1
    for request in requests:
        if request.id not in left:
            answer = settled[request.id]
            assert isinstance(answer, Response) and answer.result == request.params
            assert request.method == "tools/list" or acted_on[request.id] == 1  # type: ignore[index] # is an int
        elif left[request.id].outcome == "not_sent":
            assert request.id not in acted_on
    if layers:
        assert all(each.original.method == "tools/call" for each in left.values())  # type: ignore[union-attr]  # requests


@asynccontextmanager
async def legacy_server(**arguments: Any) -> AsyncGenerator[str]:
    """The address of a server that has to be initialized before it answers anything else."""

    async def handler(connection: Connection) -> None:
        ready = False
        with suppress(ConnectionLost):
            async for message in connection.rx:
                if isinstance(message, Notification):
                    ready = message.method == "notifications/initialized"
                elif isinstance(message, Request):
                    assert ready or message.method == "initialize"
                    await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_transport, handler, f"tcp://{HOST}:0", **arguments))
        yield address
        nursery.cancel_scope.cancel()


HELLO: Final = Request("hello", "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
READY: Final = Notification("notifications/initialized")
ASKED: Final = [Request(number, "tools/call", {"name": "é" * 5}) for number in range(3)]


async def converse(address: str) -> int:
    """Run a session and repeat undelivered messages. Return their number; fail if a call hangs."""
    again = 0
    with trio.fail_after(10):
        async with open_transport(address, reconnect=SOON) as (tx, rx):
            for request in (HELLO, *ASKED):
                await tx.send(request)
                while isinstance(answer := await rx.receive(), Undelivered):
                    assert answer.original == request
                    again += 1
                    await tx.send(request)
                assert isinstance(answer, Response) and answer.id == request.id
                if request is HELLO:
                    await tx.send(READY)
            await tx.aclose()
            assert [message async for message in rx] == []
    return again


async def count_bytes(server: str) -> Counter[Direction]:
    """Return the bytes of the session in each direction."""
    counted: Counter[Direction] = Counter()

    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        counted[direction] += len(chunk)
        await sink.send_all(chunk)

    async with proxied(server, forward) as address:
        assert await converse(address) == 0
    return counted


@pytest.mark.deadline(60)
@pytest.mark.parametrize("cut_direction", ["out", "in"])
async def test_the_network_cuts_between_any_two_bytes(cut_direction: Direction) -> None:
    async with legacy_server() as server:
        lost = 0
        for boundary in range((await count_bytes(server))[cut_direction]):
            left = boundary
            done = False

            async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
                nonlocal left, done
                if direction != cut_direction or done:
                    return await sink.send_all(chunk)
                if len(chunk) > left:
                    done = True
                    await sink.send_all(chunk[:left])
                    raise Cut
                left -= len(chunk)
                return await sink.send_all(chunk)

            async with proxied(server, forward) as address:
                lost += await converse(address)
            assert done
        assert lost > boundary / 2


async def test_the_network_splits_between_all_bytes() -> None:
    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(chunk)):
            await sink.send_all(chunk[place : place + 1])

    async with legacy_server() as server, proxied(server, forward) as address:
        assert await converse(address) == 0


async def test_the_network_stalls_and_is_cut() -> None:
    """Each message that a stalled network swallowed is answered or reported."""
    stalled, cut = trio.Event(), trio.Event()

    async def forward(chunk: bytes, direction: Direction, sink: trio.SocketStream) -> None:
        if b'"stall"' in chunk:
            stalled.set()
            await cut.wait()
            raise Cut
        await sink.send_all(chunk)

    async with (
        legacy_server() as server,
        proxied(server, forward) as address,
        open_transport(address, reconnect=SOON) as (tx, rx),
    ):
        await tx.send(HELLO)
        assert isinstance(await rx.receive(), Response)
        await tx.send(READY)
        await tx.send(Request("stall", "tools/list"))
        await stalled.wait()
        for request in ASKED:
            await tx.send(request)
        cut.set()
        left = [await rx.receive() for _ in range(4)]
        assert [each.id for each in left if isinstance(each, Undelivered)] == ["stall", 0, 1, 2]
        for request in ASKED:
            await tx.send(request)
        assert [getattr(await rx.receive(), "id", None) for _ in range(3)] == [0, 1, 2]


async def test_a_peer_that_accepts_and_never_answers_the_handshake() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        target = Tls(HOST, listener.socket.getsockname()[1], ssl_context=ssl.create_default_context())
        for retry_first in (False, True):
            reconnect = Reconnect(retry_first=retry_first)
            with pytest.raises(ConnectTimeout, match=r"no connection within 0\.2 s"):
                async with open_transport(target, reconnect=reconnect, connect_timeout=0.2):
                    pass
        nursery.cancel_scope.cancel()


async def test_what_could_not_be_flushed_on_leaving_is_told() -> None:
    """A loss would be made good, this is not."""

    async def deaf(connection: Connection) -> None:
        await trio.sleep_forever()

    async def leave() -> None:
        async with open_transport(address, reconnect=SOON, close_timeout=0.2) as (tx, _):
            with trio.move_on_after(0.5):
                while True:
                    await tx.send(Notification("note", ["x" * 100_000]))

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_transport, deaf, f"tcp://{HOST}:0", close_timeout=0.1))
        with pytest.raises(ConnectionLost, match="closed before everything that was sent could be written"):
            await leave()
        nursery.cancel_scope.cancel()
