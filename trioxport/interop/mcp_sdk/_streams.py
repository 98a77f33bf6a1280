"""Adapters of a connection's channels to the SDK's streams: its messages, and anyio's exceptions."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
import trio
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import MessageMetadata, SessionMessage
from mcp_types import INVALID_PARAMS, JSONRPCRequest
from trio.abc import ReceiveChannel, SendChannel

from trioxport._diagnostics import logger
from trioxport.errors import ConnectionLost, TransportError
from trioxport.interop.mcp_sdk._convert import code_of, data_of, from_sdk, mcp_error, to_sdk
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
from trioxport.protocol import CANCELLED, LISTEN, members_of

Inbound: TypeAlias = Callable[[Incoming], MessageMetadata]
"""The SDK's metadata of a message that was received."""

HandlerContext: TypeAlias = Callable[[Incoming], contextvars.Context | None]
"""The context in which a message is handled; None for that of the stream's reader."""

Outbound: TypeAlias = Callable[[MessageMetadata], Mapping[str, Any]]
"""The metadata in trioxport of a message that the SDK sends."""


class UnansweredRequests:
    """The requests of a client that the SDK has not answered yet.

    The SDK cancels its handlers as soon as it reads the end of a stream, so the end waits for the answers. It does not
    wait for subscriptions, which have none before they end. As to the SDK, ``"7"`` and ``7`` are one id.

    Args:
        timeout: Seconds that the end waits at most.
    """

    def __init__(self, timeout: float) -> None:
        self._ids: set[RequestId] = set()
        self._timeout = timeout
        self._deadline: float | None = None
        self._changed = trio.lowlevel.ParkingLot()

    def note_received(self, message: Incoming) -> None:
        """Remember a request, or forget one that its client cancels."""
        if isinstance(message, Request) and message.method != LISTEN:
            self._ids.add(coerce_request_id(message.id))
        elif isinstance(message, Notification) and message.method == CANCELLED:
            self._forget(members_of(message.params).get("requestId"))

    def note_sent(self, message: Message) -> None:
        """Forget a request that was answered."""
        if isinstance(message, Response | ErrorResponse):
            self._forget(message.id)

    def _forget(self, request_id: object) -> None:
        if isinstance(request_id, str | int):
            self._ids.discard(coerce_request_id(request_id))
            self._changed.unpark_all()

    async def settled(self) -> None:
        """Wait until all are answered, or until the timeout after the first call."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self._timeout
        with trio.move_on_at(self._deadline):
            while self._ids:
                await self._changed.park()


class SDKReadStream:
    """The SDK's read stream over a receive channel.

    A failure without a message is an item of its own, as in the SDK; a lost connection is such an item, followed by
    the end. A request that the SDK has no form for is such an item, too, and answered here. A cancelled ``receive``
    loses nothing.

    Args:
        rx: The channel of received messages.
        tx: The channel for answers.
        inbound: Returns the SDK's metadata of a message.
        unanswered: On a server, the requests that the orderly end waits for.
        context: On a server, returns the context for the handler of a message.

    Attributes:
        last_context: The context for the message that was read last.
        loss: The latest loss of the connection that was read.
    """

    last_context: contextvars.Context | None = None

    def __init__(
        self,
        rx: ReceiveChannel[Incoming],
        tx: SendChannel[Message],
        inbound: Inbound,
        unanswered: UnansweredRequests | None = None,
        context: HandlerContext = lambda message: None,
    ) -> None:
        self._rx = rx
        self._tx = tx
        self._context = context
        self._inbound = inbound
        self._unanswered = unanswered
        self._ended = False
        self._first: SessionMessage | Exception | None = None
        self.loss: ConnectionLost | None = None

    async def begins_with(self, method: str) -> bool:
        """Wait for the first item, which stays the next one to receive, and return whether it calls ``method``."""
        try:
            self._first = await self.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return False
        message = self._first.message if isinstance(self._first, SessionMessage) else None
        return isinstance(message, JSONRPCRequest) and message.method == method

    async def receive(self) -> SessionMessage | Exception:
        """The next item. Raises ``anyio.EndOfStream`` and ``anyio.ClosedResourceError``."""
        if self._first is not None:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, None
            return first
        if self._ended:
            raise anyio.EndOfStream
        try:
            message = await self._rx.receive()
        except trio.EndOfChannel:
            if self._unanswered is not None:
                await self._unanswered.settled()
            raise anyio.EndOfStream from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except TransportError as error:
            self._ended = True
            self._note_loss(error)
            return error
        if isinstance(message, Undelivered):
            self._note_loss(message.cause)
        try:
            item = SessionMessage(to_sdk(message), self._inbound(message))
        except TransportError as error:
            if isinstance(message, Request):
                await self._refuse(message, error)
            return error
        if self._unanswered is not None:
            self._unanswered.note_received(message)
        self.last_context = self._context(message)
        return item

    async def _refuse(self, request: Request, error: TransportError) -> None:
        with suppress(trio.ClosedResourceError, TransportError):  # then the connection is over
            await self._tx.send(ErrorResponse(request.id, INVALID_PARAMS, str(error)))

    def _note_loss(self, error: TransportError) -> None:
        if isinstance(error, ConnectionLost):
            self.loss = error

    async def aclose(self) -> None:
        await self._rx.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class SDKWriteStream:
    """The SDK's write stream over a send channel.

    A message that cannot be sent raises ``MCPError``, which the SDK raises in its caller, or answers a request with. An
    answer of the latter kind would end the connection, so that an error goes out as the reason why it cannot be sent. A
    notification or response on a lost connection raises ``anyio.BrokenResourceError``.
    """

    def __init__(
        self, tx: SendChannel[Message], outbound: Outbound, unanswered: UnansweredRequests | None = None
    ) -> None:
        self._tx = tx
        self._outbound = outbound
        self._unanswered = unanswered

    async def send(self, item: SessionMessage, /) -> None:
        metadata = NOTHING if item.metadata is None else self._outbound(item.metadata)
        message = from_sdk(item.message, metadata)
        try:
            await self._send(message)
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except TransportError as error:
            if isinstance(error, ConnectionLost) and not isinstance(message, Request):
                raise anyio.BrokenResourceError from error
            raise mcp_error(error) from error
        finally:
            if self._unanswered is not None:
                self._unanswered.note_sent(message)

    async def _send(self, message: Message) -> None:
        try:
            await self._tx.send(message)
        except TransportError as error:
            if not isinstance(message, ErrorResponse) or isinstance(error, ConnectionLost):
                raise
            logger.warning("the error that answers a request cannot be sent: %s", error)
            await self._tx.send(ErrorResponse(message.id, code_of(error), str(error), data_of(error)))

    async def aclose(self) -> None:
        await self._tx.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
