"""The bench that a binding is checked on: it opens connections between the side under check and the check peer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

import attrs
import trio

from trioxport._supervisor import open_tasks
from trioxport.abc import Codec, Layer
from trioxport.config import Target
from trioxport.connection import Connection
from trioxport.messages import Request
from trioxport.opening import open_transport, serve_transport
from trioxport.testing.peer import LIMITS, RAW, check_peer

PATIENCE: Final = 10.0
"""Seconds that anything may take which ought to happen at once."""


class ContractBroken(AssertionError):
    """A rule of the contract does not hold; the text says which, what happened, and where to look."""


class Broken(Exception):
    """A check's finding: what happened instead of what the rule says."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise the finding ``otherwise`` unless it ``holds``."""
    if not holds:
        raise Broken(otherwise)


@attrs.frozen
class Link:
    """Both ends of one wire, for a check.

    Args:
        server: What ``serve_transport`` is given in this process; None if ``client`` reaches another process, which
            runs :func:`serve_check_peer`.
        client: What ``open_transport`` is given; None for the address that the server reports.
        through: In place of ``client``: makes the client's target of the address that the server reports, for instance
            to put a proxy between the two.
        cut: Breaks the wire of the open connections, as a network or a crash does. None asks the peer to kill
            its process, which has to be another one then.
        unreachable: A target like the client's that nobody serves; None skips what a failing connect has to do.
        continuous: Whether a connection is one wire, that ends and breaks as a whole. Over HTTP it consists of many,
            and none of them is the end of it: then what rules 4 to 6 say of the end and of the loss is left out.
    """

    server: Target | None = None
    client: Target | None = None
    through: Callable[[str], Target] | None = None
    cut: Callable[[], Awaitable[object]] | None = None
    unreachable: Target | None = None
    continuous: bool = True

    def target(self, address: str) -> Target:
        """What the client opens, the server being at ``address``."""
        if self.through is not None:
            return self.through(address)
        return address if self.client is None else self.client


MakeLink: TypeAlias = Callable[[], AbstractAsyncContextManager[Link]]


@attrs.frozen
class Bench:
    """A link that is set up, and how its two sides are configured."""

    make_link: MakeLink
    link: Link
    codec: Codec
    layers: Sequence[Layer]
    peer_layers: Sequence[Layer]

    @asynccontextmanager
    async def remake(self) -> AsyncGenerator[Bench]:
        """The same bench on a new link, for another run of Trio."""
        async with self.make_link() as link:
            yield attrs.evolve(self, link=link)

    @asynccontextmanager
    async def talk(
        self, handler: Callable[[Connection], Awaitable[object]] = check_peer, *, close_timeout: float = 5.0
    ) -> AsyncGenerator[Connection]:
        """A client's connection to a server that runs ``handler``, the check peer by default."""
        async with (
            self.serving(handler) as target,
            self.open(target, close_timeout=close_timeout) as connection,
        ):
            yield connection

    @asynccontextmanager
    async def open(self, target: Target, *, close_timeout: float = 5.0) -> AsyncGenerator[Connection]:
        """A client's connection to what :meth:`serving` yields."""
        async with open_transport(
            target, layers=[*self.layers, RAW], codec=self.codec, limits=LIMITS, close_timeout=close_timeout
        ) as connection:
            yield connection

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[Connection]:
        """A server's connection to a client that runs the check peer. Needs a link that is served here."""
        accepted, connections = trio.open_memory_channel[Connection](0)
        done = trio.Event()
        running_alone: list[trio.CancelScope] = []

        async def hand_over(connection: Connection) -> None:
            await accepted.send(connection)
            await done.wait()

        async def run_client() -> None:
            async with self.serving(hand_over) as target:
                async with self.open(target) as connection:
                    with trio.CancelScope() as running:
                        if not self.link.continuous:
                            running_alone.append(running)
                        await check_peer(connection)
                await done.wait()

        async with open_tasks() as tasks:
            tasks.start_soon(run_client)
            try:
                yield await connections.receive()
            finally:
                done.set()
                for running in running_alone:  # it would not see that the other side has ended
                    running.cancel()

    @asynccontextmanager
    async def unreached(self) -> AsyncGenerator[Connection]:
        """What opening the unreachable target does."""
        assert self.link.unreachable is not None
        async with open_transport(self.link.unreachable, layers=self.layers, codec=self.codec) as connection:
            yield connection

    async def cut(self, connection: Connection) -> None:
        """Break the wire under ``connection``."""
        if self.link.cut is not None:
            await self.link.cut()
        else:
            await connection.tx.send(Request("check-kill", "check/kill"))

    @asynccontextmanager
    async def serving(self, handler: Callable[[Connection], Awaitable[object]]) -> AsyncGenerator[Target]:
        """A server that runs ``handler``, where the link is served here; yields what its clients open."""
        if self.link.server is None:
            yield self.link.target("")
            return
        async with open_tasks() as tasks:
            address: list[str] = await tasks.start(self._serve, self.link.server, handler)
            yield self.link.target(address[0] if address else "")
            tasks.cancel_scope.cancel()

    async def _serve(
        self,
        target: Target,
        handler: Callable[[Connection], Awaitable[object]],
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        await serve_transport(
            handler,
            target,
            layers=[*self.peer_layers, RAW],
            codec=self.codec,
            limits=LIMITS,
            close_timeout=1.0,
            task_status=task_status,
        )


Check: TypeAlias = Callable[[Bench], Awaitable[None]]
