"""Retries of undelivered messages, where a repetition cannot repeat a side effect."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import ClassVar, Literal

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.backoff import BACKOFF, Backoff
from trioxport._core.reissues import Reissues
from trioxport._diagnostics.validators import COUNT, FUNCTION, SECONDS_OR_0
from trioxport.abc import MessageChannels, Scope
from trioxport.errors import ProtocolViolation, TransportError, UsageError
from trioxport.layers._attempts import Attempts, is_safe_to_repeat
from trioxport.layers._support import ANSWERS, ended_subscription
from trioxport.messages import Incoming, Message, Request, RequestId, Undelivered
from trioxport.protocol import cancelled_id


@attrs.frozen
class Retry:
    """Sends a message again that came back :class:`~trioxport.Undelivered`, or that ``send`` refused, after a pause.

    By default only what cannot happen twice is repeated: a message that did not reach the peer (``outcome`` is
    ``"not_sent"``), or a request that only reads (``ping``, ``*/list``, ``*/read``, ``*/get``, ``server/discover``,
    ``completion/complete``); and only after errors that are ``retryable``. An error response is an answer.

    The pauses grow, are random, and respect ``retry_after``. Meanwhile the connection carries other messages. When no
    attempt is left, ``receive`` gives the ``Undelivered`` of the last one: its ``metadata["attempt"]`` is how many
    there were, ``metadata["causes"]`` why each failed, its ``cause`` has a note about each; its ``outcome`` is
    ``"unknown"`` if any of them may have arrived.

    Each attempt of a request after the first has an id of its own on the wire, and a progress token if the request has
    one; the application only sees its own. An answer to an attempt that was given up is dropped and counted. For the
    layers further down, a message that is sent again has the number of the attempt, from 2, as ``metadata["attempt"]``,
    and a request has the application's id as ``metadata["first_id"]``. It is sent in the context of the first attempt.

    A ``send`` that is refused from further down, as by an open circuit breaker or a rate limit, waits in ``send``
    itself until it is accepted or the last attempt's error is raised. One that finds the connection dead (a
    ``trio.BrokenResourceError``) is not repeated: no channel comes back to life.

    ``notifications/cancelled`` ends the attempts of its request, which then settles by that. Closing ``tx`` while
    messages wait to be sent again leaves the connection open until they are sent or given up, and leaving the
    connection ends them. On a server this is about what the server sends.

    Args:
        attempts: How many times a message is sent at most, the first time included.
        deadline: Seconds from the first attempt after which none begins.
        backoff: The pauses.
        when: Whether an ``Undelivered`` is to be repeated, instead of what is said above.
        random: Where the randomness of the pauses comes from.

    Specification 2026-07-28, changelog, major change 9, and basic/index, section Requests.
    """

    level: ClassVar[Literal["message"]] = "message"

    attempts: int = attrs.field(default=4, validator=COUNT)
    deadline: float = attrs.field(default=60.0, validator=SECONDS_OR_0, kw_only=True)
    backoff: Backoff = attrs.field(default=Backoff(base=0.2, cap=10.0), validator=BACKOFF, kw_only=True)
    when: Callable[[Undelivered], bool] = attrs.field(default=is_safe_to_repeat, validator=FUNCTION, kw_only=True)
    random: Random = attrs.field(factory=Random, kw_only=True, eq=False, repr=False)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        retries = _Retries(self, channels.send, scope)
        return MessageChannels(_RetryingSend(channels.send, retries), _RetryingReceive(channels.receive, retries))


@attrs.define(eq=False)
class _Repetition:
    """A message that waits to be sent again, or is just being sent.

    Args:
        attempts: The attempts so far.
        message: The message for the next attempt.
        due: The time of that attempt.
    """

    attempts: Attempts
    message: Message
    due: float
    sending: bool = False
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    def is_about(self, request_id: RequestId) -> bool:
        message = self.attempts.message
        return isinstance(message, Request) and message.id == request_id


class _Retries:
    """The messages in flight of one connection and their attempts, shared by both directions."""

    def __init__(self, policy: Retry, inner: SendChannel[Message], scope: Scope) -> None:
        self.policy = policy
        self.scope = scope
        self.reissues = Reissues(scope.discard)
        self.sent: dict[RequestId, Attempts] = {}
        self.repetitions: set[_Repetition] = set()
        self.settled: deque[Undelivered] = deque()
        self.send_closed = trio.Event()
        self._inner = inner
        self._receiving: set[trio.CancelScope] = set()

    def first_attempt(self, message: Message) -> Attempts:
        return Attempts(message, trio.current_time(), self)

    def attempts_of(self, message: Message) -> Attempts | None:
        """The attempts to send ``message`` so far; None for a request that is settled or has a newer attempt."""
        if not isinstance(message, Request):
            return Attempts.of(message, self) or self.first_attempt(message)
        request_id = self.reissues.first_id(message.id)
        return None if request_id is None else self.sent.get(request_id)

    def is_open(self, attempts: Attempts) -> bool:
        """Whether the request of ``attempts`` is in flight, and not cancelled, answered or another one of its id."""
        return isinstance(attempts.message, Request) and self.sent.get(attempts.message.id) is attempts

    def again(self, attempts: Attempts) -> Message:
        """The message for the next attempt: a request gets a new id."""
        message = attempts.next_message()
        return self.reissues.issue(message) if isinstance(message, Request) else message

    def refused(self, attempts: Attempts, error: TransportError) -> float | None:
        """Record that ``send`` raised ``error``. Returns the time of the next attempt, or None."""
        undelivered = attrs.evolve(Undelivered.of(attempts.message, error), outcome="not_sent")
        due = attempts.fail(undelivered, trio.current_time(), self.policy)
        return None if isinstance(error, trio.BrokenResourceError) else due

    def cancel(self, request_id: RequestId) -> bool:
        """Give up a request that the application cancels. Returns False if the peer has to learn of it."""
        pending = [undelivered for undelivered in self.settled if undelivered.id == request_id]
        for undelivered in pending:
            self.settled.remove(undelivered)
        waited = any(not repetition.sending for repetition in self._stop(request_id))
        if waited:
            self._forget(request_id)
        return waited or bool(pending)

    def settle(self, request_id: RequestId) -> bool:
        """Forget a request that is answered or cancelled. Returns False if it was settled before."""
        self._stop(request_id)
        return self._forget(request_id)

    def received(self, message: Incoming) -> Incoming | None:
        """The message for the application, under the id that it knows; None if it gets none."""
        if isinstance(message, Undelivered):
            return self.take(message)
        known = self.reissues.incoming(message) if self.reissues else message
        if isinstance(known, ANSWERS):
            if known.id is not None and not self.settle(known.id):
                self.scope.discard(ProtocolViolation(f"an answer to no request in flight, id {known.id!r}"))
                return None
        elif known is not None and (ended := ended_subscription(known, self._request)) is not None:
            self.settle(ended)
        return known

    def take(self, undelivered: Undelivered) -> Undelivered | None:
        """The ``Undelivered`` for the application; None if the message is sent again."""
        attempts = self.attempts_of(undelivered.original)
        if attempts is None:
            return None
        message = attempts.message
        if isinstance(message, Request):
            self._stop(message.id)
        due = attempts.fail(undelivered, trio.current_time(), self.policy)
        if due is not None and self._can_send() and self._repeat_at(due, attempts):
            return None
        if isinstance(message, Request):
            self._forget(message.id)
        return attempts.undelivered() if len(attempts.causes) > 1 else undelivered

    async def receive(self, inner: ReceiveChannel[Incoming]) -> Incoming | None:
        """Receive the next message; None when a repetition was given up meanwhile."""
        with trio.CancelScope() as scope:
            self._receiving.add(scope)
            try:
                return await inner.receive()
            except (trio.EndOfChannel, TransportError):  # then no repetition could be answered
                if not self.repetitions:
                    raise
                for repetition in list(self.repetitions):
                    repetition.scope.cancel()
                    self.give_up(repetition)
            finally:
                self._receiving.discard(scope)
        return None

    def _stop(self, request_id: RequestId) -> list[_Repetition]:
        """Cancel the repetitions of a request, also one being sent: an earlier attempt may have been answered."""
        if not self.repetitions:
            return []
        stopped = [repetition for repetition in self.repetitions if repetition.is_about(request_id)]
        for repetition in stopped:
            self.repetitions.discard(repetition)
            repetition.scope.cancel()
        return stopped

    def _forget(self, request_id: RequestId) -> bool:
        self.reissues.settle(request_id)
        return self.sent.pop(request_id, None) is not None

    def _request(self, request_id: RequestId) -> Message | None:
        attempts = self.sent.get(request_id)
        return None if attempts is None else attempts.message

    def _can_send(self) -> bool:
        return bool(self.repetitions) or not self.send_closed.is_set()

    def _repeat_at(self, due: float, attempts: Attempts) -> bool:
        """Schedule the next attempt. Returns False if the connection is over."""
        repetition = _Repetition(attempts, self.again(attempts), due)
        try:
            attempts.context.run(self.scope.start_soon, self._repeat, repetition)
        except RuntimeError:  # the connection is over, and only what it had received is left
            return False
        self.repetitions.add(repetition)
        return True

    async def _repeat(self, repetition: _Repetition) -> None:
        with repetition.scope:
            accepted = await self._send_again(repetition)
            if not accepted and repetition in self.repetitions:
                self.give_up(repetition)
        self.repetitions.discard(repetition)
        if self.send_closed.is_set() and not self.repetitions:
            await self._inner.aclose()

    async def _send_again(self, repetition: _Repetition) -> bool:
        """Send a message until it is accepted or no attempt is left. Returns whether it was accepted."""
        due: float | None = repetition.due
        while due is not None:
            await trio.sleep_until(due)
            repetition.sending = True
            try:
                await self._inner.send(repetition.message)
            except TransportError as error:
                if repetition not in self.repetitions:
                    return False
                due = self.refused(repetition.attempts, error)
                if due is not None:
                    repetition.message = self.again(repetition.attempts)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return False
            else:
                return True
            repetition.sending = False
        return False

    def give_up(self, repetition: _Repetition) -> None:
        """Settle a message as undelivered, unless it was settled meanwhile, and wake the receivers."""
        self.repetitions.discard(repetition)
        message = repetition.attempts.message
        if isinstance(message, Request):
            if not self.is_open(repetition.attempts):
                return
            self._forget(message.id)
        self.settled.append(repetition.attempts.undelivered())
        for scope in self._receiving:
            scope.cancel()


class _RetryingSend(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], retries: _Retries) -> None:
        self._inner = inner
        self._retries = retries

    async def send(self, value: Message) -> None:
        retries = self._retries
        if retries.send_closed.is_set():
            raise trio.ClosedResourceError
        if type(value) is Request:
            return await self._send_request(value)
        request_id = cancelled_id(value)
        if request_id is None:
            return await self._send(value)
        stopped = [repetition for repetition in retries.repetitions if repetition.is_about(request_id)]
        if retries.cancel(request_id):
            return await trio.lowlevel.checkpoint()
        cancelled = retries.sent.get(request_id)
        try:
            await self._send(retries.reissues.outgoing(value))
        except BaseException:
            for repetition in stopped:
                retries.give_up(repetition)
            raise
        if cancelled is not None and retries.is_open(cancelled):
            retries.settle(request_id)
        return None

    async def _send_request(self, request: Request) -> None:
        retries = self._retries
        if request.id in retries.sent:
            raise UsageError(f"a request with the id {request.id!r} is in flight already", hint="Give each its own id")
        started = retries.sent[request.id] = retries.first_attempt(request)
        try:
            await self._send(request, started)
        except BaseException:
            if retries.is_open(started):
                retries.settle(request.id)
            raise

    async def _send(self, message: Message, started: Attempts | None = None) -> None:
        """Send a message, with further attempts while ``send`` refuses it and attempts are left.

        Args:
            message: The message.
            started: The attempts of a request, which end when it is cancelled or answered meanwhile.
        """
        retries = self._retries
        attempts: Attempts | None = None
        while True:
            try:
                return await self._inner.send(message if attempts is None else retries.again(attempts))
            except TransportError as error:
                attempts = attempts or retries.attempts_of(message)
                if attempts is None or (started is not None and attempts is not started):
                    return None
                due = retries.refused(attempts, error)
                if due is None:
                    raise attempts.error() from error.__cause__
            with trio.move_on_at(due):
                await retries.send_closed.wait()
                raise trio.ClosedResourceError
            if started is not None and not retries.is_open(started):
                return None

    async def aclose(self) -> None:
        retries = self._retries
        retries.send_closed.set()
        if retries.repetitions and not retries.scope.leaving:
            await trio.lowlevel.checkpoint()  # the last of them closes it
        else:
            await self._inner.aclose()


class _RetryingReceive(ReceiveChannel[Incoming]):
    def __init__(self, inner: ReceiveChannel[Incoming], retries: _Retries) -> None:
        self._inner = inner
        self._retries = retries

    async def receive(self) -> Incoming:
        retries = self._retries
        while True:
            if retries.settled:
                await trio.lowlevel.checkpoint()
                if retries.settled:
                    return retries.settled.popleft()
            message = await (retries.receive(self._inner) if retries.repetitions else self._inner.receive())
            known = None if message is None else retries.received(message)
            if known is not None:
                return known

    async def aclose(self) -> None:
        self._retries.settled.clear()
        await self._inner.aclose()
