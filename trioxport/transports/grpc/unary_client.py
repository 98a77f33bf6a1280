"""A client that makes a call for each request."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import AuthenticationError, ConnectionLost, RequestTimeout, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Notification, Request, RequestId, Response
from trioxport.protocol import CANCELLED, INITIALIZE, as_id, members_of
from trioxport.transports._http2 import Http2Error, Http2Stream, StreamReset
from trioxport.transports._request_queue import RequestQueue, RequestSlots
from trioxport.transports.grpc.calls import check_head, loss_of, missing_status, start_call
from trioxport.transports.grpc.channel import Channel
from trioxport.transports.grpc.channel_pool import ChannelPool
from trioxport.transports.grpc.messages import MessageReader, MessageWriter
from trioxport.transports.grpc.options import GrpcOptions
from trioxport.transports.grpc.status import CallStatus, StatusCode

FLUSH_SHARE: Final = 0.5
"""The part of ``close_timeout`` for sending what was accepted."""


@asynccontextmanager
async def open_unary_client(options: GrpcOptions, scope: Scope) -> AsyncGenerator[FrameChannels]:
    """Open the channels of a client. Raises ``ConnectError`` if the server cannot be reached."""
    limit = scope.settings.limits.max_buffered_messages
    to_wire, outgoing = trio.open_memory_channel[Frame](limit)
    incoming, from_wire = trio.open_memory_channel[Frame](limit)
    queue = RequestQueue(to_wire, max(1, limit))
    with to_wire, incoming:
        async with trio.open_nursery() as nursery:
            pool = ChannelPool(options, scope, nursery)
            first = await pool.take()
            pool.put_back(first)
            calls = _UnaryCalls(options, scope, pool, queue, incoming, nursery)
            nursery.start_soon(calls.run, outgoing)
            yield FrameChannels(queue, from_wire, "bytes", first.channel.peer)
            from_wire.close()
            queue.close()
            await calls.leave()
            pool.close()
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class PendingCall:
    """A request, and the scope of its call; cancelling it resets the stream."""

    frame: Frame
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    is_sent: bool = False


class _UnaryCalls:
    """The calls of one connection, each in a task of its own."""

    def __init__(
        self,
        options: GrpcOptions,
        scope: Scope,
        pool: ChannelPool,
        queue: RequestQueue,
        incoming: trio.MemorySendChannel[Frame],
        nursery: trio.Nursery,
    ) -> None:
        self._options = options
        self._scope = scope
        self._pool = pool
        self._queue = queue
        self._incoming = incoming
        self._nursery = nursery
        self._slots = RequestSlots(options.max_concurrency)
        self._writer = MessageWriter(gzip=options.gzip)
        self._pending: dict[RequestId, PendingCall] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._has_ended = False

    async def run(self, outgoing: trio.MemoryReceiveChannel[Frame]) -> None:
        """Make a call for every frame that is sent; once all have their answers, the server is done."""
        with outgoing:
            async for frame in outgoing:
                await self._dispatch(frame)
        self._has_ended = True
        self._changed.unpark_all()
        await self._until(lambda: not self._pending)
        self._scope.peer_done()
        self._incoming.close()

    async def leave(self) -> None:
        """Wait until everything is sent, but not for answers: the application reads no more."""
        with trio.move_on_after(self._scope.settings.close_timeout * FLUSH_SHARE):
            await self._until(lambda: self._has_ended and all(each.is_sent for each in self._pending.values()))
        if not self._has_ended:
            self._scope.lost(ConnectionLost("closed before everything that was sent could be written"))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.park()

    async def _dispatch(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Request):
            pending = self._pending[message.id] = PendingCall(frame)
            self._slots.enter(pending)
            self._nursery.start_soon(self._answer, message.id, pending)
        elif isinstance(message, Notification) and message.method == CANCELLED:
            request_id = as_id(members_of(message.params).get("requestId"))
            if request_id is not None and request_id in self._pending:
                self._pending[request_id].scope.cancel()
        elif isinstance(message, Response | ErrorResponse):
            await self._report(frame, UsageError("a client sends no responses in the unary method"))
        else:
            await self._send_one_way(frame)

    async def _answer(self, request_id: RequestId, pending: PendingCall) -> None:
        try:
            failure = await self._failure_of(pending)
            if failure is not None and not pending.scope.cancel_called:
                await self._report(pending.frame, failure)
        finally:
            self._slots.leave(pending)
            if self._pending.get(request_id) is pending:
                del self._pending[request_id]
            self._changed.unpark_all()

    async def _failure_of(self, pending: PendingCall) -> TransportError | None:
        """Make the call of a request and deliver the answer. Returns the failure if none comes."""
        with pending.scope:
            try:
                await self._slots.wait(pending)
            finally:
                self._queue.make_room()
            return await self._within_deadline(pending)
        return None

    async def _send_one_way(self, frame: Frame) -> None:
        """Send a message without an answer, and wait until it is accepted, so that later messages arrive later."""
        failure = await self._within_deadline(PendingCall(frame))
        if failure is not None:
            await self._report(frame, failure)

    async def _within_deadline(self, pending: PendingCall) -> TransportError | None:
        seconds = math.inf if self._options.deadline is None else self._options.deadline
        with trio.move_on_after(seconds):
            try:
                await self._exchange(pending)
            except TransportError as error:
                return error
            return None
        return RequestTimeout(f"no answer within {seconds:g} s", hint="Raise deadline")

    # One call.

    async def _exchange(self, pending: PendingCall) -> None:
        """Make a call with the credentials; once more with fresh ones if the server refuses them."""
        if isinstance(pending.frame.message, Request) and pending.frame.message.method == INITIALIZE:
            raise UsageError(
                "the unary method carries the modern era alone",
                hint="Leave out the method, which makes one call for all messages, or negotiate the modern era",
            )
        auth = self._options.auth
        credentials: Mapping[str, str] = {} if auth is None else await auth.headers()
        try:
            await self._call_repeatedly(pending, credentials)
        except AuthenticationError:
            if auth is None or not await auth.refused(credentials):
                raise
            await self._call_repeatedly(pending, await auth.headers())

    async def _call_repeatedly(self, pending: PendingCall, credentials: Mapping[str, str]) -> None:
        """Make a call, and once more on a new connection if the server certainly has not seen it (gRPC, A6)."""
        try:
            await self._call(pending, credentials)
        except ConnectionLost as loss:
            if not isinstance(loss.__cause__, Http2Error) or loss.outcome != "not_sent":
                raise
            await self._call(pending, credentials)

    async def _call(self, pending: PendingCall, credentials: Mapping[str, str]) -> None:
        held = await self._pool.take()
        try:
            with await start_call(held.channel, self._options, credentials) as stream:
                try:
                    await stream.send_data(self._writer.encode(pending.frame.payload), end_stream=True)
                except StreamReset:
                    if not stream.status:  # else the server has answered before it had the whole request
                        raise
                pending.is_sent = True
                self._changed.unpark_all()
                await self._deliver_answer(stream, pending.frame, held.channel)
        except Http2Error as error:
            raise loss_of(error, held.channel) from error
        finally:
            self._pool.put_back(held)

    async def _deliver_answer(self, stream: Http2Stream, frame: Frame, channel: Channel) -> None:
        """Deliver the answer to a request. Raises ``TransportError`` or ``Http2Error`` if there is none."""
        headers = await check_head(stream, self._scope.settings.target)
        reader = MessageReader(self._scope.settings.limits.max_message_size, headers.get("grpc-encoding", "identity"))
        try:
            frames = await reader.only(stream)
        except ValueError as error:
            raise ConnectionLost(f"the server sent what is not gRPC: {error}", retryable=False) from error
        if len(frames) > 1:
            raise ConnectionLost("the server answered a unary call with more than one message", retryable=False)
        status = CallStatus.of(stream.trailers) or CallStatus.of(stream.headers)
        if status is None:
            raise missing_status()
        if status.code is not StatusCode.OK:
            raise status.failure()
        if isinstance(frame.message, Request):
            if not frames or (not frames[0].payload and frames[0].error is None):
                raise ConnectionLost("the server ended the call without a response", retryable=False)
            await self._deliver(frames[0])

    async def _report(self, frame: Frame, error: TransportError) -> None:
        error.target = error.target or self._scope.settings.target
        await self._deliver(Frame(b"", frame.message, error=error))

    async def _deliver(self, frame: Frame) -> None:
        try:
            await self._incoming.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the application has closed its receiving side
