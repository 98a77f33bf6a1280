"""The supervisor owns a transport's context manager; the user's block only ever sees channels (DESIGN: contract of a
connection). It is entered and left in a task of its own, so that a failure is a recorded fact instead of an exception
that tears through the user's code, and so that any task may close the connection.

This module makes the only nurseries of the library outside the transports.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Final, Literal

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.causes import alone, as_connect_error, as_loss, failure_in, shortened
from trioxport._core.ending import EndingReceive, EndingSend, ending
from trioxport._core.states import ENDS, LazyEvent, Signal, State
from trioxport._diagnostics.refusal_log import RefusalLog
from trioxport._diagnostics.validators import FLAG, SECONDS, SECONDS_OR_0, OptionCheck, instance_of
from trioxport.abc import Codec, ConnectionInfo, FrameChannels, Role, Scope, Transport
from trioxport.errors import (
    ConnectionLost,
    ConnectTimeout,
    TransportError,
)
from trioxport.frames import Limits
from trioxport.messages import Message, Request, RequestId

logger: Final = logging.getLogger("trioxport")

ABORT_SECONDS: Final = 5.0
"""Seconds that a transport gets to release what it holds when it is left at once; killing a process takes longest."""


class open_tasks:  # noqa: N801 (it is called like a function)
    """A nursery out of which the body's exception comes as the same object, and a child's without a group.

    A class, since each connection lives in two of them: a generator takes more memory.
    """

    __slots__ = ("_manager", "_nursery")

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if raised is not None:
            self._nursery.cancel_scope.cancel()
            if isinstance(alone(raised), trio.Cancelled):  # of which only the nursery can tell whether it ends here
                return await self._leave(kind, raised, traceback)
        try:
            await self._leave(None, None, None)
        except BaseException as crash:
            if raised is None or not isinstance(crash, Exception | trio.Cancelled):
                raise
        return False

    async def _leave(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Leave the nursery. Raises its exception without a group."""
        try:
            return bool(await self._manager.__aexit__(kind, raised, traceback))
        except BaseException as error:
            crash = alone(error)
        raise crash


def _is_codec(value: object) -> bool:
    members = ("name", "content_type", "binary", "encode", "decode", "identify")
    return not isinstance(value, type) and all(hasattr(value, name) for name in members)


_CODEC: Final = OptionCheck("a codec, such as trioxport.codecs.JSON", _is_codec)


@attrs.frozen
class Terms:
    """The settings of one connection; times in seconds. ``refusals`` counts what a server refuses."""

    role: Role
    target: str
    codec: Codec = attrs.field(validator=_CODEC)
    limits: Limits = attrs.field(validator=instance_of(Limits, "a Limits(...)"))
    connect_timeout: float = attrs.field(validator=SECONDS)
    close_timeout: float = attrs.field(validator=SECONDS_OR_0)
    allow_plaintext: bool = attrs.field(validator=FLAG)
    refusals: RefusalLog = attrs.field(default=attrs.Factory(lambda terms: RefusalLog(terms.target), takes_self=True))


