"""The client's side of one connection: posts what is sent, each request in a task of its own, and follows streams."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trioxport._rpc import CANCELLED, members_of
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectError, ConnectionLost, RequestTimeout, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Notification, Request, Response
from trioxport.transports._batched import BatchedReceive
from trioxport.transports.http import _failures
from trioxport.transports.http._exchange import Answers, Exchange
from trioxport.transports.http._listening import end_session, listen
from trioxport.transports.http._session import Session
from trioxport.transports.http._wire import Wire

LISTEN: Final = "subscriptions/listen"
LEAVING_SHARE: Final = 0.5
"""The part of ``close_timeout`` that requests in flight get; the rest is for ending the session."""


@attrs.frozen
class Patience:
    """How much a client bears.

    Args:
        total: Seconds for the whole of a request.
        pool: Seconds that a request may wait for others to end.
        concurrency: Requests in flight at the same time.
    """

    total: float
    pool: float
    concurrency: int


@asynccontextmanager
async def converse(wire: Wire, scope: Scope, patience: Patience) -> AsyncGenerator[FrameChannels]:
    """Frames over ``wire``, which stays the caller's to close."""
    scope.info.carries = "http"
    to_wire, outgoing = trio.open_memory_channel[Frame](scope.limits.max_buffered_messages)
    incoming, batches = trio.open_memory_channel[list[Frame]](min(1, scope.limits.max_buffered_messages))
    from_wire = BatchedReceive(batches)
    with to_wire, batches, incoming:
        async with trio.open_nursery() as nursery:
            client = _Client(wire, scope, patience, outgoing, incoming, nursery)
            nursery.start_soon(client.run)
            yield FrameChannels(to_wire, from_wire)
            from_wire.close()
            to_wire.close()
            await client.leave()
            nursery.cancel_scope.cancel()


