"""What a peer does with the requests and notifications that come to it: its handlers, in tasks, within bounds."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio

from trioxport._core.causes import failure_in
from trioxport._diagnostics import logger
from trioxport.errors import MessageTooLarge, TransportError, UsageError
from trioxport.messages import NOTHING, ErrorResponse, Notification, Request, RequestId, Response, shown_metadata
from trioxport.metadata import metadata_of
from trioxport.peer.outgoing import handled
from trioxport.protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PROGRESS,
    JSONRPCError,
    as_id,
    meta_of,
)

if TYPE_CHECKING:
    from trioxport.peer import Peer


MAX_RUNNING: Final = 256
"""Requests of the other side that are worked on at once; one more is answered with an error."""
MAX_QUEUED: Final = 1024
"""Notifications that wait for their handlers; one more is dropped, with a warning."""


@attrs.frozen(eq=False)
class IncomingRequest:
    """A request of the other side, as a handler gets it.

    Args:
        id: Its id; no two requests in flight have the same.
        method: Its method.
        params: Its parameters; empty if it has none.
        metadata: What layers and the transport noted about it.
        peer: Who received it; a handler may send requests of its own there.
    """

    id: RequestId
    method: str
    params: Mapping[str, Any]
    metadata: Mapping[str, Any] = attrs.field(repr=shown_metadata)
    peer: Peer

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the work is, if the other side asked for that; ``progress`` has to increase.

        Raises ``ConnectionLost`` like ``Peer.notify``. Specification 2026-07-28, basic/patterns/progress.
        """
        token = as_id(meta_of(self.params).get("progressToken"))
        if token is None:
            return
        params: dict[str, Any] = {"progressToken": token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self.peer.notify(PROGRESS, params)


RequestHandler: TypeAlias = Callable[[IncomingRequest], Awaitable[Any]]
NotificationHandler: TypeAlias = Callable[[Notification], Awaitable[object]]


def _within(message: Request | Notification) -> AbstractContextManager[object]:
    """What a layer puts around the handling of a message, as Tracing does with the context of its span."""
    return metadata_of(message).get("within") or nullcontext()


async def _pong(request: IncomingRequest) -> dict[str, Any]:
    return {}


class IncomingRequests:
    """Runs the handlers of one peer in the tasks of that peer."""

    def __init__(
        self,
        peer: Peer,
        tasks: trio.Nursery,
        requests: Mapping[str, RequestHandler],
        notifications: Mapping[str, NotificationHandler],
    ) -> None:
        self._peer = peer
        self._tx = peer.connection.tx
        self._tasks = tasks
        self._requests: dict[str, RequestHandler] = {"ping": _pong, **requests}
        self._notifications = dict(notifications)
        self._running: dict[RequestId, trio.CancelScope] = {}
        self._none_running = trio.lowlevel.ParkingLot()
        self._queue, self._queued = trio.open_memory_channel[Notification](MAX_QUEUED)
        self._queue_drained = trio.Event()
        self._dropped = 0
        self._lost = False
        tasks.start_soon(self._run_notifications)

    async def take_request(self, request: Request) -> None:
        """Start the handler of a request, or refuse the request; waits only where a refusal has to."""
        if request.id in self._running:
            await self._send(ErrorResponse(request.id, INVALID_REQUEST, "A request with this id is in flight"))
        elif len(self._running) >= MAX_RUNNING:
            # Not reading on instead could be for ever: a running handler may wait for what has yet to be read.
            await self._send(ErrorResponse(request.id, INTERNAL_ERROR, f"More than {MAX_RUNNING} requests at once"))
        else:
            self._running[request.id] = scope = trio.CancelScope()
            self._tasks.start_soon(self._answer, request, scope)

    def take_notification(self, notification: Notification) -> None:
        """Queue a notification for its handler, if it has one."""
        if notification.method not in self._notifications:
            logger.debug("%s: no handler for %s", self._peer.target, notification.method)
            return
        try:
            self._queue.send_nowait(notification)
        except trio.WouldBlock:
            self._dropped += 1
            level = logging.WARNING if self._dropped == 1 else logging.DEBUG
            logger.log(level, "%s: %s dropped: its handlers are too slow", self._peer.target, notification.method)

    def cancel(self, request_id: RequestId) -> bool:
        """Cancel the handler of a request; whether there was one."""
        scope = self._running.get(request_id)
        if scope is not None:
            scope.cancel()
        return scope is not None

    def end(self, *, lost: bool) -> None:
        """Nothing more comes; ``lost``: nor can anything be answered."""
        self._queue.close()
        self._lost = lost
        if lost:
            for scope in self._running.values():
                scope.cancel()

    async def finished(self) -> None:
        """Wait, after :meth:`end`, until every handler has returned."""
        await self._queue_drained.wait()
        while self._running:
            await self._none_running.park()

    async def _run_notifications(self) -> None:
        with self._queued:
            async for notification in self._queued:
                try:
                    with _within(notification):
                        await self._notifications[notification.method](notification)
                except BaseException as error:
                    failure = failure_in(error)
                    logger.error(
                        "%s: the handler of %s failed", self._peer.target, notification.method, exc_info=failure
                    )
        self._queue_drained.set()

    async def _answer(self, request: Request, scope: trio.CancelScope) -> None:
        handled.set((self._peer.connection, request.id))
        try:
            with scope, _within(request):
                await self._send(await self._reply(request))
        finally:
            del self._running[request.id]
            if not self._running:
                self._none_running.unpark_all()

    async def _reply(self, request: Request) -> Response | ErrorResponse:
        handler = self._requests.get(request.method)
        if handler is None:
            return ErrorResponse(request.id, METHOD_NOT_FOUND, f"Method not found: {request.method}")
        if isinstance(request.params, list):
            return ErrorResponse(request.id, INVALID_PARAMS, "The parameters have to be an object")
        params = request.params or NOTHING
        try:
            result = await handler(IncomingRequest(request.id, request.method, params, request.metadata, self._peer))
        except BaseException as error:
            return self._failed(request, failure_in(error))
        return Response(request.id, {} if result is None else result)

    def _failed(self, request: Request, error: Exception) -> ErrorResponse:
        if isinstance(error, JSONRPCError):
            return ErrorResponse(request.id, error.code, error.message, error.data)
        nobodys_fault = self._lost and isinstance(error, TransportError)
        level = logging.DEBUG if nobodys_fault else logging.ERROR
        logger.log(level, "%s: the handler of %s failed", self._peer.target, request.method, exc_info=error)
        return ErrorResponse(request.id, INTERNAL_ERROR, "Internal error")

    async def _send(self, reply: Response | ErrorResponse) -> None:
        try:
            await self._send_or_explain(reply)
        except (TransportError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("%s: nobody is there to be answered: %s", self._peer.target, error)

    async def _send_or_explain(self, reply: Response | ErrorResponse) -> None:
        try:
            await self._tx.send(reply)
        except (UsageError, MessageTooLarge) as error:
            logger.error("what a handler answered cannot be sent: %s", error)
            text = "Internal error: the answer is too large" if isinstance(error, MessageTooLarge) else "Internal error"
            await self._tx.send(ErrorResponse(reply.id, INTERNAL_ERROR, text))
