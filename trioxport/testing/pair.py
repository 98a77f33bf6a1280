"""The pair of a check: both ends of one wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import attrs

from trioxport.errors import UsageError
from trioxport.targets import Target, to_listener, to_transport

_positive = attrs.validators.gt(0.0)


@attrs.frozen
class TransportPair:
    """Both ends of one wire, for a check.

    ``serve`` is served in this process; without it the peer is another process, which runs :func:`serve_check_peer`.
    The client opens ``open``, or the target that ``through`` makes of the server's address, or that address itself. (A
    transport is a function, too, so these cannot be one argument.)

    A pair is opened many times, one connection after the other, and several at once. It is opened again after a
    ``cut``.

    Args:
        serve: The target of ``serve_transport``; None where the peer is another process.
        open: The target of ``open_transport``; None for the address that the server reports.
        through: In place of ``open``: makes the client's target of the address that the server reports, for instance
            to put a :class:`CuttableProxy` between the two.
        cut: Breaks the wire of the open connections, as a network or a crash does. None where the peer is another
            process: it is asked to kill itself. None in one process: the checks of a loss are skipped.
        restore: Called after ``cut``, before the pair is opened again: starts a broker that ``cut`` stopped.
        unreachable: A target like the client's that no server listens on; None skips the check of a failing connect.
        taken: A target to serve whose address is in use; None skips the check of a failing listen.
        timeout: Seconds that a step without a deliberate wait may take.
        heartbeat: The shortest time in seconds after which a side of the transport may give the other up, for instance
            because no ping came; None without one. The clock of rule 10 jumps by less than that.
        continuous: Whether a connection is one wire, that ends and breaks as a whole. Over HTTP it consists of many,
            and none of them ends it: then the checks of the end and of the loss (rules 4 to 6) are skipped.

    Raises:
        UsageError: The arguments do not make a pair.
    """

    serve: Target | None = None
    open: Target | None = None
    through: Callable[[str], Target] | None = attrs.field(default=None, kw_only=True)
    cut: Callable[[], Awaitable[object]] | None = attrs.field(default=None, kw_only=True)
    restore: Callable[[], Awaitable[object]] | None = attrs.field(default=None, kw_only=True)
    unreachable: Target | None = attrs.field(default=None, kw_only=True)
    taken: Target | None = attrs.field(default=None, kw_only=True)
    timeout: float = attrs.field(default=10.0, validator=_positive, kw_only=True)
    heartbeat: float | None = attrs.field(default=None, validator=attrs.validators.optional(_positive), kw_only=True)
    continuous: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.serve is None and self.open is None:
            raise UsageError(
                "a TransportPair needs serve=, what to serve in this process, or open=, what reaches another process",
                hint="The other process runs trioxport.testing.serve_check_peer()",
            )
        if self.open is not None and self.through is not None:
            raise UsageError("a TransportPair takes open= or through=, not both")
        if self.restore is not None and self.cut is None:
            raise UsageError("restore= comes after cut=, which this TransportPair does not have")
        for served in (self.serve, self.taken):
            if served is not None:
                to_listener(served)
        for opened in (self.open, self.unreachable):
            if opened is not None:
                to_transport(opened)

    def target(self, address: str) -> Target:
        """The client's target for a server at ``address``. Raises ``UsageError`` if there is none."""
        if self.through is not None:
            return self.through(address)
        if self.open is None and not address:
            raise UsageError(
                "the server reports no address, so what clients open is not known",
                hint="Give the TransportPair open=, or report an address by task_status.started([...])",
            )
        return address if self.open is None else self.open


MakePair: TypeAlias = Callable[[], AbstractAsyncContextManager[TransportPair]]
"""Sets up a pair, and takes it down when it is left: a function under ``@asynccontextmanager``. Each check calls it
once, and that of rule 10 once more, in a run of Trio of its own in another thread. It is left, without an exception,
whether the check fails or not."""


def maker_of(pair: TransportPair | MakePair) -> MakePair:
    """The function that sets up the pair; for a pair that needs no setting up, one that yields it."""

    @asynccontextmanager
    async def make_pair() -> AsyncGenerator[TransportPair]:
        assert isinstance(pair, TransportPair)
        yield pair

    return make_pair if isinstance(pair, TransportPair) else pair
