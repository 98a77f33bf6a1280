"""Two replicas of a server of the official SDK behind a balancer without affinity, one of which is killed.

Every call has a number, and the replica notes it in a file when it acts on it. The clients are those of the official
SDK, in sessions of the legacy era; they begin a new session when the server no longer knows theirs. Beside them, calls
of the modern era are under way at both replicas when one is killed.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import trio
from mcp import Client, MCPError

from tests.support.redis_links import HOST, redis_server
from tests.support.replicas import Balancer, replica_processes
from tests.support.sdk_programs import on_sample
from trioxport._core.nursery import open_bare_nursery

HUNG_SECONDS: Final = 120.0
"""Seconds without any answer after which the rest hangs."""
SETTLE_SECONDS: Final = 30.0
LATER_ANSWERS: Final = 10
"""A call hangs that is older than this, once so many later ones of its session were answered one after the other: a
busy machine holds up these as well."""
LEASE_SECONDS: Final = 8.0
"""Seconds of a lease: longer than a busy machine lets a process wait."""
CALLS: Final = 8
"""Calls of one client."""
NOTICE_SECONDS: Final = 5.0
"""Seconds after a kill in which a client may still take its connection through that replica for a good one."""
AT_ONCE: Final = 20
"""Clients that connect, and calls that are made, at the same time: one process has all clients, and is to keep up."""
MODERN_CALLS: Final = 12
"""Calls of the modern era that are under way when a replica is killed."""
MODERN_SECONDS: Final = 2.0
"""Seconds that each of them takes."""


@attrs.define
class ReplicaCounts:
    """The counts of the calls. Without damage the last five are 0.

    Attributes:
        answered: Calls with a result.
        sampled: Questions of the server that were answered.
        cancelled: Calls that their client cancelled.
        modern: Calls of the modern era with a result, of those that were under way when a replica was killed.
        modern_failed: Those that got an error.
        failed: Calls and connections that failed because a replica was killed: that of the session, or one that the
            connection went through when it was killed.
        begun_anew: Sessions that ended with their replica, and were begun anew.
        twice: Calls that were carried out more than once.
        invented: Calls that had a result, and were not carried out.
        lost: Sessions and calls that ended though their replica, and the one in between, lived.
        wrong: Calls with the result of another call.
        hung: Calls and sessions that did not end in time.
    """

    answered: int = 0
    sampled: int = 0
    cancelled: int = 0
    modern: int = 0
    modern_failed: int = 0
    failed: int = 0
    begun_anew: int = 0
    twice: int = 0
    invented: int = 0
    lost: int = 0
    wrong: int = 0
    hung: int = 0

    @property
    def total(self) -> int:
        """The damage."""
        return self.twice + self.invented + self.lost + self.wrong + self.hung


async def replicas(sessions: int, seed: int, directory: Path) -> ReplicaCounts:
    """Let clients talk in so many sessions, kill one of two replicas in the middle, and count."""
    log = directory / "acted"
    log.touch()
    async with (
        redis_server() as redis,
        replica_processes(f"redis://{HOST}:{redis.port}", log, LEASE_SECONDS) as balancer,
    ):
        storm = _Storm(balancer, sessions, Random(seed))
        with storm.life:
            await storm.run()
        storm.counts.hung += storm.life.cancelled_caught
    acted = Counter(int(line) for line in log.read_text(encoding="utf-8").split())
    storm.counts.twice = sum(times > 1 for times in acted.values())
    storm.counts.invented = len(storm.answered - acted.keys())
    return storm.counts


class _Storm:
    def __init__(self, balancer: Balancer, sessions: int, random: Random) -> None:
        self.counts = ReplicaCounts()
        self.answered: set[int] = set()
        self.life = trio.CancelScope()
        self._balancer = balancer
        self._sessions = sessions
        self._random = random
        self._dead: int | None = None
        self._noticed = inf
        self._connecting = trio.Semaphore(AT_ONCE)
        self._calling = trio.Semaphore(AT_ONCE)
        self._half_way = trio.Event()

    async def run(self) -> None:
        self._note_answer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill)
            for number in range(self._sessions):
                nursery.start_soon(self._talk, number * CALLS)

    async def _kill(self) -> None:
        await self._half_way.wait()
        first = self._sessions * CALLS
        under_way = {number: trio.Event() for number in range(first, first + MODERN_CALLS)}
        async with trio.open_nursery() as calls:
            for number, begun in under_way.items():
                calls.start_soon(self._call_without_session, number, begun)
            for begun in under_way.values():
                await begun.wait()
            victim = self._random.choice(self._balancer.replicas)
            self._dead = victim.process.pid
            await victim.kill()
            self._noticed = trio.current_time() + NOTICE_SECONDS

    async def _call_without_session(self, number: int, begun: trio.Event) -> None:
        """Make one call of the modern era, which has a result or an error in time."""

        async def begin(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        found = None
        with trio.move_on_after(SETTLE_SECONDS) as time:
            try:
                async with Client(self._balancer.url) as client:
                    arguments = {"number": number, "seconds": MODERN_SECONDS}
                    found = await ask(client, "act", arguments, progress_callback=begin)
            except Exception:  # a connection that breaks before a response ends the client of the SDK
                self.counts.lost += not begun.is_set()
                self.counts.modern_failed += 1
        begun.set()
        self.counts.hung += time.cancelled_caught
        if found is not None:
            self.answered.add(number)
            self.counts.modern += 1
            self.counts.wrong += found != number

    async def _talk(self, first: int) -> None:
        """Make the calls of one client, in as many sessions as it takes."""
        left = list(range(first, first + CALLS))
        while left:
            began = trio.current_time()
            try:
                async with AsyncExitStack() as stack:
                    async with self._connecting:
                        client = Client(self._balancer.url, mode="legacy", sampling_callback=on_sample)
                        await stack.enter_async_context(client)
                        self._note_answer()
                    await self._converse(client, left)
            except Exception as error:  # a connection that breaks before a response ends the client of the SDK
                self._note_failure(None, began, repr(error))

    def _note_answer(self) -> None:
        self.life.deadline = trio.current_time() + HUNG_SECONDS

    async def _ask(self, client: Client, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        """The result of a tool."""
        found = await ask(client, tool, arguments, **options)
        self._note_answer()
        return found

    async def _converse(self, client: Client, left: list[int]) -> None:
        """Make calls until none is left, or the session is over."""
        process, began = None, trio.current_time()
        while left:
            try:
                if process is None:
                    async with self._calling:
                        process = await self._ask(client, "process")
                async with self._calling:
                    began = trio.current_time()
                    if not await self._settle(client, left.pop(0)):
                        self._note_failure(process, began, "no answer")
            except MCPError as error:
                if error.error.message == "Connection closed":  # of the client, which is of no more use
                    return
                if error.error.message != "Session not found":
                    self._note_failure(process, began, repr(error))
                    continue
                if process in (None, self._dead):
                    self.counts.begun_anew += 1
                else:
                    self._lose("its session was not found")
                return

    async def _settle(self, client: Client, number: int) -> bool:
        """Make a call, and return whether it ended."""
        async with open_bare_nursery() as nursery:
            nursery.start_soon(self._cancel_when_hung, client, nursery.cancel_scope)
            await self._call(client, number)
            nursery.cancel_scope.cancel()
            return True
        return False

    async def _cancel_when_hung(self, client: Client, call: trio.CancelScope) -> None:
        await trio.sleep(SETTLE_SECONDS)
        for _ in range(LATER_ANSWERS):
            await self._ask(client, "process")
        call.cancel()

    def _note_failure(self, process: int | None, began: float, reason: str) -> None:
        """Count a call or a connection that failed, which only the kill of a replica is a reason for.

        The client of the SDK does not repeat the answer to a question when the connection for it breaks: then the
        server waits for it, and the call for its answer.

        Args:
            process: The replica of the session, if that is known.
            began: The time at which the call, or the session, began.
            reason: What is printed if it is no reason for this.
        """
        if self._dead is not None and (process == self._dead or began < self._noticed):
            self.counts.failed += 1
        else:
            self._lose(f"{reason} after {trio.current_time() - began:.1f} s")

    def _lose(self, reason: str) -> None:
        self.counts.lost += 1
        print(f"lost: {reason}", file=sys.stderr)

    async def _call(self, client: Client, number: int) -> None:
        kind = self._random.choice(("act", "act", "sample", "cancel"))
        if kind == "sample":
            assert await self._ask(client, "sample") == "It"
            self.counts.sampled += 1
        elif kind == "cancel":
            await self._cancel(client, number)
        arguments = {"number": number, "seconds": self._random.random() * 0.1}
        found = await self._ask(client, "act", arguments, progress_callback=ignore_progress)
        self.answered.add(number)
        self.counts.answered += 1
        self.counts.wrong += found != number
        if self.counts.answered * 2 >= self._sessions * CALLS:
            self._half_way.set()

    async def _cancel(self, client: Client, number: int) -> None:
        """Call a tool that waits, and cancel the call once the tool says that it has begun."""
        with trio.CancelScope() as scope:

            async def leave(progress: float, total: float | None, message: str | None) -> None:
                scope.cancel()

            await client.call_tool("wait", {"name": str(number)}, progress_callback=leave)
        self.counts.cancelled += scope.cancelled_caught


async def ignore_progress(progress: float, total: float | None, message: str | None) -> None:
    """Make the server report its progress."""


async def ask(client: Client, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
    """The result of a tool."""
    result = await client.call_tool(tool, arguments or {}, **options)
    assert result.structured_content is not None, result
    return result.structured_content["result"]
