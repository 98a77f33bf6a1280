"""Clients that leave at about the time when they are answered: no one else is to notice.

Each of them asks, waits until the server watches its connection, has the handler answer, and closes the connection a
few steps of the scheduler before or after that. Beside them, in the same sessions, others ask and stay.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from tests.soak.leaving_streams import STREAM_BINDINGS, Leave, StreamBinding, StreamClients
from tests.support.raw_http import (
    JSON_OR_EVENTS,
    LegacyClient,
    asking,
    initialized,
    modern,
    modern_fields,
    request,
    talking,
)
from tests.support.recording_handler import serving
from trioxport import Connection, Notification, Request, Response, Target, TransportError
from trioxport.transports._http2 import Http2Error
from trioxport.transports.http.server import HttpServer, MemoryEvents, Sessions

HttpBinding: TypeAlias = Literal["legacy", "legacy with events", "modern", "sse"]
Binding: TypeAlias = HttpBinding | StreamBinding
BINDINGS: Final[tuple[Binding, ...]] = (*get_args(HttpBinding), *STREAM_BINDINGS)

WATCHED_SECONDS: Final = 0.03
"""Seconds after which the server notices that a client leaves."""
STEPS: Final = 12
"""Steps of the scheduler by which a client leaves before or after it is answered."""
SESSIONS: Final = 4
AT_ONCE: Final = 32
SETTLED_SECONDS: Final = 10.0


@attrs.define
class Damage:
    """The damage of a storm to the clients that stayed, and what it left behind: everything but ``asked`` should be 0.

    Attributes:
        asked: Requests of clients that stayed, and were answered.
        failed: Those that were not.
        sessions: Sessions that ended without their client's wish.
        handlers: Handlers of sessions that failed.
        tasks: Tasks more than before.
        descriptors: File descriptors more than before.
    """

    asked: int = 0
    failed: int = 0
    sessions: int = 0
    handlers: int = 0
    tasks: int = 0
    descriptors: int = 0

    @property
    def total(self) -> int:
        return self.failed + self.sessions + self.handlers + self.tasks + self.descriptors


class _Handler:
    """Answers at once, or, to ``late``, when the client that is to leave says so."""

    def __init__(self, damage: Damage) -> None:
        self.late: dict[object, trio.Event] = {}
        self._damage = damage

    async def __call__(self, connection: Connection) -> None:
        try:
            async with trio.open_nursery() as nursery:
                async for message in connection.rx:
                    if isinstance(message, Request):
                        nursery.start_soon(self._answer, connection, message)
        except* TransportError:
            if connection.info.era == "legacy":
                self._damage.handlers += 1

    async def _answer(self, connection: Connection, asked: Request) -> None:
        if asked.method == "late":
            assert isinstance(asked.params, dict)
            if (answer := self.late.get(asked.params["key"])) is not None:  # else the client is gone already
                await answer.wait()
            if asked.params["stream"]:
                await connection.tx.send(Notification("note", {}, metadata={"related_request": asked.id}))
        await connection.tx.send(Response(asked.id, {"protocolVersion": "2025-11-25"}))


class _Storm:
    """One storm: the server's handler, those who stay, and those who leave."""

    def __init__(self, binding: Binding, url: str, handler: _Handler, damage: Damage, random: Random) -> None:
        self._binding = binding
        self._url = url
        self._handler = handler
        self._damage = damage
        self._random = random
        self._ids = itertools.count(1)
        self._clients: list[LegacyClient] = []
        self._streams = StreamClients(binding, url, random) if binding in STREAM_BINDINGS else None
        self.calm = False

    async def run(self, leaving: int) -> None:
        async with trio.open_nursery() as staying:
            for _ in range(SESSIONS):
                await staying.start(self._stay)
            limit = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for _ in range(leaving):
                    await limit.acquire_on_behalf_of(token := object())
                    nursery.start_soon(self._leave, limit, token)
            self.calm = True

    # Those who stay.

    async def _stay(self, *, task_status: trio.TaskStatus[None]) -> None:
        stay = {"modern": self._stay_modern, "sse": self._stay_sse}.get(self._binding, self._stay_legacy)
        async with stay() if self._streams is None else self._streams.stay() as ask:
            task_status.started()
            while not self.calm:
                try:
                    await ask(next(self._ids))
                except (AssertionError, KeyError, OSError, trio.BrokenResourceError, Http2Error):
                    self._damage.failed += 1
                else:
                    self._damage.asked += 1

    @asynccontextmanager
    async def _stay_modern(self) -> AsyncGenerator[Callable[[int], Awaitable[None]]]:
        async def ask(number: int) -> None:
            message = modern("hello", number)
            async with asking(self._url, "POST", modern_fields(message), message) as reply:
                assert (await reply.json())["id"] == number

        yield ask

    @asynccontextmanager
    async def _stay_legacy(self) -> AsyncGenerator[Callable[[int], Awaitable[None]]]:
        client = await initialized(self._url)
        self._clients.append(client)

        async def ask(number: int) -> None:
            async with client.post(request("hello", number)) as reply:
                read = reply.json if reply.headers["content-type"] == "application/json" else reply.event
                assert (await read())["id"] == number

        yield ask
        lives = await client.delete() == 204
        self._damage.sessions += not lives

    @asynccontextmanager
    async def _stay_sse(self) -> AsyncGenerator[Callable[[int], Awaitable[None]]]:
        async with asking(self._url, "GET", {"accept": "text/event-stream"}, path="/sse") as stream:
            endpoint = await stream.raw_event()
            assert endpoint is not None
            path = endpoint.data.decode()

            async def ask(number: int) -> None:
                async with asking(self._url, "POST", JSON_OR_EVENTS, request("hello", number), path) as reply:
                    assert reply.status == 202
                assert (await stream.event())["id"] == number

            yield ask

    # Those who leave.

    async def _leave(self, limit: trio.CapacityLimiter, token: object) -> None:
        key = next(self._ids)
        answer = self._handler.late[key] = trio.Event()
        params = {"key": key, "stream": self._random.random() < 0.3}
        lead = self._random.randint(-STEPS, STEPS)
        try:
            async with self._leaver(key, params) as leave, trio.open_nursery() as nursery:
                await trio.sleep(WATCHED_SECONDS * self._random.random() * 2)
                nursery.start_soon(_after, max(lead, 0), answer.set)
                await _after(max(-lead, 0), lambda: None)
                await leave()
        finally:
            del self._handler.late[key]
            limit.release_on_behalf_of(token)

    @asynccontextmanager
    async def _leaver(self, key: int, params: dict[str, Any]) -> AsyncGenerator[Leave]:
        """A client that has asked, and leaves by what is yielded."""
        if self._streams is not None:
            async with self._streams.leaving(modern("late", key, **params)) as leave:
                yield leave
        else:
            async with talking(self._url) as leaver:
                await self._ask_late(leaver, key, params)
                yield leaver.stream.aclose

    async def _ask_late(self, leaver: Any, key: int, params: dict[str, Any]) -> None:
        if self._binding == "modern":
            message = modern("late", key, **params)
            await leaver.send("POST", "/mcp", modern_fields(message), message)
        elif self._binding == "sse":
            await leaver.ask("GET", "/sse", {"accept": "text/event-stream"})
            path = (await leaver.raw_event()).data.decode()
            async with asking(self._url, "POST", JSON_OR_EVENTS, request("late", key, **params), path) as reply:
                assert reply.status == 202
        else:
            client = self._random.choice(self._clients)
            await leaver.send("POST", "/mcp", client.fields, request("late", key, **params))


