"""The requests and notifications of the other side: their handlers run in tasks, within bounds."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Generic, TypeAlias, TypeVar

import trio

from trioxport._core.nursery import failure_in
from trioxport._diagnostics import logger
from trioxport.connection import Connection
from trioxport.errors import MessageTooLarge, TransportError, UsageError
from trioxport.messages import ErrorResponse, Notification, Request, RequestId, Response
from trioxport.metadata import metadata_of
from trioxport.peer.outgoing import handled
from trioxport.protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    JSONRPCError,
)

MAX_RUNNING: Final = 256
"""Requests of the other side that are handled at once; the next is answered with an error."""
MAX_QUEUED: Final = 1024
"""Notifications that wait for their handlers; the next is dropped with a warning."""


NotificationHandler: TypeAlias = Callable[[Notification], Awaitable[object]]

Received = TypeVar("Received")
"""A request as its handler gets it."""


def _within(message: Request | Notification) -> AbstractContextManager[object]:
    """The context in which a layer has a message handled, such as the span of Tracing."""
    return metadata_of(message).get("within") or nullcontext()


async def _pong(request: object) -> dict[str, Any]:
    return {}


class IncomingRequests(Generic[Received]):
    """Runs the handlers of one peer.

    Args:
        connection: The connection that the messages come from, and the answers go to.
        tasks: The nursery of the handlers.
        requests: The handlers of requests, by method.
        notifications: The handlers of notifications, by method.
        as_received: Makes the object that a request's handler gets.
    """

    def __init__(
        self,
        connection: Connection,
        tasks: trio.Nursery,
        requests: Mapping[str, Callable[[Received], Awaitable[Any]]],
        notifications: Mapping[str, NotificationHandler],
        as_received: Callable[[Request], Received],
    ) -> None:
        self._connection = connection
        self._tx = connection.tx
        self._tasks = tasks
        self._as_received = as_received
        self._requests: dict[str, Callable[[Received], Awaitable[Any]]] = {"ping": _pong, **requests}
        self._notifications = dict(notifications)
        self._running: dict[RequestId, trio.CancelScope] = {}
        self._count = 0
        self._none_running = trio.lowlevel.ParkingLot()
        self._queue, self._queued = trio.open_memory_channel[Notification](MAX_QUEUED)
        self._queue_drained = trio.Event()
        self._queued_so_far = self._handled_so_far = 0
        self._handled_one = trio.lowlevel.ParkingLot()
        self._dropped = 0
        self._lost = False
        tasks.start_soon(self._run_notifications)

    async def take_request(self, request: Request) -> None:
        """Start the handler of a request, or refuse the request. Only sending a refusal may wait."""
        running = self._running.get(request.id)
        if running is not None and not running.cancel_called:  # a server that was started anew begins its ids anew
            await self._send(ErrorResponse(request.id, INVALID_REQUEST, "A request with this id is in flight"))
        elif self._count >= MAX_RUNNING:
            # To stop reading instead could be a deadlock: a running handler may wait for what has yet to be read.
            await self._send(ErrorResponse(request.id, INTERNAL_ERROR, f"More than {MAX_RUNNING} requests at once"))
        else:
            self._running[request.id] = scope = trio.CancelScope()
            self._count += 1
            self._tasks.start_soon(self._answer, request, scope)

    def take_notification(self, notification: Notification) -> None:
        """Queue a notification for its handler, if it has one."""
        if notification.method not in self._notifications:
            logger.debug("%s: no handler for %s", self._target, notification.method)
            return
        try:
            self._queue.send_nowait(notification)
            self._queued_so_far += 1
        except trio.WouldBlock:
            self._dropped += 1
            level = logging.WARNING if self._dropped == 1 else logging.DEBUG
            logger.log(level, "%s: %s dropped: its handlers are too slow", self._target, notification.method)

    def cancel(self, request_id: RequestId) -> bool:
        """Cancel the handler of a request. Returns whether there was one."""
        scope = self._running.get(request_id)
        if scope is not None:
            scope.cancel()
        return scope is not None

    def end(self, *, lost: bool) -> None:
        """Take no more messages. Handlers go on, unless the connection is ``lost``: then they are cancelled."""
        self._queue.close()
        self._lost = lost
        if lost:
            for scope in self._running.values():
                scope.cancel()

    async def caught_up(self) -> None:
        """Wait until the notifications that have come so far are handled."""
        so_far = self._queued_so_far
        while self._handled_so_far < so_far:
            await self._handled_one.park()

    async def finished(self) -> None:
        """Wait, after :meth:`end`, until every handler has returned."""
        await self._queue_drained.wait()
        while self._count:
            await self._none_running.park()

    @property
    def _target(self) -> str:
        return self._connection.info.target

    async def _run_notifications(self) -> None:
        with self._queued:
            async for notification in self._queued:
                try:
                    with _within(notification):
                        await self._notifications[notification.method](notification)
                except BaseException as error:
                    failure = failure_in(error)
                    logger.error("%s: the handler of %s failed", self._target, notification.method, exc_info=failure)
                self._handled_so_far += 1
                self._handled_one.unpark_all()
        self._queue_drained.set()

    async def _answer(self, request: Request, scope: trio.CancelScope) -> None:
        handled.set((self._connection, request.id))
        try:
            with scope, _within(request):
                await self._send(await self._reply(request))
        finally:
            if self._running.get(request.id) is scope:
                del self._running[request.id]
            self._count -= 1
            if not self._count:
                self._none_running.unpark_all()

    async def _reply(self, request: Request) -> Response | ErrorResponse:
        handler = self._requests.get(request.method)
        if handler is None:
            return ErrorResponse(request.id, METHOD_NOT_FOUND, f"Method not found: {request.method}")
        if isinstance(request.params, list):
            return ErrorResponse(request.id, INVALID_PARAMS, "The parameters have to be an object")
        try:
            result = await handler(self._as_received(request))
        except BaseException as error:
            return self._failed(request, failure_in(error))
        return Response(request.id, {} if result is None else result)

    def _failed(self, request: Request, error: Exception) -> ErrorResponse:
        if isinstance(error, JSONRPCError):
            return ErrorResponse(request.id, error.code, error.message, error.data)
        lost = self._lost or self._connection.state == "failed"  # its own requests fail before reading does
        level = logging.DEBUG if lost and isinstance(error, TransportError) else logging.ERROR
        logger.log(level, "%s: the handler of %s failed", self._target, request.method, exc_info=error)
        return ErrorResponse(request.id, INTERNAL_ERROR, "Internal error")

    async def _send(self, reply: Response | ErrorResponse) -> None:
        try:
            await self._send_or_explain(reply)
        except (TransportError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("%s: an answer is dropped, the connection is over: %s", self._target, error)

    async def _send_or_explain(self, reply: Response | ErrorResponse) -> None:
        try:
            await self._tx.send(reply)
        except (UsageError, MessageTooLarge) as error:
            logger.error("a handler's answer cannot be sent: %s", error)
            text = "Internal error: the answer is too large" if isinstance(error, MessageTooLarge) else "Internal error"
            await self._tx.send(ErrorResponse(reply.id, INTERNAL_ERROR, text))
