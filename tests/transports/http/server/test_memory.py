"""The memory that sessions and refused requests cost the HTTP server, and its release."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import INITIALIZE, JSON_OR_EVENTS, initialized, modern, modern_fields, request, talking
from tests.support.recording_handler import serving
from trioxport import Connection, Request, Response
from trioxport.layers import Metrics
from trioxport.transports.http.server import Bounds, HttpServer, Sessions

ANYWHERE: Final = "http://127.0.0.1:0/mcp"
BOUND: Final = 25.0
IDLE_SESSION: Final = 20 * 1024
PIECE: Final = b" " * 32 * 1024


async def brief(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))


@contextmanager
def tracing() -> Generator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def held() -> Counter[str]:
    """Count the objects of this package's classes, and those that it makes of other classes."""
    gc.collect()
    return alive()


def alive() -> Counter[str]:
    """Count the same with those that the garbage collector would release."""
    kinds = (type(each) for each in gc.get_objects())
    names = Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return Counter({name: count for name, count in names.items() if name.startswith(MADE)})


MADE: Final = ("trioxport.", "h11.", "socket.", "trio.lowlevel.Task", "trio.Memory", "trio.SocketStream")


async def settled(tasks: int) -> None:
    """Wait until there are no more than so many tasks."""
    while trio.lowlevel.current_statistics().tasks_living > tasks:  # noqa: ASYNC110 (there is no event to wait for)
        await trio.sleep(0.01)
    await trio.sleep(0.1)
    gc.collect()


@pytest.mark.deadline(60)
async def test_idle_sessions_are_small_and_abandoned_ones_are_given_back(jumping_clock: trio.abc.Clock) -> None:
    config = HttpServer(ANYWHERE, sessions=Sessions(idle_timeout=1000))
    with tracing():
        async with serving(config, handler=brief) as served:
            await initialized(served.url)
            await trio.sleep(2000)
            tasks = trio.lowlevel.current_statistics().tasks_living
            await settled(tasks)
            before, held_before = tracemalloc.get_traced_memory()[0], held()
            for _ in range(200):
                await initialized(served.url)
            await settled(tasks + 200)
            during = tracemalloc.get_traced_memory()[0]
            assert trio.lowlevel.current_statistics().tasks_living == tasks + 200
            assert (during - before) / 200 < IDLE_SESSION
            await trio.sleep(2000)
            await settled(tasks)
            assert held() - held_before == Counter()


@pytest.mark.deadline(60)
async def test_refused_requests_leave_nothing_behind() -> None:
    opening = request("initialize", **INITIALIZE)
    broken = modern("hello")
    del broken["params"]["_meta"]
    refused: list[tuple[str, dict[str, str], Any]] = [
        ("POST", {**JSON_OR_EVENTS}, request("initialize")),
        ("POST", {**JSON_OR_EVENTS, "mcp-session-id": "unknown"}, request("hello")),
        ("POST", {**JSON_OR_EVENTS, "origin": "http://evil.example"}, opening),
        ("POST", {**JSON_OR_EVENTS, "host": "evil.example"}, opening),
        ("POST", {"accept": "text/html", "content-type": "application/json"}, opening),
        ("POST", modern_fields(modern("hello")), broken),
        ("POST", modern_fields(modern("other")), modern("hello")),
        ("POST", JSON_OR_EVENTS, b"{"),
        ("GET", JSON_OR_EVENTS, b""),
        ("DELETE", {"mcp-session-id": "unknown"}, b""),
    ]

    async def be_refused(url: str) -> None:
        for method, fields, body in refused:
            async with talking(url) as reply:
                await reply.ask(method, "/mcp", fields, body)
                assert 400 <= reply.status < 500

    with trio.fail_after(BOUND):
        async with serving(handler=brief) as served:
            await be_refused(served.url)
            await trio.sleep(0.1)
            tasks = trio.lowlevel.current_statistics().tasks_living
            before = held()
            for _ in range(100):
                await be_refused(served.url)
            await settled(tasks)
            assert held() - before == Counter()
            assert served.received == []


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_request_is_released_without_the_garbage_collector(era: str) -> None:
    """A cycle for each request costs a server a quarter of its speed: memory is not used again while it is warm."""
    async with serving(handler=brief) as served, talking(served.url) as client:
        fields = modern_fields(modern("hello")) if era == "modern" else (await initialized(served.url)).fields

        async def ask(count: int) -> None:
            message = modern("hello") if era == "modern" else request("hello")
            for _ in range(count):
                await client.ask("POST", "/mcp", fields, message)
                assert "result" in await client.json()

        await ask(5)
        before = held()
        gc.disable()
        try:
            await ask(20)
            found = alive() - before
        finally:
            gc.enable()
    assert found == Counter()


async def test_unfinished_bodies_take_no_more_memory_than_their_bound() -> None:
    size, clients, most = 2 * 2**20, 20, 4 * 2**20
    metrics = Metrics()
    refused: list[str] = []
    all_refused = trio.Event()

    async def send_almost_all(url: str) -> None:
        fields = modern_fields(modern("hello")) | {"host": "127.0.0.1", "content-length": str(size)}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        async with talking(url) as slow:
            with suppress(trio.BrokenResourceError):  # the server is done with those that it refused
                await slow.stream.send_all(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode())
                for _ in range(size // len(PIECE) - 1):
                    await slow.stream.send_all(PIECE)
                await slow.at_end()
        refused.append(url)
        if len(refused) == clients - most // size:
            all_refused.set()

    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=most))
    with trio.fail_after(BOUND), tracing():
        async with serving(config, layers=[metrics]) as served, trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(send_almost_all, served.url)
            await all_refused.wait()
            nursery.cancel_scope.cancel()
        peak = tracemalloc.get_traced_memory()[1]
    assert sum(metrics.snapshot().refusals.values()) == clients - most // size
    assert peak < most + clients * 4 * 64 * 1024  # the free beginning of each, and what is read from its socket
