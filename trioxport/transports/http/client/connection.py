"""One connection of an HTTP client: posts the frames that are sent, each request in a task of its own."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from trioxport._diagnostics import logger
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectError, ConnectionLost, RequestTimeout, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Notification, Request, Response
from trioxport.protocol import CANCELLED, as_id, members_of
from trioxport.transports._batched import BatchedReceive
from trioxport.transports._queues import BoundedQueue, ending
from trioxport.transports._request_queue import RequestQueue, RequestSlots
from trioxport.transports.http import failures
from trioxport.transports.http.client import era_cache
from trioxport.transports.http.client.exchange import PendingRequest, RequestState
from trioxport.transports.http.client.http_sse import HttpSseClient
from trioxport.transports.http.client.options import HttpOptions
from trioxport.transports.http.client.responses import ResponseReader
from trioxport.transports.http.client.session import ClientSession
from trioxport.transports.http.client.stack.types import HTTPEndpoint, WireEnd
from trioxport.transports.http.client.streamable import Streamable

FLUSH_SHARE: Final = 0.5
"""The part of ``close_timeout`` for sending what was accepted; the rest is for ending the session."""


@asynccontextmanager
async def open_channels(endpoint: HTTPEndpoint, scope: Scope, options: HttpOptions) -> AsyncGenerator[FrameChannels]:
    """Open the channels of a connection to ``endpoint``, which stays the caller's to close. Raises ``ConnectError``."""
    limit = scope.settings.limits.max_buffered_messages
    to_wire, outgoing = trio.open_memory_channel[Frame](limit)
    incoming = BoundedQueue[list[Frame]](min(1, limit))
    from_wire = BatchedReceive(incoming)
    queue = RequestQueue(to_wire, max(1, limit))
    with to_wire, ending(incoming):
        async with trio.open_nursery() as nursery:
            client = _HttpClient(endpoint, scope, options, queue, incoming, nursery)
            await client.open()
            nursery.start_soon(client.run, outgoing)
            if endpoint.end is not None:
                nursery.start_soon(client.follow_end, endpoint.end)
            yield FrameChannels(queue, from_wire, "http", endpoint.peer)
            from_wire.close()
            queue.close()
            await client.leave()
            nursery.cancel_scope.cancel()