async def _after(steps: int, do: Callable[[], object]) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    do()


async def leaving_clients(binding: Binding, leaving: int, seed: int) -> Damage:
    """Let so many clients leave a server in this process, and return the damage.

    Args:
        binding: How they are connected.
        leaving: How many leave.
        seed: What decides when each of them does.
    """
    damage = Damage()
    handler = _Handler(damage)
    events = MemoryEvents() if binding == "legacy with events" else None
    sessions = Sessions(most=10 * AT_ONCE, most_each=10 * AT_ONCE)
    config: Target = HttpServer("http://127.0.0.1:0/mcp", sse="/sse", events=events, sessions=sessions)
    if binding in ("grpc", "grpc unary"):
        config = "grpc://127.0.0.1:0"
    async with serving(config, handler=handler, close_timeout=5) as served:
        await wait_all_tasks_blocked()
        tasks, descriptors = _in_use()
        await _Storm(binding, served.url, handler, damage, Random(seed)).run(leaving)
        with trio.move_on_after(SETTLED_SECONDS):
            while any(after > before for after, before in zip(_in_use(), (tasks, descriptors), strict=True)):
                await wait_all_tasks_blocked(0.01)
        tasks_after, descriptors_after = _in_use()
        damage.tasks = max(0, tasks_after - tasks)
        damage.descriptors = max(0, descriptors_after - descriptors)
    return damage


def _in_use() -> tuple[int, int]:
    """The number of tasks and of file descriptors."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/dev/fd"))
