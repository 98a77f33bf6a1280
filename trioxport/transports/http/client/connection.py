"""The client's side of one connection: posts what is sent, each request in a task of its own, and follows streams."""

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
from trioxport.protocol import CANCELLED, LISTEN, as_id, members_of
from trioxport.transports._batched import BatchedReceive
from trioxport.transports.http import failures
from trioxport.transports.http.client import era_cache
from trioxport.transports.http.client.exchange import PendingRequest, ResponseReader
from trioxport.transports.http.client.http_sse import HttpSseClient
from trioxport.transports.http.client.options import ClientSettings
from trioxport.transports.http.client.request_queue import RequestQueue, RequestSlots
from trioxport.transports.http.client.session import ClientSession
from trioxport.transports.http.client.stack.types import HTTPEndpoint
from trioxport.transports.http.client.streamable import Streamable

LEAVING_SHARE: Final = 0.5
"""The part of ``close_timeout`` that requests in flight get; the rest is for ending the session."""


@asynccontextmanager
async def converse(wire: HTTPEndpoint, scope: Scope, conduct: ClientSettings) -> AsyncGenerator[FrameChannels]:
    """Frames over ``wire``, which stays the caller's to close."""
    to_wire, outgoing = trio.open_memory_channel[Frame](scope.settings.limits.max_buffered_messages)
    incoming, batches = trio.open_memory_channel[list[Frame]](min(1, scope.settings.limits.max_buffered_messages))
    from_wire = BatchedReceive(batches)
    outbox = RequestQueue(to_wire, max(1, scope.settings.limits.max_buffered_messages))
    with to_wire, incoming:
        async with trio.open_nursery() as nursery:
            client = _HttpClient(wire, scope, conduct, outbox, incoming, nursery)
            await client.open()
            nursery.start_soon(client.run, outgoing)
            yield FrameChannels(outbox, from_wire, "http", wire.peer)
            from_wire.close()
            outbox.close()
            await client.leave()
            nursery.cancel_scope.cancel()