class _HttpClient:
    def __init__(
        self,
        endpoint: HTTPEndpoint,
        scope: Scope,
        options: HttpOptions,
        queue: RequestQueue,
        incoming: BoundedQueue[list[Frame]],
        nursery: trio.Nursery,
    ) -> None:
        self._endpoint = endpoint
        self._scope = scope
        self._options = options
        self._queue = queue
        self._incoming = incoming
        self._nursery = nursery
        self._batch_size = max(1, scope.settings.limits.max_buffered_messages)
        self._url = endpoint.url
        self._session = ClientSession(scope, self._url)
        self._slots = RequestSlots(options.max_concurrency)
        self._pending: set[PendingRequest] = set()
        self._changed = trio.lowlevel.ParkingLot()
        self._all_posted = trio.Event()
        self._posting = trio.CancelScope()
        self._ended = False
        self._streamable = Streamable(
            self._session,
            ResponseReader(scope, self._session, endpoint, self._deliver),
            options,
            nursery,
            changed=self._changed.unpark_all,
            fall_back=self._fall_back,
        )
        self._binding: Streamable | HttpSseClient = self._streamable

    async def open(self) -> None:
        """Open the stream of HTTP+SSE if that is the binding. Raises ``ConnectError``."""
        known = era_cache.known(self._url)
        if self._options.binding == "sse":
            await self._open_http_sse()
        elif known == "sse" and self._options.binding == "auto":
            try:
                await self._open_http_sse()
            except TransportError:
                era_cache.forget(self._url)
        elif known in ("modern", "legacy"):
            self._scope.info.era = known

    async def run(self, outgoing: trio.MemoryReceiveChannel[Frame]) -> None:
        """Post every frame that is sent; once all requests are answered, the peer is done."""
        self._queue.start = self._start_frame
        try:
            with outgoing, self._posting:
                async for frame in outgoing:
                    await self._dispatch(frame)
                    self._queue.note_dispatched()
        finally:
            self._queue.start = None
        self._all_posted.set()
        await self._until(lambda: not self._pending)
        self._binding.close()
        self._scope.peer_done()
        self._incoming.end()

    async def follow_end(self, end: WireEnd) -> None:
        """End with the only connection to the server, once everything that it brought is delivered."""
        await end.over.wait()
        self._note_end()
        await self._until(lambda: not self._pending)
        self._posting.cancel()
        await self._end(end.loss)

    async def leave(self) -> None:
        """Wait until everything is posted, but not for answers that have begun: the application reads no more."""
        if self._ended:
            return
        timeout = self._scope.settings.close_timeout
        with trio.move_on_after(timeout * FLUSH_SHARE):
            await self._all_posted.wait()
            await self._until(lambda: all(map(_is_flushed, self._pending)))
        if not self._all_posted.is_set():
            self._scope.lost(ConnectionLost("closed before everything that was sent could be posted"))
        for pending in self._pending:
            pending.cancel()
        self._binding.close()
        with trio.move_on_after(timeout * (1 - FLUSH_SHARE)):
            await self._streamable.end()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.park()

    # Receiving.

    async def _deliver(self, frames: list[Frame]) -> None:
        for start in range(0, len(frames), self._batch_size):
            try:
                await self._incoming.send(frames[start : start + self._batch_size])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the application has closed its receiving side

    async def _report(self, frame: Frame, error: TransportError) -> None:
        error.target = error.target or self._scope.settings.target
        await self._deliver([Frame(b"", frame.message, error=error)])

    # HTTP+SSE.

    async def _open_http_sse(self) -> None:
        client = HttpSseClient(self._endpoint, self._scope, self._session, self._deliver, self._end)
        await client.open(self._nursery, self._options.connect_timeout)
        self._binding = client

    async def _fall_back(self, pending: PendingRequest) -> bool:
        """Send a request over HTTP+SSE, if the server speaks that. Raises the errors of ``HttpSseClient.send``."""
        try:
            await self._open_http_sse()
        except TransportError as error:
            logger.debug("%s: no HTTP+SSE either: %s", self._scope.settings.target, error)
            return False
        await self._binding.send(pending)
        return True

    async def _end(self, loss: TransportError | None) -> None:
        """End the connection with the stream that carries all answers."""
        self._note_end()
        if loss is not None:
            self._scope.lost(loss)
        unsent = [pending for pending in self._pending if not pending.is_sent]
        for pending in self._pending:
            pending.cancel()
        for pending in unsent:
            await self._report(pending.frame, _too_late())
        self._incoming.end()

    def _note_end(self) -> None:
        self._ended = True
        self._queue.start = None

    # Sending.

    def _start_frame(self, frame: Frame) -> None:
        assert isinstance(frame.message, Request)
        self._start(PendingRequest(frame, frame.message))

    async def _dispatch(self, frame: Frame) -> None:
        message = frame.message
        if self._ended:
            await self._report(frame, _too_late())
        elif isinstance(message, Request):
            self._start(PendingRequest(frame, message))
        elif isinstance(message, Notification) and message.method == CANCELLED:
            await self._dispatch_cancellation(frame, message)
        elif isinstance(message, Response | ErrorResponse) and self._session.era != "legacy":
            await self._report(frame, UsageError("a client sends no responses in the modern era"))
        else:
            await self._post_one_way(frame)

    async def _dispatch_cancellation(self, frame: Frame, message: Notification) -> None:
        """Cancel a request. Only a legacy server is notified; in the modern era closing the stream is the notice."""
        request_id = as_id(members_of(message.params).get("requestId"))
        unanswered = (each for each in self._pending if each.request.id == request_id and not each.is_answered)
        pending = next(unanswered, None)
        if self._session.era == "legacy" and (pending is None or pending.is_sent):
            await self._post_one_way(frame)
        if pending is not None and not pending.is_answered:
            pending.cancel()

    def _start(self, pending: PendingRequest) -> None:
        """Begin a request, or queue it for a slot. A subscription takes none."""
        self._session.begin(pending.frame)
        if not pending.listening:
            self._slots.enter(pending)
        self._pending.add(pending)
        self._nursery.start_soon(self._run_request, pending)

    async def _run_request(self, pending: PendingRequest) -> None:
        try:
            failure = await self._failure_of(pending)
            if failure is not None and not pending.is_settled:
                await self._report(pending.frame, failure)
        finally:
            if not pending.listening:
                self._slots.leave(pending)
            self._pending.discard(pending)
            self._changed.unpark_all()

    async def _failure_of(self, pending: PendingRequest) -> TransportError | None:
        """Send a request and deliver its answer. Returns the failure if none comes."""
        timeout = math.inf if pending.listening else self._options.total_timeout
        with pending.scope:
            if not await self._acquire_slot(pending):
                others = f"the {self._options.max_concurrency} requests in flight"
                reason = f"none of {others} ended within {self._options.pool_timeout:g} s"
                return ConnectError(reason, hint="Raise max_concurrency")
            pending.mark_sent()
            pending.scope.deadline = trio.current_time() + timeout
            try:
                await self._binding.send(pending)
            except Exception as error:
                return failures.of_request(error, accepted=pending.is_accepted)
        if pending.scope.cancelled_caught:
            return RequestTimeout(f"no answer within {timeout:g} s", hint="Raise total_timeout")
        return None

    async def _acquire_slot(self, pending: PendingRequest) -> bool:
        """Wait for the slot of a request, and make room in the queue; return whether it got the slot in time."""
        try:
            if self._slots.is_waiting(pending):
                with trio.move_on_after(self._options.pool_timeout):
                    await self._slots.wait(pending)
            return not self._slots.is_waiting(pending)
        finally:
            self._queue.make_room()

    async def _post_one_way(self, frame: Frame) -> None:
        """Post a message that has no answer, and wait until it is accepted, so that later messages arrive later."""
        timeout = self._options.total_timeout
        failure: TransportError | None = RequestTimeout(f"not accepted within {timeout:g} s")
        with trio.move_on_after(timeout):
            try:
                await self._binding.post(frame)
                failure = None
            except Exception as error:
                failure = failures.of_exchange(error)
        if failure is not None:
            await self._report(frame, failure)


def _is_flushed(pending: PendingRequest) -> bool:
    """Whether leaving need not wait for a request: the server has begun to respond to it, or it is a subscription."""
    return pending.listening or pending.state >= RequestState.RESPONDING


def _too_late() -> TransportError:
    return ConnectionLost("the connection was over before this was sent", outcome="not_sent")
