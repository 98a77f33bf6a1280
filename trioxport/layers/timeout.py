"""Gives every request a time in which it has to be answered."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal, cast

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.interruption import Interrupted, interruptible
from trioxport._diagnostics import logger
from trioxport._diagnostics.validators import SECONDS
from trioxport.abc import MessageChannels, Scope
from trioxport.errors import Outcome, RequestTimeout, TransportError, UsageError
from trioxport.layers._deadlines import Deadline, Deadlines
from trioxport.layers._support import ANSWERS
from trioxport.messages import (
    NOTHING,
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    RequestId,
    Response,
    Undelivered,
)
from trioxport.metadata import metadata_of
from trioxport.protocol import INITIALIZE, LISTEN, PROGRESS, cancellation_of, cancelled_id


@attrs.frozen
class Timeout:
    """Settles a request that is not answered in time, and cancels it at the peer.

    The time begins with ``send``. When it is over, ``receive`` gives an :class:`~trioxport.Undelivered` with a
    ``RequestTimeout``, whose ``outcome`` is ``"unknown"``, even while ``send`` still waits for a peer that does not
    read. ``notifications/cancelled`` goes to the peer as soon as it takes it; over HTTP in the modern era the transport
    closes the request's stream instead. ``initialize`` is never cancelled, as the specification demands. An answer that
    comes too late is dropped, and counted in ``connection.statistics()``: as ``"late"``, or as ``"RequestTimeout"`` if
    the cancellation was not sent to the peer yet.

    A progress notification begins the time anew, up to ``max_seconds`` after the request was sent.
    ``metadata["timeout"]`` of a request takes the place of ``seconds``, and of ``max_seconds`` if it is longer; None
    means no limit. ``subscriptions/listen`` stays open by intent, and has a limit only if its metadata says so.

    Messages that arrived before the deadline are received first, so that a program that was busy gets its answers. A
    program that does not call ``receive`` gets no timeout, and its peer no cancellation. After a half-close the peer
    cannot be sent a cancellation. On a server it is about the server's own requests to the client; what a handler may
    take is the application's business.

    Args:
        seconds: Seconds that a request may take without progress.
        max_seconds: Seconds that it may take at most, with any progress.

    Specification 2026-07-28, basic/patterns/cancellation, section Timeouts.
    """

    level: ClassVar[Literal["message"]] = "message"

    seconds: float = attrs.field(default=60.0, validator=SECONDS)
    max_seconds: float = attrs.field(default=600.0, validator=SECONDS, kw_only=True)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        receive, interrupt = interruptible(channels.receive)
        watch = _TimerWatch(self, channels.send, interrupt, scope)
        return MessageChannels(_TimedSend(channels.send, watch), _TimedReceive(receive, watch, scope))


class _TimerWatch:
    """The requests of one connection, and the tasks that watch the deadlines and send cancellations."""

    def __init__(
        self, timeout: Timeout, inner: SendChannel[Message], interrupt: Callable[[], None], scope: Scope
    ) -> None:
        self.deadlines = Deadlines()
        self.interrupt = interrupt
        self._limits = timeout.seconds, timeout.max_seconds
        self._inner = inner
        self._scope = scope
        self._sleep: trio.CancelScope | None = None
        self._wakes_at = math.inf  # the deadline of the sleep, which a scope takes longer to tell
        self._to_cancel: deque[Request] = deque()
        self.taken: set[RequestId] = set()  # ids of expired requests that are still being sent, or cancelled
        self._freed = trio.lowlevel.ParkingLot()

    def begin(self, request: Request) -> Deadline:
        """Start the timer of ``request``. Raises ``UsageError`` for an id in flight."""
        if request.id in self.deadlines.open:
            raise UsageError(f"a request with the id {request.id!r} is in flight already", hint="Give each its own id")
        plain = request.metadata is NOTHING and request.method != LISTEN
        seconds, longest = self._limits if plain else self._limits_of(request)
        deadline = self.deadlines.add(request, trio.current_time(), seconds, longest)
        if deadline.at < self._wakes_at:
            self._wake_by(deadline.at)
        return deadline

    async def until_free(self, deadline: Deadline) -> bool:
        """Wait until an earlier request with the same id is sent and cancelled, or the deadline passes.

        Returns whether the request is still to be sent.
        """
        while deadline.request.id in self.taken and not deadline.expired:
            await self._freed.park()
        return self.deadlines.is_open(deadline)

    def withdraw(self, deadline: Deadline) -> bool:
        """Settle a request that was not accepted. Returns False if it was settled before."""
        if deadline.expired:
            if deadline.stage == "sending":
                self.free(deadline.request.id)
            return False
        if self.deadlines.is_open(deadline):
            self.deadlines.settle(deadline.request.id)
        return True

    def settle_answered(self, request_id: RequestId) -> bool:
        """Settle the request that an answer is for. Returns False if that is an earlier one, which is settled."""
        deadline = self.deadlines.open.get(request_id)
        if deadline is None or deadline.stage == "waiting":
            return False
        self.deadlines.settle(request_id)
        return True

    def free(self, request_id: RequestId) -> None:
        self.taken.discard(request_id)
        self._freed.unpark_all()

    def expire_next(self) -> Undelivered | None:
        """The ``Undelivered`` of the first request that is past its deadline; None if there is none."""
        deadline = self.deadlines.next_late()
        if deadline is None:
            return None
        request = deadline.request
        outcome: Outcome = "unknown"
        if deadline.stage == "waiting":
            outcome = "not_sent"
            self._freed.unpark_all()
        else:
            self.taken.add(request.id)
        if deadline.stage == "sent":
            self.cancel(request)
        return Undelivered.of(
            request, RequestTimeout(_reason(deadline), target=self._scope.settings.target, outcome=outcome)
        )

    def cancel(self, request: Request) -> None:
        """Schedule the cancellation of the request at the peer."""
        if request.method == INITIALIZE:
            return self.free(request.id)
        self._to_cancel.append(request)
        if len(self._to_cancel) == 1:
            self._start(self._send_cancellations)
        return None

    def _limits_of(self, request: Request) -> tuple[float, float]:
        """The seconds that a request may take without progress, and at most."""
        noted = metadata_of(request)
        if "timeout" not in noted:
            return (math.inf, math.inf) if request.method == LISTEN else self._limits
        seconds = cast("object", noted["timeout"])  # the application may have written anything
        if seconds is None:
            return math.inf, math.inf
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise UsageError(f"metadata['timeout'] is {seconds!r}, and has to be a number of seconds, or None")
        return seconds, max(seconds, self._limits[1])

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            self._scope.start_soon(task)
        except RuntimeError:  # the connection is over, which settles everything
            self._drop_cancellations()

    def _wake_by(self, at: float) -> None:
        """Wake the task that watches the deadlines by ``at``, sooner than it would; start it if it does not run."""
        self._wakes_at = at
        if self._sleep is None:
            self._sleep = trio.CancelScope()
            self._start(self._watch_deadlines)
        else:
            self._sleep.deadline = at

    async def _watch_deadlines(self) -> None:
        while True:
            self._wakes_at = self.deadlines.next()
            with trio.CancelScope(deadline=self._wakes_at) as self._sleep:
                await trio.sleep_forever()
            self.deadlines.expire(trio.current_time())
            if self.deadlines.late:
                self.interrupt()

    async def _send_cancellations(self) -> None:
        try:
            while self._to_cancel:
                request = self._to_cancel[0]
                await self._send_cancellation(request)
                self._to_cancel.popleft()
                self.free(request.id)
        finally:
            self._drop_cancellations()

    async def _send_cancellation(self, request: Request) -> None:
        try:
            await self._inner.send(cancellation_of(request, "no answer in time"))
        except (TransportError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("%s: request %r cannot be cancelled: %s", self._scope.settings.target, request.id, error)

    def _drop_cancellations(self) -> None:
        """Give up the cancellations that wait, if there are any, and let requests with their ids go on."""
        self.taken.difference_update(request.id for request in self._to_cancel)
        self._to_cancel.clear()
        self._freed.unpark_all()


def _reason(deadline: Deadline) -> str:
    method = deadline.request.method
    if not deadline.progressed:
        return f"no answer to {method} within {deadline.seconds:g} s"
    if deadline.at < deadline.last:
        return f"no progress of {method} for {deadline.seconds:g} s"
    return f"no answer to {method} within {deadline.longest:g} s, though it made progress"


class _TimedSend(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], watch: _TimerWatch) -> None:
        self._inner = inner
        self._watch = watch

    async def send(self, value: Message) -> None:
        if type(value) is not Request:
            return await self._send_other(value)
        watch = self._watch
        deadline = watch.begin(value)
        try:
            if not watch.taken or await watch.until_free(deadline):
                deadline.stage = "sending"
                await self._inner.send(value)
                deadline.stage = "sent"
        except BaseException as error:
            if watch.withdraw(deadline) or not isinstance(error, TransportError):
                raise
        else:
            if deadline.expired and deadline.stage == "sent":
                watch.cancel(value)
        return None

    async def _send_other(self, message: Message) -> None:
        deadlines = self._watch.deadlines
        request_id = cancelled_id(message)
        cancelled = None if request_id is None else deadlines.open.get(request_id)
        if cancelled is not None and cancelled.stage == "waiting":  # else it could be sent behind its cancellation
            deadlines.settle(cancelled.request.id)
        await self._inner.send(message)
        if cancelled is not None and deadlines.is_open(cancelled):  # the id may be that of another request by now
            deadlines.settle(cancelled.request.id)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _TimedReceive(ReceiveChannel[Incoming]):
    def __init__(self, inner: ReceiveChannel[Incoming], watch: _TimerWatch, scope: Scope) -> None:
        self._inner = inner
        self._watch = watch
        self._scope = scope
        self._max_overtaken = max(1, scope.settings.limits.max_buffered_messages)
        self._overtaken = 0
        self._closed = False

    async def receive(self) -> Incoming:
        late = self._watch.deadlines.late
        while True:
            message: Incoming | None
            try:
                message = await (self._receive_before_late() if late else self._inner.receive())
            except Interrupted:
                expired = self._expire_next()
                if expired is not None:
                    return expired
                continue
            if isinstance(message, ANSWERS):
                message = self._unless_late(message)
            elif type(message) is Notification:
                self._note(message)
            if message is not None:
                return message

    async def _receive_before_late(self) -> Incoming:
        """A message that is there, unless too many came before a late request already. Raises ``Interrupted``."""
        self._overtaken += 1
        if self._overtaken > self._max_overtaken and not self._closed:
            await trio.lowlevel.checkpoint()
            raise Interrupted
        self._watch.interrupt()
        return await self._inner.receive()

    def _expire_next(self) -> Undelivered | None:
        expired = self._watch.expire_next()
        if self._watch.deadlines.late:
            self._watch.interrupt()  # another task may wait
        else:
            self._overtaken = 0
        return expired

    def _unless_late(self, answer: Response | ErrorResponse) -> Response | ErrorResponse | None:
        if answer.id is None or self._watch.settle_answered(answer.id):
            return answer
        if not isinstance(answer, Undelivered):
            self._scope.discard(RequestTimeout(f"the answer to the request {answer.id!r} came after its time"))
        return None

    def _note(self, notification: Notification) -> None:
        deadlines = self._watch.deadlines
        if notification.method == PROGRESS:
            deadlines.progress(notification, trio.current_time())
        elif (request_id := cancelled_id(notification)) is not None:
            subscription = deadlines.open.get(request_id)
            if subscription is not None and subscription.request.method == LISTEN:
                self._watch.settle_answered(request_id)

    async def aclose(self) -> None:
        self._closed = True
        await self._inner.aclose()