class Supervisor:
    """Enters a transport, knows how it fares, and leaves it. It is the transport's and the layers' ``Scope``.

    Attributes:
        answers_unreadable: Whether requests that cannot be read are answered above the transport.

    Args:
        transport: What to enter.
        terms: What holds for the connection.
        outlives_cancel: Whether a cancellation from around is withheld from the transport until ``close`` or
            ``abort`` is called, so that the block that uses the connection is cancelled first. Whoever sets it
            must call one of them in every case.
        within: The scope of the connection that this one is a part of, or None: a transport made of transports has
            one supervisor for each.
    """

    answers_unreadable: ClassVar[bool] = True

    def __init__(
        self, transport: Transport, terms: Terms, *, outlives_cancel: bool, within: Scope | None = None
    ) -> None:
        self.transport = transport
        self.terms = terms
        self.info = ConnectionInfo(terms.target) if within is None else within.info
        self.requests: dict[RequestId, Request] = {}
        self.turns = 0
        self.changed = Signal()
        self.failure: TransportError | None = None
        self.failure_seen = False
        self.peer_is_done = False
        self.unanswered: TransportError | None = None
        self.cut_short = False
        self._state: State = "connecting"
        self._within = within
        self._leaving = False
        self._breaking = False
        self.discarded: Counter[str] = Counter()
        self._channels: FrameChannels | None = None
        self._life = trio.CancelScope(shield=outlives_cancel)
        self._entered_or_over = LazyEvent()
        self._leave = LazyEvent()
        self._over = LazyEvent()
        self._left: list[Message | None] = []
        self._deferred: list[Callable[[], object]] = []
        self._tasks: trio.Nursery | None = None

    # What a transport and a layer see: the Scope.

    @property
    def role(self) -> Role:
        return self.terms.role

    @property
    def target(self) -> str:
        return self.terms.target

    @property
    def limits(self) -> Limits:
        return self.terms.limits

    @property
    def codec(self) -> Codec:
        return self.terms.codec

    @property
    def connect_timeout(self) -> float:
        return self.terms.connect_timeout

    @property
    def close_timeout(self) -> float:
        return self.terms.close_timeout

    @property
    def allow_plaintext(self) -> bool:
        return self.terms.allow_plaintext

    @property
    def leaving(self) -> bool:
        return self._leaving or (self._within is not None and self._within.leaving)

    @property
    def in_flight(self) -> Mapping[RequestId, Request]:
        return self.requests if self._within is None else self._within.in_flight

    def peer_done(self, unanswered: TransportError | None = None) -> None:
        self.peer_is_done = True
        if unanswered is not None:
            unanswered.target = unanswered.target or self.target
            self.unanswered = unanswered
        self.changed.tell()

    def lost(self, error: TransportError) -> None:
        if self.failure is None:
            error.target = error.target or self.target
            self.failure = error
            self.cut_short = trio.current_effective_deadline() == -math.inf  # told by a task that is being cancelled
            if self._is_carrying:
                self._turn("failed")

    def tell(self, state: Literal["connecting", "open", "waiting"]) -> None:
        if self._is_carrying:
            self._turn(state)

    def discard(self, error: TransportError) -> None:
        if self._within is not None:
            self._within.discard(error)
            return
        kind = type(error).__name__
        self.discarded[kind] += 1
        level = logging.WARNING if self.discarded[kind] == 1 else logging.DEBUG
        error.target = error.target or self.target
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        logger.log(level, "skipped something received: %s: %s%s", kind, error, notes)

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        if self._tasks is None:
            raise RuntimeError("the connection is over")
        self._tasks.start_soon(self._contain, async_fn, args)

    def defer(self, callback: Callable[[], object]) -> None:
        self._deferred.append(callback)

    # What the opener and the connection see.

    @property
    def runs_tasks(self) -> bool:
        """Whether ``start_soon`` can be called."""
        return self._tasks is not None

    @property
    def state(self) -> State:
        return self._state

    @property
    def has_opened(self) -> bool:
        """Whether the connection came about."""
        return self._channels is not None

    async def run(self) -> None:
        """Enter the transport, and leave it when told so; to be started in a nursery. Raises no ``Exception``."""
        cut_short = True
        try:
            with self._life:
                self._life.deadline = trio.current_time() + self.terms.connect_timeout
                await self._carry()
                cut_short = False
        except BaseException as error:
            self._record(failure_in(error))
            cut_short = False
        finally:
            if cut_short:
                self._record_cut()
            self._end()
            if self._channels is not None:  # a task may wait for a pump that is gone
                self._end_channels(self._channels)
                await _close_by_force(self._channels.send)
            if cut_short or self._channels is None:
                self._run_deferred()

    async def entered(self) -> FrameChannels:
        """Wait for the transport's channels. Raises ``ConnectError``; cancelled, the transport is left at once."""
        try:
            await self._entered_or_over.wait()
        except trio.Cancelled:
            self.abort()
            raise
        if self._channels is None:
            await self._over.wait()
            assert self.failure is not None
            raise shortened(self.failure)
        return self._channels

    async def verdict(self) -> TransportError | None:
        """How the connection ended, once one of its channels has: the loss, or None for an orderly end."""
        if self.failure is None and self.peer_is_done and not self._breaking:
            return None
        self._begin_leaving()
        if self.failure is None:
            await self._over.wait()
        return self.failure

    def never_took(self, request: Request) -> bool:
        """Whether the transport, which is over, had accepted a request and never took it out of its buffer."""
        return any(message is request for message in self._left)

    async def close(self, tx: SendChannel[Any], rx: ReceiveChannel[Any]) -> None:
        """Flush and close within ``close_timeout``; cancelled, leave at once. Returns when everything is over."""
        self._leaving = True
        self._limit_life()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # then the transport hears of that before its channels end
            with trio.move_on_at(self._life.deadline):
                await self._contain(tx.aclose, ())
            self._begin_leaving()
            await self._over.wait()
            await self._contain(rx.aclose, ())
        except trio.Cancelled:
            self.abort()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + ABORT_SECONDS):
                await self._over.wait()
            await _close_by_force(tx, rx)
            raise
        finally:
            self._run_deferred()

    def abort(self) -> None:
        """Leave at once, waiting for nobody."""
        self._life.cancel()

    # The inside.

    async def _carry(self) -> None:
        async with open_tasks() as self._tasks:
            async with self.transport(self) as channels:
                self._channels = channels = ending(channels)
                self._life.deadline = math.inf
                self._turn("open")
                self._entered_or_over.set()
                await self._wait_to_leave()
                await channels.send.aclose()
            self._tasks.cancel_scope.cancel()

    async def _wait_to_leave(self) -> None:
        try:
            await self._leave.wait()
        except trio.Cancelled:  # by a pump of the transport that failed, if not from around
            self._breaking = True
            raise

    async def _contain(self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await async_fn(*args)
        except BaseException as error:
            self._record(failure_in(error))
            self._begin_leaving()

    @property
    def _is_carrying(self) -> bool:
        """Whether messages pass, or will do so again."""
        return self._channels is not None and self._state not in ("closing", *ENDS)

    def _turn(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self.turns += 1
            self.changed.tell()

    def _begin_leaving(self) -> None:
        if self._is_carrying:
            self._turn("closing")
        self._limit_life()
        self._leave.set()

    def _limit_life(self) -> None:
        self._life.deadline = min(self._life.deadline, trio.current_time() + self.terms.close_timeout)

    def _record(self, failure: Exception) -> None:
        if self._channels is None:
            self.lost(as_connect_error(failure))
        else:
            self.lost(as_loss(failure))

    def _record_cut(self) -> None:
        """Leaving was cut short: by the connect timeout, by the close timeout, or by a cancellation."""
        if self._channels is None:
            seconds = self.terms.connect_timeout
            self.lost(ConnectTimeout(f"no connection within {seconds:g} s"))
        elif self._is_carrying and not self.leaving:
            self.lost(ConnectionLost("the nursery that carries the connection was cancelled", retryable=False))

    def _end(self) -> None:
        self._tasks = None
        self._turn("failed" if self.failure else "closed")
        self._entered_or_over.set()
        self._over.set()

    def _end_channels(self, channels: FrameChannels) -> None:
        if isinstance(channels.send, EndingSend):
            self._left = [frame.message for frame in channels.send.end()]
        if isinstance(channels.receive, EndingReceive):
            channels.receive.end()

    def _run_deferred(self) -> None:
        while self._deferred:
            self._deferred.pop()()


async def _close_by_force(*channels: SendChannel[Any] | ReceiveChannel[Any]) -> None:
    """Close channels without waiting, whatever state they are in (a cancelled ``aclose`` closes by force)."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        for channel in channels:
            try:
                await channel.aclose()
            except trio.Cancelled:
                continue