class _Client:
    def __init__(
        self,
        wire: Wire,
        scope: Scope,
        patience: Patience,
        outgoing: trio.MemoryReceiveChannel[Frame],
        incoming: trio.MemorySendChannel[list[Frame]],
        nursery: trio.Nursery,
    ) -> None:
        self._wire = wire
        self._scope = scope
        self._patience = patience
        self._outgoing = outgoing
        self._incoming = incoming
        self._nursery = nursery
        self._batch_size = max(1, scope.limits.max_buffered_messages)
        self._session = Session(scope)
        self._answers = Answers(scope, self._session, wire, self._deliver)
        self._slots = trio.CapacityLimiter(patience.concurrency)
        self._exchanges: set[Exchange] = set()
        self._changed = trio.lowlevel.ParkingLot()
        self._all_posted = trio.Event()
        self._listening = trio.CancelScope()

    async def run(self) -> None:
        """Post everything that is sent; then the peer is done once everything is answered."""
        with self._outgoing:
            async for frame in self._outgoing:
                await self._dispatch(frame)
        self._all_posted.set()
        await self._until(lambda: not self._exchanges)
        self._listening.cancel()
        self._scope.peer_done()
        self._incoming.close()

    async def leave(self) -> None:
        """Wait for what has to be sent, but for no answer that has begun to come: nobody reads it."""
        with trio.move_on_after(self._scope.close_timeout * LEAVING_SHARE):
            await self._all_posted.wait()
            await self._until(lambda: all(exchange.started or exchange.listening for exchange in self._exchanges))
        if not self._all_posted.is_set():
            self._scope.lost(ConnectionLost("closed before everything that was sent could be posted"))
        for exchange in self._exchanges:
            exchange.cancelled = True
            exchange.scope.cancel()
        self._listening.cancel()
        if self._session.id is not None:
            with trio.move_on_after(self._scope.close_timeout * (1 - LEAVING_SHARE)):
                await end_session(self._wire, self._session)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.park()

    async def _deliver(self, frames: list[Frame]) -> None:
        for start in range(0, len(frames), self._batch_size):
            try:
                await self._incoming.send(frames[start : start + self._batch_size])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # nobody reads any more

    async def _report(self, frame: Frame, error: TransportError) -> None:
        error.target = error.target or self._scope.target
        await self._deliver([Frame(b"", frame.message, error=error)])

    # Sending.

    async def _dispatch(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Request):
            await self._start(Exchange(frame, message, listening=message.method == LISTEN))
        elif isinstance(message, Notification) and message.method == CANCELLED and self._session.era != "legacy":
            self._cancel(message)
        elif isinstance(message, Response | ErrorResponse) and self._session.era != "legacy":
            await self._report(frame, UsageError("a client sends no responses in the modern era"))
        else:
            await self._post_one_way(frame)
            if isinstance(message, Notification) and message.method == CANCELLED:
                self._cancel(message)

    def _cancel(self, notification: Notification) -> None:
        request_id = members_of(notification.params).get("requestId")
        for exchange in self._exchanges:
            if exchange.request.id == request_id and not exchange.answered:
                exchange.cancelled = True
                exchange.scope.cancel()

    async def _start(self, exchange: Exchange) -> None:
        """Begin an exchange, once it is its turn. A stream for listening takes nobody's turn."""
        self._session.begin(exchange.request)
        if not exchange.listening:
            with trio.move_on_after(self._patience.pool) as waiting:
                await self._slots.acquire_on_behalf_of(exchange)
            if waiting.cancelled_caught:
                others = f"the {self._patience.concurrency} requests in flight"
                reason = f"none of {others} ended within {self._patience.pool:g} s"
                await self._report(exchange.frame, ConnectError(reason, hint="Raise max_concurrency"))
                return
        self._exchanges.add(exchange)
        self._nursery.start_soon(self._carry, exchange)

    async def _carry(self, exchange: Exchange) -> None:
        try:
            failure = await self._failure_of(exchange)
            if failure is not None and not exchange.answered and not exchange.cancelled:
                await self._report(exchange.frame, failure)
        finally:
            if not exchange.listening:
                self._slots.release_on_behalf_of(exchange)
            self._exchanges.discard(exchange)
            self._changed.unpark_all()

    async def _failure_of(self, exchange: Exchange) -> TransportError | None:
        total = math.inf if exchange.listening else self._patience.total
        exchange.scope.deadline = trio.current_time() + total
        with exchange.scope:
            try:
                fields = self._session.post_fields(exchange.frame)
                async with self._wire.exchange("POST", fields, exchange.frame.payload, patient=exchange.listening) as (
                    response,
                    body,
                ):
                    exchange.started = True
                    self._session.heard(response)
                    self._changed.unpark_all()
                    await self._answers.take(exchange, response, body)
            except Exception as error:
                return _failures.of_exchange(error)
        if exchange.scope.cancelled_caught:
            return RequestTimeout(f"no answer within {total:g} s", hint="Raise total_timeout")
        return None

    async def _post_one_way(self, frame: Frame) -> None:
        """Post a message that has no answer, and wait until it is accepted: so those after it come after it."""
        failure: TransportError | None = RequestTimeout(f"not accepted within {self._patience.total:g} s")
        with trio.move_on_after(self._patience.total):
            failure = await self._one_way_failure(frame)
        if failure is not None:
            await self._report(frame, failure)
        elif isinstance(frame.message, Notification) and frame.message.method == "notifications/initialized":
            self._listening.cancel()
            self._listening = trio.CancelScope()
            self._nursery.start_soon(listen, self._wire, self._session, self._answers, self._listening)

    async def _one_way_failure(self, frame: Frame) -> TransportError | None:
        has_session = self._session.id is not None
        try:
            async with self._wire.exchange("POST", self._session.post_fields(frame), frame.payload) as (response, body):
                self._session.heard(response)
                if response.is_success:
                    await body.whole(self._scope.limits.max_message_size)
                    return None
                return _failures.of_status(response, self._wire.url, has_session=has_session)
        except Exception as error:
            return _failures.of_exchange(error)
