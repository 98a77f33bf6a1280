"""The harness of a check: it opens connections between the side under check and the check peer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._core.supervisor import Supervisor
from trioxport.abc import Codec, Layer
from trioxport.codecs.json import JSON
from trioxport.connection import Connection
from trioxport.errors import ConnectionLost
from trioxport.frames import Limits
from trioxport.messages import Request
from trioxport.opening import open_transport, serve_transport
from trioxport.targets import Target, to_listener
from trioxport.testing.checked import CheckedConnection, numbered
from trioxport.testing.listeners import ObservedListener
from trioxport.testing.pair import MakePair, TransportPair
from trioxport.testing.peer import LIMITS, RAW, CheckPeer, process_name
from trioxport.testing.progress import CheckProgress, CheckSkipped, Finding, crash_in, raised

SERVER_CLOSE_SECONDS: Final = 1.0
"""The ``close_timeout`` of a server's side."""

KILL_ID: Final = "check-kill"
"""The id of the request that kills the peer's process."""

KILL_DELAY_SECONDS: Final = 1.5
"""Seconds before a peer kills itself, in which it reads nothing and the wire to it can be filled."""

Handler: TypeAlias = Callable[[Connection], Awaitable[object]]


@attrs.frozen
class CheckSettings:
    """The configuration of both sides of a check."""

    codec: Codec = JSON
    layers: Sequence[Layer] = ()
    peer_layers: Sequence[Layer] = ()
    limits: Limits = LIMITS
    seed: int = 0


