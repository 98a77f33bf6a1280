"""The supervisor of a connection: it enters and leaves the transport in a task of its own.

The application sees channels only. A failure of the transport is recorded, and raised at the channels, instead of
cancelling the application's code; and any task may close the connection.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final, Literal

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.ending import EndingReceive, EndingSend, end_with_transport
from trioxport._core.error_mapping import as_connect_error, as_loss, shortened
from trioxport._core.nursery import failure_in, open_bare_nursery
from trioxport._core.states import FINAL_STATES, LazyEvent, Signal, State
from trioxport._diagnostics import logger
from trioxport._diagnostics.hiding import hide_in, without
from trioxport.abc import Carries, ConnectionInfo, ConnectionSettings, FrameChannels, Scope, Transport
from trioxport.errors import (
    ConnectionLost,
    ConnectTimeout,
    TransportError,
)
from trioxport.messages import Message, Request, RequestId

ABORT_SECONDS: Final = 5.0
"""Seconds that a cancelled transport may take to release its resources; ending a child process takes longest."""


class Supervisor:
    """Enters a transport, records its state and its failure, and leaves it.

    It is the :class:`~trioxport.abc.Scope` of the transport and of the layers.

    Args:
        transport: The transport to enter.
        settings: The settings of the connection.
        outlives_cancel: Whether a cancellation of the surrounding scope reaches the transport only after ``close`` or
            ``abort``, so that the block that uses the connection is cancelled first. The caller must then call one of
            them in every case.
        within: The scope of the connection that this one is a part of, or None. A transport made of transports, such
            as ``Reconnecting``, has one supervisor for each.
        peer: The address of an accepted client.

    Attributes:
        answers_unreadable: Whether requests that cannot be read are answered above the transport.
        requests: The requests of this side in flight, by id.
        failure: The first failure of the connection, or None.
        failure_seen: Whether the application has got the failure at a channel.
        peer_is_done: Whether the transport has reported the orderly end of the peer.
        unanswered: The transport's error for the requests that the peer's orderly end leaves unanswered, or None.
        cut_short: Whether a task reported the failure while it was being cancelled.
        change_count: The number of changes of the state.
        changed: Wakes at each change of the state, and when the peer is done.
    """

    answers_unreadable: ClassVar[bool] = True
    failure: TransportError | None = None
    failure_seen: bool = False
    peer_is_done: bool = False
    unanswered: TransportError | None = None
    cut_short: bool = False
    change_count: int = 0
    _state: State = "connecting"
    _leaving: bool = False
    _breaking: bool = False
    _within: Scope | None = None
    _channels: FrameChannels | None = None
    _tasks: trio.Nursery | None = None
    _deferred: list[Callable[[], object]] | None = None
    _left: Sequence[Message | None] = ()
    _hidden: frozenset[str] = frozenset()

    def __init__(
        self,
        transport: Transport,
        settings: ConnectionSettings,
        *,
        outlives_cancel: bool,
        within: Scope | None = None,
        peer: str | None = None,
    ) -> None:
        self.transport = transport
        self.settings = settings
        self.info = ConnectionInfo(settings.target, peer) if within is None else within.info
        self.requests: dict[RequestId, Request] = {}
        self.changed = Signal()
        self._outlives_cancel = outlives_cancel
        self._over = LazyEvent()
        if within is not None:
            self._within = within

    # The parts that not every connection needs: some live for one request.

    @cached_property
    def discarded(self) -> Counter[str]:
        """Counts of received things that were skipped, by the name of the error."""
        return Counter()

    @cached_property
    def _life(self) -> trio.CancelScope:
        return trio.CancelScope(shield=self._outlives_cancel)

    @cached_property
    def _entered_or_over(self) -> LazyEvent:
        return LazyEvent()

    @cached_property
    def _leave(self) -> LazyEvent:
        return LazyEvent()

    # The Scope: the interface of transports and layers.

    @property
    def leaving(self) -> bool:
        return self._leaving or (self._within is not None and self._within.leaving)

    @property
    def in_flight(self) -> Mapping[RequestId, Request]:
        return self.requests if self._within is None else self._within.in_flight

    def hide(self, texts: Collection[str]) -> None:
        self._hidden = self._hidden.union(texts)
        if self._within is not None:
            self._within.hide(texts)

    def peer_done(self, unanswered: TransportError | None = None) -> None:
        self.peer_is_done = True
        if unanswered is not None:
            self.complete(unanswered)
            self.unanswered = unanswered
        self.changed.notify()

    def lost(self, error: TransportError) -> None:
        if self.failure is None:
            self.complete(error)
            self.failure = error
            self.cut_short = trio.current_effective_deadline() == -math.inf
            if self._is_carrying:
                self._set_state("failed")

    def set_state(self, state: Literal["connecting", "open", "waiting"]) -> None:
        if self._is_carrying:
            self._set_state(state)

    def discard(self, error: TransportError) -> None:
        if self._within is not None:
            self._within.discard(error)
            return
        kind = type(error).__name__
        self.discarded[kind] += 1
        level = logging.WARNING if self.discarded[kind] == 1 else logging.DEBUG
        self.complete(error)
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        logger.log(level, "skipped something received: %s: %s%s", kind, error, notes)

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        if self._tasks is None:
            raise RuntimeError("the connection is over")
        self._tasks.start_soon(self._contain, async_fn, args)

    def defer(self, callback: Callable[[], object]) -> None:
        if self._deferred is None:
            self._deferred = []
        self._deferred.append(callback)

    # The interface of opening.py, connection.py and the message channels.

    def complete(self, error: TransportError) -> None:
        """Name the target in an error for the application, and hide what is to be hidden."""
        error.target = error.target or self.settings.target
        if self._hidden:
            hide_in(error, self._hidden)

    @property
    def state(self) -> State:
        return self._state

    @property
    def carries(self) -> Carries | None:
        """The payloads that the wire can carry; None before the transport has opened."""
        return None if self._channels is None else self._channels.carried()

    @property
    def has_opened(self) -> bool:
        """Whether the transport has opened, even if it is closed by now."""
        return self._channels is not None

    async def run(self) -> None:
        """Enter the transport, wait, and leave it: the task of the connection. Raises no ``Exception``."""
        cut_short = True
        try:
            with self._life:
                self._life.deadline = trio.current_time() + self.settings.connect_timeout
                await self._carry()
                cut_short = False
        except BaseException as error:
            self._record(failure_in(error))
            cut_short = False
        finally:
            if cut_short:
                self._record_cut()
            self._end()
            self._entered_or_over.set()
            if self._channels is not None:  # a task may wait at a channel whose pump is gone
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
        """The loss, or None for an orderly end, once a channel of the transport has ended; waits for the transport."""
        if self.failure is None and self.peer_is_done and not self._breaking:
            return None
        self._begin_leaving()
        if self.failure is None:
            await self._over.wait()
        return self.failure

    def never_took(self, request: Request) -> bool:
        """Whether the transport, which is over, accepted a request and never took it out of its buffer."""
        return any(message is request for message in self._left)

    async def close(self, tx: SendChannel[Any], rx: ReceiveChannel[Any]) -> None:
        """Flush and close within ``close_timeout``; cancelled, close at once. Returns when the transport is left."""
        self._leaving = True
        self._limit_life()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # a cancelled transport must not see an orderly end first
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
        """Cancel the transport, without a flush."""
        self._life.cancel()

    # The task of the connection, and its end.

    async def _carry(self) -> None:
        async with open_bare_nursery() as self._tasks:
            async with self.transport(self) as channels:
                channels = self._take(end_with_transport(channels))
                self._life.deadline = math.inf
                self._set_state("open")
                self._entered_or_over.set()
                await self._wait_to_leave()
                await channels.send.aclose()
            self._tasks.cancel_scope.cancel()

    def _take(self, channels: FrameChannels) -> FrameChannels:
        self._channels = channels
        if channels.peer is not None:
            self.info.peer = without(self._hidden, channels.peer)
        return channels

    async def _wait_to_leave(self) -> None:
        try:
            await self._leave.wait()
        except trio.Cancelled:  # a pump of the transport failed, or the surrounding scope is cancelled
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
        """Whether messages pass, or will pass again."""
        return self._channels is not None and self._state not in ("closing", *FINAL_STATES)

    def _set_state(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self.change_count += 1
            self.changed.notify()

    def _begin_leaving(self) -> None:
        if self._is_carrying:
            self._set_state("closing")
        self._limit_life()
        self._leave.set()

    def _limit_life(self) -> None:
        self._life.deadline = min(self._life.deadline, trio.current_time() + self.settings.close_timeout)

    def _record(self, failure: Exception) -> None:
        if self._channels is None:
            self.lost(as_connect_error(failure))
        else:
            self.lost(as_loss(failure))

    def _record_cut(self) -> None:
        """Record the reason of a cancelled task: the connect timeout, the close timeout, or a cancelled nursery."""
        if self._channels is None:
            seconds = self.settings.connect_timeout
            self.lost(ConnectTimeout(f"no connection within {seconds:g} s"))
        elif self._is_carrying and not self.leaving:
            self.lost(ConnectionLost("the nursery that carries the connection was cancelled", retryable=False))

    def _end(self) -> None:
        self._tasks = None
        self._set_state("failed" if self.failure else "closed")
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
    """Close channels without waiting, in any state: a cancelled ``aclose`` closes by force."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        for channel in channels:
            try:
                await channel.aclose()
            except trio.Cancelled:
                continue
            except Exception as error:  # the connection is over, and its failure recorded, if there is one
                logger.debug("%r cannot be closed: %r", channel, error)