class _HttpClient:
    def __init__(
        self,
        wire: HTTPEndpoint,
        scope: Scope,
        conduct: ClientSettings,
        outbox: RequestQueue,
        incoming: trio.MemorySendChannel[list[Frame]],
        nursery: trio.Nursery,
    ) -> None:
        self._wire = wire
        self._scope = scope
        self._conduct = conduct
        self._outbox = outbox
        self._incoming = incoming
        self._nursery = nursery
        self._batch_size = max(1, scope.settings.limits.max_buffered_messages)
        self._url = wire.url
        self._session = ClientSession(scope, self._url)
        self._turns = RequestSlots(conduct.concurrency)
        self._exchanges: set[PendingRequest] = set()
        self._changed = trio.lowlevel.ParkingLot()
        self._all_posted = trio.Event()
        self._over = False
        self._streamable = Streamable(
            self._session,
            ResponseReader(scope, self._session, wire, self._deliver),
            conduct,
            nursery,
            changed=self._changed.unpark_all,
            fall_back=self._fall_back,
        )
        self._binding: Streamable | HttpSseClient = self._streamable

    async def open(self) -> None:
        """Do what has to be done before messages can be sent. Raises ``ConnectError``."""
        known = era_cache.known(self._url)
        if self._conduct.binding == "sse":
            await self._open_http_sse()
        elif known == "sse" and self._conduct.binding == "auto":
            try:
                await self._open_http_sse()
            except TransportError:
                era_cache.forget(self._url)
        elif known in ("modern", "legacy"):
            self._scope.info.era = known

    async def run(self, outgoing: trio.MemoryReceiveChannel[Frame]) -> None:
        """Post everything that is sent; then the peer is done once everything is answered."""
        with outgoing:
            async for frame in outgoing:
                await self._dispatch(frame)
        self._all_posted.set()
        await self._until(lambda: not self._exchanges)
        self._binding.close()
        self._scope.peer_done()
        self._incoming.close()

    async def leave(self) -> None:
        """Wait for what has to be sent, but for no answer that has begun to come: nobody reads it."""
        if self._over:
            return
        with trio.move_on_after(self._scope.settings.close_timeout * LEAVING_SHARE):
            await self._all_posted.wait()
            await self._until(lambda: all(exchange.started or exchange.listening for exchange in self._exchanges))
        if not self._all_posted.is_set():
            self._scope.lost(ConnectionLost("closed before everything that was sent could be posted"))
        for exchange in self._exchanges:
            exchange.cancel()
        self._binding.close()
        with trio.move_on_after(self._scope.settings.close_timeout * (1 - LEAVING_SHARE)):
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
                return  # nobody reads any more

    async def _report(self, frame: Frame, error: TransportError) -> None:
        error.target = error.target or self._scope.settings.target
        await self._deliver([Frame(b"", frame.message, error=error)])

    # HTTP+SSE.

    async def _open_http_sse(self) -> None:
        stream = HttpSseClient(self._wire, self._scope, self._session, self._deliver, self._end)
        await stream.open(self._nursery, self._conduct.connect)
        self._binding = stream

    async def _fall_back(self, exchange: PendingRequest) -> bool:
        """Carry a request over HTTP+SSE, if the server speaks that. Raises what ``HttpSseClient.carry`` does."""
        try:
            await self._open_http_sse()
        except TransportError as error:
            logger.debug("%s: no HTTP+SSE either: %s", self._scope.settings.target, error)
            return False
        await self._binding.carry(exchange)
        return True

    async def _end(self, loss: TransportError | None) -> None:
        """The stream on which everything is answered is over, and so is the connection."""
        self._over = True
        if loss is not None:
            self._scope.lost(loss)
        unsent = [exchange for exchange in self._exchanges if not exchange.sent]
        for exchange in self._exchanges:
            exchange.cancel()
        for exchange in unsent:
            await self._report(exchange.frame, _too_late())
        self._incoming.close()

    # Sending.

    async def _dispatch(self, frame: Frame) -> None:
        message = frame.message
        cancelled = self._cancelled_by(message)
        if self._over:
            await self._report(frame, _too_late())
        elif isinstance(message, Request):
            self._start(PendingRequest(frame, message, listening=message.method == LISTEN))
        elif cancelled is not None and not cancelled.sent:
            cancelled.cancel()
        elif isinstance(message, Notification) and message.method == CANCELLED and self._session.era != "legacy":
            if cancelled is not None:
                cancelled.cancel()
        elif isinstance(message, Response | ErrorResponse) and self._session.era != "legacy":
            await self._report(frame, UsageError("a client sends no responses in the modern era"))
        else:
            await self._post_one_way(frame)
            if cancelled is not None and not cancelled.answered:
                cancelled.cancel()

    def _cancelled_by(self, message: object) -> PendingRequest | None:
        if not isinstance(message, Notification) or message.method != CANCELLED:
            return None
        request_id = as_id(members_of(message.params).get("requestId"))
        waiting = (one for one in self._exchanges if one.request.id == request_id and not one.answered)
        return next(waiting, None)

    def _start(self, exchange: PendingRequest) -> None:
        """Begin an exchange, once it is its turn. A stream for listening takes nobody's turn."""
        self._session.begin(exchange.frame)
        if not exchange.listening:
            self._turns.join(exchange)
        self._exchanges.add(exchange)
        self._nursery.start_soon(self._carry, exchange)

    async def _carry(self, exchange: PendingRequest) -> None:
        try:
            failure = await self._failure_of(exchange)
            if failure is not None and not exchange.answered and not exchange.cancelled:
                await self._report(exchange.frame, failure)
        finally:
            if not exchange.listening:
                self._turns.leave(exchange)
            self._exchanges.discard(exchange)
            self._changed.unpark_all()

    async def _failure_of(self, exchange: PendingRequest) -> TransportError | None:
        total = math.inf if exchange.listening else self._conduct.total
        with exchange.scope:
            if not await self._has_its_turn(exchange):
                others = f"the {self._conduct.concurrency} requests in flight"
                reason = f"none of {others} ended within {self._conduct.pool:g} s"
                return ConnectError(reason, hint="Raise max_concurrency")
            exchange.sent = True
            exchange.scope.deadline = trio.current_time() + total
            try:
                await self._binding.carry(exchange)
            except Exception as error:
                return failures.of_request(error, accepted=exchange.accepted)
        if exchange.scope.cancelled_caught:
            return RequestTimeout(f"no answer within {total:g} s", hint="Raise total_timeout")
        return None

    async def _has_its_turn(self, exchange: PendingRequest) -> bool:
        """Wait for the turn of a request, and then make room behind it. Whether its turn came."""
        try:
            if self._turns.is_waiting(exchange):
                with trio.move_on_after(self._conduct.pool):
                    await self._turns.come(exchange)
            return not self._turns.is_waiting(exchange)
        finally:
            self._outbox.make_room()

    async def _post_one_way(self, frame: Frame) -> None:
        """Post a message that has no answer, and wait until it is accepted: so those after it come after it."""
        failure: TransportError | None = RequestTimeout(f"not accepted within {self._conduct.total:g} s")
        with trio.move_on_after(self._conduct.total):
            try:
                await self._binding.post(frame)
                failure = None
            except Exception as error:
                failure = failures.of_exchange(error)
        if failure is not None:
            await self._report(frame, failure)


def _too_late() -> TransportError:
    return ConnectionLost("the stream for answers was over before this was sent", outcome="not_sent")
