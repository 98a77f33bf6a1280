"""Servers behind a stream of Redis that are killed while clients ask: each request is answered once, and acted upon.

Every request has a number, and a server notes it in a file when it acts on it, with the count of its deliveries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from tests.support.redis_links import HOST, RedisProcess, redis_server
from tests.support.stream_workers import noted, stream_worker
from trioxport import Connection, Request, Response, open_transport
from trioxport.transports.redis import RedisStream
from trioxport.transports.redis.link import open_link

SILENCE_SECONDS: Final = 1.0
"""Seconds after which the requests of a server that was killed are claimed."""
CLIENTS: Final = 4
AT_ONCE: Final = 32
"""Requests that each client has in flight."""
MAX_LENGTH: Final = 100
"""The bound of the stream, less than the clients would put into it."""
MEMORY_BYTES: Final = 64 * 1024 * 1024
HUNG_SECONDS: Final = 120.0
"""Seconds without any answer after which the rest hangs."""


@attrs.define
class StreamCounts:
    """The counts of a storm. Without damage, all from ``unanswered`` on are 0.

    Attributes:
        kills: Servers that were killed.
        answered: Requests with a result.
        again: Requests that were acted upon more than once.
        longest: The most entries that were in the stream.
        kilobytes: The most memory that Redis used.
        unanswered: Requests that failed, or were never settled.
        twice: Answers to requests that had been answered.
        invented: Requests that have a result, and were not acted upon.
        unmarked: Actions on a request with the same count of deliveries as another one.
        unbounded: Whether the stream or the memory of Redis went over its bound.
    """

    kills: int = 0
    answered: int = 0
    again: int = 0
    longest: int = 0
    kilobytes: int = 0
    unanswered: int = 0
    twice: int = 0
    invented: int = 0
    unmarked: int = 0
    unbounded: int = 0

    @property
    def total(self) -> int:
        """The damage."""
        return self.unanswered + self.twice + self.invented + self.unmarked + self.unbounded


async def streams(requests: int, seconds: float, seed: int, directory: Path, *, servers: int = 4) -> StreamCounts:
    """Kill a server every second while clients ask, and return what came of the requests.

    Args:
        requests: The number of requests, at least: clients ask until the last server was killed.
        seconds: The number of kills, one a second.
        seed: The source of which server is killed.
        directory: The place of the file in which the servers note what they do.
        servers: The number of servers, each replaced when it was killed.
    """
    async with redis_server() as redis:
        storm = _Storm(redis, requests, Random(seed), directory / f"streams {seed}.log")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storm.observe)
            for number in range(servers):
                await nursery.start(storm.serve, number)
            async with trio.open_nursery() as clients:
                for _ in range(CLIENTS):
                    clients.start_soon(storm.be_client)
                await storm.rage(seconds)
            nursery.cancel_scope.cancel()
    return storm.counted()


class _Storm:
    """One storm: its servers, and its clients."""

    def __init__(self, redis: RedisProcess, requests: int, random: Random, log: Path) -> None:
        self._url = f"redis+stream://{HOST}:{redis.port}?silence={SILENCE_SECONDS}&max_deliveries=20&prefetch=8"
        self._client = RedisStream(HOST, redis.port, max_length=MAX_LENGTH, silence=HUNG_SECONDS)
        self._random = random
        self._log = log
        self._requests = requests
        self._numbers = count(1)
        self._calm = trio.Event()
        self._servers: dict[int, trio.Process] = {}
        self._started = trio.lowlevel.ParkingLot()
        self._answers: Counter[int] = Counter()
        self._asked = 0
        self._counts = StreamCounts()

    async def serve(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Run one server after the other: each until it is killed."""
        is_first = True
        while True:
            async with stream_worker(self._url, self._log) as process:
                self._servers[number] = process
                self._started.unpark_all()
                if is_first:
                    task_status.started()
                is_first = False
                await process.wait()

    async def rage(self, kills: float) -> None:
        for _ in range(round(kills)):
            await trio.sleep(1)
            while not self._servers:
                await self._started.park()
            self._servers.pop(self._random.choice(sorted(self._servers))).kill()
            self._counts.kills += 1
        self._calm.set()

    async def observe(self) -> None:
        """Look at the length of the stream and at the memory of Redis, several times a second."""
        async with open_link(self._client, "redis") as link:
            while True:
                length = await link.command(b"XLEN", self._client.requests_key)
                memory = (await link.command(b"INFO", b"memory")).decode().partition("used_memory:")[2]
                self._counts.longest = max(self._counts.longest, length)
                self._counts.kilobytes = max(self._counts.kilobytes, int(memory.partition("\r")[0]) // 1024)
                await trio.sleep(0.1)

    # Clients.

    async def be_client(self) -> None:
        async with open_transport(self._client) as connection:
            with trio.move_on_after(HUNG_SECONDS) as life:
                async with trio.open_nursery() as nursery:
                    slots = trio.Semaphore(AT_ONCE)
                    nursery.start_soon(self._ask, connection, slots, nursery.cancel_scope)
                    async for answer in connection.rx:
                        slots.release()
                        life.deadline = trio.current_time() + HUNG_SECONDS
                        if isinstance(answer, Response) and isinstance(answer.id, int):
                            self._answers[answer.id] += 1
            self._counts.twice += sum(connection.statistics().discarded.values())

    async def _ask(self, connection: Connection, slots: trio.Semaphore, over: trio.CancelScope) -> None:
        while not self._calm.is_set() or self._asked < self._requests:
            await slots.acquire()
            number = next(self._numbers)
            self._asked += 1
            await connection.tx.send(Request(number, "act", {"number": number}))
        for _ in range(AT_ONCE):
            await slots.acquire()
        over.cancel()

    # Counting.

    def counted(self) -> StreamCounts:
        counts, acted = self._counts, defaultdict[int, list[int]](list)
        for number, deliveries in noted(self._log):
            acted[number].append(deliveries)
        counts.answered = len(self._answers)
        counts.again = sum(len(deliveries) > 1 for deliveries in acted.values())
        counts.unanswered = self._asked - len(self._answers)
        counts.twice += self._answers.total() - len(self._answers)
        counts.invented = sum(number not in acted for number in self._answers)
        counts.unmarked = sum(len(each) - len(set(each)) for each in acted.values())
        counts.unbounded = int(counts.longest > MAX_LENGTH or counts.kilobytes * 1024 > MEMORY_BYTES)
        return counts
