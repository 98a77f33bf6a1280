"""Operations: what was asked for, from when it is sent or received until it is settled. Each ends exactly once.

Tracing and Metrics watch the same thing: which answer belongs to which request, in both directions, and all the ways in
which there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.interruption import Interruptible, interrupt_of
from trioxport.abc import MessageChannels, Scope
from trioxport.errors import Outcome, TransportError
from trioxport.layers._support import ANSWERS
from trioxport.messages import ErrorResponse, Incoming, Message, Notification, Request, RequestId, Response, Undelivered
from trioxport.protocol import LISTEN, cancelled_id, members_of

NOT_THE_SERVERS_FAULT: Final = frozenset({-32700, -32600, -32601, -32602, -32002})
"""Codes that blame the client; not counted as errors of the server that sent them."""


@attrs.frozen
class Failure:
    """The failure of an operation.

    Args:
        type: The ``error.type``; None for an error response that blames the other side.
        reason: One sentence; in trioxport's own texts without credentials.
        code: The code of an error response.
        outcome: The outcome of an undelivered message.
    """

    type: str | None
    reason: str = ""
    code: int | None = None
    outcome: Outcome | None = None


WAS_CANCELLED: Final = Failure("cancelled", "the request was cancelled")
UNANSWERED: Final = Failure("unanswered", "the connection was closed before there was an answer")
TOOL_ERROR: Final = Failure("tool_error", "")


class Operation(Protocol):
    """One operation, as a watcher records it."""

    @property
    def method(self) -> str: ...
    @property
    def original(self) -> Request | None:
        """The request as the application sent it, where the watcher changed it."""
        ...

    def end(self, failure: Failure | None, answer: Incoming | None) -> None:
        """End the operation: by ``answer`` if there is one, successfully if there is no ``failure``."""
        ...


class Watcher(Protocol):
    """An observer of operations, which may change the message that begins one."""

    def sending(self, message: Request | Notification) -> tuple[Request | Notification, Operation | None]: ...
    def received(self, message: Request | Notification) -> tuple[Request | Notification, Operation | None]: ...
    def lost(self, error: TransportError) -> None:
        """Record the loss of the connection that the application sees."""
        ...


def watched(channels: MessageChannels, scope: Scope, watcher: Watcher) -> MessageChannels:
    """Wrap the channels so that ``watcher`` sees each operation; those open at the end of the connection are ended."""
    open_operations = _Open()
    scope.defer(open_operations.close)
    return MessageChannels(
        _WatchedSend(channels.send, open_operations, watcher.sending),
        _WatchedReceive(channels.receive, open_operations, watcher),
    )


@attrs.define
class _Open:
    """The requests that are not settled: those of this side, and those of the other."""

    ours: dict[RequestId, Operation] = attrs.Factory(dict[RequestId, Operation])
    theirs: dict[RequestId, Operation] = attrs.Factory(dict[RequestId, Operation])

    def cancelled_there(self, request_id: RequestId) -> None:
        """The other side cancels its own request; or, being the server of a subscription, ends that."""
        operation = self.theirs.pop(request_id, None)
        if operation is None and request_id in self.ours and self.ours[request_id].method == LISTEN:
            operation = self.ours.pop(request_id)
        if operation is not None:
            operation.end(WAS_CANCELLED, None)

    def close(self) -> None:
        for operations in (self.ours, self.theirs):
            while operations:
                operations.popitem()[1].end(UNANSWERED, None)


class _WatchedSend(SendChannel[Message]):
    def __init__(
        self,
        inner: SendChannel[Message],
        operations: _Open,
        begin: Callable[[Request | Notification], tuple[Request | Notification, Operation | None]],
    ) -> None:
        self._inner = inner
        self._open = operations
        self._begin = begin

    async def send(self, value: Message) -> None:
        if type(value) is not Request:
            return await self._send_other(value)
        ours = self._open.ours
        if value.id in ours:  # the codec refuses it
            return await self._inner.send(value)
        message, operation = self._begin(value)
        if operation is None:
            return await self._inner.send(message)
        ours[value.id] = operation
        try:
            await self._inner.send(message)
        except BaseException as error:
            _end(ours, value.id, operation, failure_by(error))
            raise

    async def _send_other(self, message: Message) -> None:
        if type(message) is Notification:
            await self._send_notification(message)
            return
        theirs = self._open.theirs
        answered = theirs.get(message.id) if isinstance(message, ANSWERS) and message.id is not None else None
        await self._inner.send(message)  # which refuses what is no message
        assert isinstance(message, ANSWERS)
        _end(theirs, message.id, answered, failure_of(message, served=True), message)

    async def _send_notification(self, notification: Notification) -> None:
        message, operation = self._begin(notification)
        ours, request_id = self._open.ours, cancelled_id(notification)
        cancelled = None if request_id is None else ours.get(request_id)
        try:
            await self._inner.send(message)
        except BaseException as error:
            if operation is not None:
                operation.end(failure_by(error), None)
            raise
        if operation is not None:
            operation.end(None, None)
        _end(ours, request_id, cancelled, WAS_CANCELLED)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _WatchedReceive(Interruptible, ReceiveChannel[Incoming]):
    def __init__(self, inner: ReceiveChannel[Incoming], operations: _Open, watcher: Watcher) -> None:
        self._inner = inner
        self._open = operations
        self._begin = watcher.received
        self._lost = watcher.lost

    @property
    def interrupt(self) -> Callable[[], None] | None:
        return interrupt_of(self._inner)

    async def receive(self) -> Incoming:
        try:
            message = await self._inner.receive()
        except TransportError as error:
            self._lost(error)
            raise
        if type(message) is Request:
            return self._request(message)
        if type(message) is Notification:
            return self._notification(message)
        assert isinstance(message, ANSWERS)
        operation = None if message.id is None else self._open.ours.pop(message.id, None)
        if operation is None:
            return message
        operation.end(failure_of(message, served=False), message)
        if isinstance(message, Undelivered) and operation.original is not None:
            return attrs.evolve(message, original=operation.original)
        return message

    def _request(self, request: Request) -> Incoming:
        message, operation = self._begin(request)
        if operation is not None:
            replaced = self._open.theirs.pop(request.id, None)
            if replaced is not None:  # two requests of one id: an answer may be for either
                replaced.end(UNANSWERED, None)
            self._open.theirs[request.id] = operation
        return message

    def _notification(self, notification: Notification) -> Incoming:
        message, operation = self._begin(notification)
        if operation is not None:
            operation.end(None, None)
        if (request_id := cancelled_id(notification)) is not None:
            self._open.cancelled_there(request_id)
        return message

    async def aclose(self) -> None:
        await self._inner.aclose()


def _end(
    operations: dict[RequestId, Operation],
    request_id: RequestId | None,
    operation: Operation | None,
    failure: Failure | None,
    answer: Incoming | None = None,
) -> None:
    """End an operation, unless it has ended, and its id is free or that of another one."""
    if operation is not None and request_id is not None and operations.get(request_id) is operation:
        del operations[request_id]
        operation.end(failure, answer)


def failure_of(answer: Response | ErrorResponse, *, served: bool) -> Failure | None:
    """The failure that an answer reports; ``served``: as the side that sent the answer sees it."""
    if type(answer) is Response:
        return TOOL_ERROR if members_of(answer.result).get("isError") is True else None
    assert isinstance(answer, ErrorResponse)
    if isinstance(answer, Undelivered):
        return Failure(type(answer.cause).__name__, answer.cause.reason, outcome=answer.outcome)
    kind = None if served and answer.code in NOT_THE_SERVERS_FAULT else str(answer.code)
    return Failure(kind, answer.message, answer.code)


def failure_by(error: BaseException) -> Failure:
    """The failure of a message whose ``send`` raised ``error``."""
    if isinstance(error, trio.Cancelled):
        return WAS_CANCELLED
    if isinstance(error, TransportError):
        return Failure(type(error).__name__, error.reason, outcome=error.outcome)
    return Failure(type(error).__name__)