@attrs.frozen
class ContractHarness:
    """A pair that is set up, and the operations of checks on it.

    Args:
        make_pair: Sets up another pair.
        pair: The pair in use.
        settings: The configuration of both sides.
        progress: The progress of the check.
        peers: The check peers that ran in this process, the latest last.
    """

    make_pair: MakePair
    pair: TransportPair
    settings: CheckSettings
    progress: CheckProgress
    peers: list[CheckPeer] = attrs.Factory(list[CheckPeer])
    _cuts: list[None] = attrs.Factory(list[None])

    @classmethod
    def of(cls, make_pair: MakePair, pair: TransportPair, settings: CheckSettings) -> ContractHarness:
        """The harness of one check."""
        return cls(make_pair, pair, settings, CheckProgress(pair.timeout, pair.serve is not None))

    @asynccontextmanager
    async def remake(self) -> AsyncGenerator[ContractHarness]:
        """The same harness on a new pair, for another run of Trio."""
        async with self.make_pair() as pair:
            yield attrs.evolve(self, pair=pair, peers=[], cuts=[])

    def with_limits(self, limits: Limits) -> ContractHarness:
        """The same harness with other limits."""
        return attrs.evolve(self, settings=attrs.evolve(self.settings, limits=limits))

    async def on_both_sides(self, check: Callable[[CheckedConnection], Awaitable[None]]) -> None:
        """Run ``check`` on a client's connection, and on a server's where the server is here."""
        self.progress.on("client")
        async with self.talk() as end:
            await check(end)
        if self.pair.serve is not None:
            self.progress.on("server")
            async with self.serve() as end:
                await check(end)

    @asynccontextmanager
    async def talk(
        self, handler: Handler | None = None, *, close_timeout: float | None = None
    ) -> AsyncGenerator[CheckedConnection]:
        """A client's connection to a server that runs ``handler``, the check peer by default."""
        async with self.serving(handler) as target, self.open(target, close_timeout=close_timeout) as end:
            yield end

    @asynccontextmanager
    async def open(self, target: Target, *, close_timeout: float | None = None) -> AsyncGenerator[CheckedConnection]:
        """A client's connection to what :meth:`serving` yields.

        With a ``close_timeout`` of its own, leaving may take as long as that. Without one the peer reads and answers,
        so that leaving takes no more than the timeout.
        """
        progress = self.progress
        leaving, seconds = self._leaving(close_timeout)
        settings = self.settings
        with progress.bounding() as bound, progress.noting():
            bound.begin("open_transport() to connect")
            async with open_transport(
                target,
                layers=[*settings.layers, RAW],
                codec=settings.codec,
                limits=settings.limits,
                close_timeout=2 * progress.timeout if close_timeout is None else close_timeout,
            ) as connection:
                self._record(connection)
                bound.end()
                try:
                    with progress.noting():
                        yield CheckedConnection(connection, progress)
                finally:
                    bound.begin(leaving, seconds)

    def _leaving(self, close_timeout: float | None) -> tuple[str, float]:
        """The step of leaving, and its limit."""
        timeout = self.progress.timeout
        if close_timeout is None:
            return "the client to leave its block, with a peer that reads and answers", timeout
        return f"the client to leave its block, within a close_timeout of {close_timeout:g} s", close_timeout + timeout

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[CheckedConnection]:
        """A server's connection to a client that runs the check peer. Needs a pair that is served here."""
        accepted, connections = trio.open_memory_channel[Connection](0)
        done = trio.Event()
        clients: list[trio.CancelScope] = []

        async def hand_over(connection: Connection) -> None:
            await accepted.send(connection)
            await done.wait()

        async def run_client() -> None:
            async with self.serving(hand_over) as target:
                async with self.open(target) as client:
                    with trio.CancelScope() as scope:
                        clients.append(scope)
                        await self._be_peer(client.connection)
                await done.wait()

        with self.progress.bounding() as bound:
            async with open_bare_nursery() as tasks:
                tasks.start_soon(run_client)
                bound.begin("the server to accept the client's connection")
                connection = await connections.receive()
                bound.end()
                try:
                    with self.progress.noting():
                        yield CheckedConnection(connection, self.progress)
                finally:
                    done.set()
                    seconds = self.progress.timeout + SERVER_CLOSE_SECONDS
                    bound.begin("the client to see that the server has closed the connection", seconds)
                    if not self.pair.continuous:  # a client does not see the end by itself
                        clients[0].cancel()

    @asynccontextmanager
    async def serving(self, handler: Handler | None = None) -> AsyncGenerator[Target]:
        """A server that runs ``handler``, where the pair is served here; yields what its clients open."""
        await self._restore()
        if self.pair.serve is None:
            yield self.pair.target("")
            return
        with self.progress.bounding() as bound:
            async with open_bare_nursery() as tasks:
                bound.begin("the listener to report its addresses by task_status.started()")
                addresses: list[str] = await tasks.start(self._serve, self.pair.serve, handler or self._be_peer)
                bound.end()
                try:
                    yield self.pair.target(addresses[0] if addresses else "")
                finally:
                    bound.begin("the listener to end when it is cancelled")
                    tasks.cancel_scope.cancel()

    async def cut(self, end: CheckedConnection) -> None:
        """Break the wire under a connection."""
        if self.pair.cut is None:
            await self.kill_peer(end)
            with suppress(ConnectionLost):  # a process that dies with messages unread resets the wire, and ends it not
                await end.fill(numbered)
            return
        self._cuts.append(None)
        with self.progress.awaiting("cut() of the pair to return"):
            await self.pair.cut()

    async def kill_peer(self, end: CheckedConnection) -> None:
        """Have the peer kill its process, after some time in which it reads nothing."""
        seconds = min(KILL_DELAY_SECONDS, self.progress.timeout / 2)
        await end.send(Request(KILL_ID, "check/kill", {"process": process_name(), "after": seconds}))

    async def require_cut(self, end: CheckedConnection) -> None:
        """Skip the check if its peer turns out to be in this very process, and can only be killed with it."""
        if self.pair.cut is None and (await end.ask("check/process"))["process"] == process_name():
            raise CheckSkipped("the pair has no cut=, and its peer runs in this process")

    async def _restore(self) -> None:
        if self._cuts and self.pair.restore is not None:
            self._cuts.clear()
            with self.progress.awaiting("restore() of the pair to return"):
                await self.pair.restore()

    def _record(self, connection: Connection) -> None:
        if isinstance(connection.scope, Supervisor):
            self.progress.scopes.append(connection.scope)

    async def _be_peer(self, connection: Connection) -> None:
        peer = CheckPeer(connection)
        self.peers.append(peer)
        await peer.run()

    async def _serve(self, target: Target, handler: Handler, task_status: trio.TaskStatus[list[str]]) -> None:
        settings = self.settings
        try:
            await serve_transport(
                handler,
                ObservedListener(to_listener(target), target, self.progress.scopes),
                layers=[*settings.peer_layers, RAW],
                codec=settings.codec,
                limits=settings.limits,
                close_timeout=SERVER_CLOSE_SECONDS,
                task_status=task_status,
            )
        except BaseException as error:
            crash = crash_in(error)
            if crash is None:
                raise
            finding = Finding(f"the listener raised {raised(crash)}, where it should serve until it is cancelled")
            finding.__cause__ = crash
        else:
            finding = Finding("the listener returned, where it should serve until it is cancelled")
        self.progress.note(finding)
        raise finding
