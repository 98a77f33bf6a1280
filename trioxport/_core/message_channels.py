"""The channels of messages over a transport's frames: encoding, decoding, and settling each request exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.error_mapping import not_sent
from trioxport._core.interruption import Interruptible, interrupt_of
from trioxport._core.supervisor import Supervisor
from trioxport._core.unreadable import Refusals, fragment_of
from trioxport._diagnostics.text_redaction import excerpt_of
from trioxport.abc import FrameChannels, MessageChannels
from trioxport.codecs.forwarding import Forwarding
from trioxport.errors import ConnectionLost, DecodeError, MessageTooLarge, ProtocolViolation, TransportError, UsageError
from trioxport.frames import Frame
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
from trioxport.metadata import Metadata, metadata_of, noting
from trioxport.protocol import LISTEN, cancelled_id

_ANSWERS: Final = (Response, ErrorResponse)
MAX_CANCELLED_IDS: Final = 256
"""Cancelled requests whose late answers are counted, but not logged."""


class _InFlight:
    """The requests that are sent and not settled yet."""

    __slots__ = ("cancelled", "none_sending", "requests", "sending")

    def __init__(self, requests: dict[RequestId, Request]) -> None:
        self.requests = requests
        self.cancelled: deque[RequestId] | None = None
        self.sending = 0
        self.none_sending: trio.Event | None = None

    def begin(self, request: Request) -> None:
        """Add a request that is about to be sent. Raises ``UsageError`` for an id in flight."""
        if request.id in self.requests:
            raise UsageError(f"a request with the id {request.id!r} is in flight already", hint="Give each its own id")
        self.requests[request.id] = request
        self.sending += 1

    def withdraw(self, request: Request, error: BaseException) -> bool:
        """Remove a request that was not sent; return whether an answer or a cancellation has settled it already."""
        if self.requests.get(request.id) is request:
            del self.requests[request.id]
            return False
        return isinstance(error, TransportError)

    def tell_none_sending(self) -> None:
        """Wake the tasks in ``all_sent_or_refused``, if that is so."""
        if self.none_sending is not None and not self.sending:
            self.none_sending.set()
            self.none_sending = None

    def cancelled_by(self, message: Message) -> Request | None:
        """The request in flight that ``message`` cancels, or None."""
        request_id = cancelled_id(message)
        return None if request_id is None else self.requests.get(request_id)

    def settle_cancelled(self, request: Request) -> None:
        """Settle a request that this side cancels, unless its id is that of another one by now."""
        if self.requests.get(request.id) is request:
            del self.requests[request.id]
            if self.cancelled is None:  # made late: most connections cancel nothing, and an empty deque is large
                self.cancelled = deque(maxlen=MAX_CANCELLED_IDS)
            self.cancelled.append(request.id)

    def settle_ended(self, message: Message) -> None:
        """Settle the subscription that its server ends."""
        request = self.cancelled_by(message)
        if request is not None and request.method == LISTEN:
            self.settle_cancelled(request)

    def settle_refused(self, request: Request) -> bool:
        """Settle a request that the transport gives back. Returns False if it is settled, and its id free or in use.

        The transport may have added members to its ``params``.
        """
        known = self.requests.get(request.id)
        if known is None or known.method != request.method:
            return False
        del self.requests[request.id]
        return True

    async def all_sent_or_refused(self) -> None:
        """Wait until each request that is being sent is accepted, or refused and no longer in flight."""
        while self.sending:
            if self.none_sending is None:
                self.none_sending = trio.Event()
            await self.none_sending.wait()


class _MessageSend(SendChannel[Message]):
    def __init__(self, frames: SendChannel[Frame], supervisor: Supervisor, in_flight: _InFlight) -> None:
        self._frames = frames
        self._supervisor = supervisor
        self._encode = supervisor.settings.codec.encode
        self._max_size = supervisor.settings.limits.max_message_size
        self._in_flight = in_flight
        self._closed = False

    async def send(self, value: Message) -> None:
        frame = self._encoded(value)
        request = value if type(value) is Request else None
        in_flight = self._in_flight
        cancelled = None
        if request is not None:
            in_flight.begin(request)
        elif type(value) is Notification:
            cancelled = in_flight.cancelled_by(value)
        broken: Exception | None = None
        try:
            if self._supervisor.failure is not None or self._closed:
                await self._refuse(None)
            try:
                await self._frames.send(frame)
            except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
                broken = error
            if broken is not None:
                await self._refuse(broken)
        except BaseException as error:
            if request is None or not in_flight.withdraw(request, error):
                raise
        else:
            if cancelled is not None:
                in_flight.settle_cancelled(cancelled)
        finally:
            if request is not None:
                in_flight.sending -= 1
                if in_flight.none_sending is not None:
                    in_flight.tell_none_sending()

    def _encoded(self, message: Message) -> Frame:
        payload = self._encode(message)
        if len(payload) > self._max_size:
            raise self._too_large(len(payload))
        return Frame(payload, message, None if message.metadata is NOTHING else metadata_of(message).get("headers"))

    async def _refuse(self, broken: Exception | None) -> NoReturn:
        """Raise the error of a message that was not sent, since the connection is closed, lost or broken."""
        if self._closed and not isinstance(broken, trio.BrokenResourceError):
            raise trio.ClosedResourceError if broken is None else broken
        if isinstance(broken, TransportError):
            raise broken
        failure = self._supervisor.failure or await self._supervisor.verdict()
        await trio.lowlevel.checkpoint()
        self._supervisor.failure_seen = True
        raise _sent_too_late(failure, self._supervisor.settings.target)

    async def aclose(self) -> None:
        self._closed = True
        await self._frames.aclose()

    def _too_large(self, size: int) -> MessageTooLarge:
        return MessageTooLarge(
            f"a message of {size} bytes is over the limit of {self._max_size}",
            target=self._supervisor.settings.target,
            outcome="not_sent",
        )


class _MessageReceive(Interruptible, ReceiveChannel[Incoming]):
    _not_sent: TransportError | None = None
    """The one error of all requests that the transport never took."""

    def __init__(
        self, frames: FrameChannels, supervisor: Supervisor, in_flight: _InFlight, refusals: Refusals | None
    ) -> None:
        self._frames = frames.receive
        self._check = frames.check
        self._supervisor = supervisor
        self._refusals = refusals
        self._decode = supervisor.settings.codec.decode
        codec = supervisor.settings.codec
        self._forwarding = codec if isinstance(codec, Forwarding) else None
        self._max_size = supervisor.settings.limits.max_message_size
        self._in_flight = in_flight
        self._ended = False
        self._closed = False
        self._unanswered: TransportError | None = None

    @property
    def interrupt(self) -> Callable[[], None] | None:
        return interrupt_of(self._frames)

    async def receive(self) -> Incoming:
        if self._ended:
            await trio.lowlevel.checkpoint()
        while not self._ended:
            try:
                frame = await self._frames.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):  # a transport that was left may close its own ends
                if self._closed or self._supervisor.leaving:
                    raise trio.ClosedResourceError from None
                self._ended = True
            else:
                message = self._accept(frame)
                if message is not None:
                    return message
        return await self._settle_at_end()

    async def aclose(self) -> None:
        self._closed = True
        await self._frames.aclose()

    def _accept(self, frame: Frame) -> Incoming | None:
        """The message of a frame for the application; None if there is none."""
        if frame.error is not None:
            return self._refuse(frame, frame.error)
        try:
            message = self._decode_payload(frame.payload) if frame.message is None else frame.message
        except (DecodeError, ProtocolViolation, MessageTooLarge) as error:
            return self._refuse(frame, error)
        if self._check is not None and (answer := self._check(message)) is not None:
            if self._refusals is not None:
                self._refusals.send_soon(answer)
            return None
        if frame.headers is not None or frame.deliveries is not None or self._forwarding is not None:
            message = self._with_metadata(message, frame)
        if isinstance(message, _ANSWERS):
            # Without an id it is the peer's error about a message whose id it could not read.
            if message.id is not None and self._in_flight.requests.pop(message.id, None) is None:
                self._discard_answer(message.id)
                return None
        elif isinstance(message, Notification):
            self._in_flight.settle_ended(message)
        return message

    def _discard_answer(self, request_id: RequestId) -> None:
        if request_id in (self._in_flight.cancelled or ()):
            self._supervisor.discarded["late"] += 1  # expected after a cancellation: counted, not logged
        else:
            self._supervisor.discard(ProtocolViolation(f"a response to no request in flight, id {request_id!r}"))

    def _with_metadata(self, message: Message, frame: Frame) -> Message:
        """The message with the notes of its frame, and with the payload if it is to be forwarded."""
        noted: Metadata = {} if frame.headers is None else {"headers": frame.headers}
        if frame.deliveries is not None:
            noted["deliveries"] = frame.deliveries
        if self._forwarding is not None:
            noted["encoded"] = self._forwarding.form(frame.payload, message)
        return noting(message, noted)

    def _decode_payload(self, payload: bytes) -> Message:
        if len(payload) > self._max_size:
            raise MessageTooLarge(f"a message of {len(payload)} bytes is over the limit of {self._max_size}")
        try:
            return self._decode(payload)
        except DecodeError as error:
            from trioxport.framing.envelope import open_envelope

            envelope = open_envelope(payload)
            if envelope is None:
                raise
            raise DecodeError(
                f"the message is in an envelope ({envelope.fields[0]}) that no layer of this side opens",
                hint="Give both sides of the connection the same Compression and Signing",
            ) from error

    def _refuse(self, frame: Frame, error: TransportError) -> Undelivered | None:
        """Settle the request of a frame that has no valid message, or answer it if it is the peer's."""
        original = frame.message
        if original is None and frame.payload:
            error.add_note(f"it begins with: {excerpt_of(frame.payload)}")
        self._supervisor.complete(error)
        if original is None:
            self._supervisor.discard(error)
            fragment = fragment_of(frame.payload, error)
            request_id = self._supervisor.settings.codec.identify(fragment)
            original = None if request_id is None else self._in_flight.requests.pop(request_id, None)
            if self._refusals is not None and (frame.error is None or isinstance(error, MessageTooLarge)):
                self._refusals.answer(fragment, error)  # a payload that a layer refused may not be the peer's message
        elif isinstance(original, Request) and not self._in_flight.settle_refused(original):
            return None
        return None if original is None else Undelivered.of(original, error)

    async def _settle_at_end(self) -> Undelivered:
        """Yield an unanswered request after the last frame; without one, raise the end or the loss."""
        if self._closed:
            raise trio.ClosedResourceError
        failure = await self._supervisor.verdict()
        if self._in_flight.sending:
            await self._in_flight.all_sent_or_refused()
        waiting = self._in_flight.requests
        if waiting:
            await trio.lowlevel.checkpoint()
            if waiting:
                self._supervisor.failure_seen = failure is not None
                return self._unanswered_one(waiting.pop(next(iter(waiting))), failure or self._ended_early())
        if failure is None:
            raise trio.EndOfChannel
        self._supervisor.failure_seen = True
        raise failure.with_traceback(None)

    def _unanswered_one(self, request: Request, loss: TransportError) -> Undelivered:
        if self._supervisor.never_took(request):
            self._not_sent = self._not_sent or not_sent(loss)
            return Undelivered.of(request, self._not_sent)
        return attrs.evolve(Undelivered.of(request, loss), outcome="unknown")  # the loss may say not_sent

    def _ended_early(self) -> TransportError:
        """The one error of all requests that the peer's end leaves unanswered."""
        if self._unanswered is None:
            target = self._supervisor.settings.target
            self._unanswered = self._supervisor.unanswered or ConnectionLost(
                "the peer ended the connection before it answered", target=target
            )
        return self._unanswered


def _sent_too_late(failure: TransportError | None, target: str) -> TransportError:
    """The error of a send after the end: that message was not sent, even if the outcome of others is unknown."""
    error = ConnectionLost("the connection is over", target=target, outcome="not_sent")
    if isinstance(failure, ConnectionLost):
        error = ConnectionLost(
            failure.reason,
            target=failure.target,
            hint=failure.hint,
            outcome="not_sent",
            retryable=failure.retryable,
            exit_code=failure.exit_code,
            stderr_tail=failure.stderr_tail,
        )
    error.__cause__ = failure
    return error


def message_channels(frames: FrameChannels, supervisor: Supervisor) -> MessageChannels:
    """The channels of messages over those of frames."""
    in_flight = _InFlight(supervisor.requests)
    refusals = Refusals(frames.send, supervisor) if supervisor.answers_unreadable else None
    return MessageChannels(
        _MessageSend(frames.send, supervisor, in_flight),
        _MessageReceive(frames, supervisor, in_flight, refusals),
    )
