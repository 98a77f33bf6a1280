"""The requests of a peer that are in flight, and the callers that wait for their answers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from copy import copy
from itertools import count
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.connection import Connection
from trioxport.errors import RequestTimeout, TransportError
from trioxport.messages import NOTHING, ErrorResponse, Notification, Request, RequestId, Response, Undelivered
from trioxport.metadata import Metadata
from trioxport.protocol import DISCOVER, INITIALIZE, LISTEN, JSONRPCError, as_id, cancellation_of, meta_of

ProgressCallback: TypeAlias = Callable[[float, float | None, str | None], object]
"""A function of the progress, the total if it is known, and a message to show if there is one."""

CANCEL_SECONDS: Final = 1.0
"""Seconds that sending a cancellation may take, since the other side may not be reading."""

_NEGOTIATING: Final = (DISCOVER, INITIALIZE)
_NOT_NEGOTIATED: Final = "This client has not negotiated with the server: await peer.negotiate(client_info=...) first"

handled: Final[ContextVar[tuple[Connection, RequestId] | None]] = ContextVar("trioxport.handled", default=None)
"""The incoming request that this task handles; messages that it sends on the same connection are related to it."""


def _related_on(connection: Connection) -> Mapping[str, Any]:
    """The metadata of a message that is sent on ``connection``."""
    request = handled.get()
    return NOTHING if request is None or request[0] is not connection else Metadata(related_request=request[1])


@attrs.define(eq=False)
class _Call:
    """A request in flight, and the state of its caller's wait."""

    request: Request
    idle_seconds: float
    on_progress: ProgressCallback | None
    idle: trio.CancelScope = attrs.Factory(trio.CancelScope)
    over: trio.Event = attrs.Factory(trio.Event)
    sent: bool = False
    settled: bool = False
    result: Any = None
    error: Exception | None = None

    @property
    def token(self) -> RequestId | None:
        return as_id(meta_of(self.request.params).get("progressToken"))

    def restart_timeout(self) -> None:
        self.idle.deadline = trio.current_time() + self.idle_seconds

    def settle(self, result: Any = None, error: Exception | None = None) -> None:
        """End the wait by an answer, or by an error in its place."""
        self.result, self.error, self.settled = result, error, True
        self.over.set()

    def fail(self, error: Exception) -> None:
        """End the wait by an exception of this side, while the other side still works on the request."""
        self.error = error
        self.over.set()


class OutgoingRequests:
    """The requests that one peer has in flight."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids = count(1)
        self._calls: dict[RequestId, _Call] = {}
        self._by_token: dict[RequestId, _Call] = {}
        self._answered = False
        self.reported: BaseException | None = None
        """The failure of the connection that a caller has been given."""

    @property
    def target(self) -> str:
        return self._connection.info.target

    def new_id(self) -> RequestId:
        """The id of one request."""
        return next(self._ids)

    async def make(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        meta: Mapping[str, Any],
        timeout: float | None,
        on_progress: ProgressCallback | None,
        metadata: Mapping[str, Any],
        request_id: RequestId | None = None,
    ) -> Any:
        """Send a request and return its result, as :meth:`trioxport.peer.Peer.request` documents."""
        request_id = self.new_id() if request_id is None else request_id
        token = {"progressToken": request_id} if on_progress else {}
        noted = {**_related_on(self._connection), **metadata}
        request = Request(request_id, method, _with_meta(params, {**token, **meta}), metadata=noted)
        call = _Call(request, math.inf if timeout is None else timeout, on_progress)
        await self._exchange(call)
        if call.error is not None:
            raise call.error
        if not call.settled:
            raise RequestTimeout(
                f"no sign of life for {call.idle_seconds:g} s in answer to {method}",
                target=self.target,
                outcome="unknown" if call.sent else "not_sent",
            )
        return call.result

    async def notify(self, method: str, params: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> None:
        """Send a notification."""
        noted = {**_related_on(self._connection), **metadata}
        notification = Notification(method, None if params is None else dict(params), metadata=noted)
        await self._noting_loss(self._connection.tx.send(notification))

    def take_answer(self, message: Response | ErrorResponse) -> None:
        call = _still_waiting(self._calls, message.id)
        if call is None:
            logger.debug("%s: an answer to no request in flight: %r", self.target, message)
        elif isinstance(message, Response):
            self._answered = True
            call.settle(result=message.result)
        elif isinstance(message, Undelivered):
            self.reported = message.cause
            call.settle(error=fresh(message.cause))
        else:
            call.settle(error=self._refusal(message, call.request.method))

    def _refusal(self, answer: ErrorResponse, method: str) -> JSONRPCError:
        error = JSONRPCError(answer.code, answer.message, answer.data)
        negotiated = self._answered or self._connection.info.era or method in _NEGOTIATING
        if not negotiated and self._connection.scope.settings.role == "client":
            error.hint = _NOT_NEGOTIATED
        return error

    def take_progress(self, params: Mapping[str, Any]) -> None:
        call = _still_waiting(self._by_token, as_id(params.get("progressToken")))
        progress, total, message = _number(params.get("progress")), _number(params.get("total")), params.get("message")
        if call is None or progress is None:
            logger.debug("%s: progress of no request in flight: %r", self.target, params)
            return
        call.restart_timeout()
        if call.on_progress is not None:
            try:
                call.on_progress(progress, total, message if isinstance(message, str) else None)
            except Exception as error:
                call.fail(error)

    def take_cancelled(self, request_id: RequestId) -> None:
        """End a subscription that the server ended; it may cancel no other request of this side.

        Specification 2026-07-28, basic/patterns/cancellation.
        """
        call = _still_waiting(self._calls, request_id)
        if call is not None and call.request.method == LISTEN:
            call.settle(error=TransportError("the server ended the subscription", target=self.target))

    def end(self, error: Exception) -> None:
        """End every wait: no more answers come."""
        for request_id in self._calls:
            if call := _still_waiting(self._calls, request_id):
                self.reported = error
                call.settle(error=fresh(error))

    async def _exchange(self, call: _Call) -> None:
        request, token = call.request, call.token
        self._calls[request.id] = call
        if token is not None:
            self._by_token[token] = call
        try:
            with call.idle:
                call.restart_timeout()
                await self._noting_loss(self._connection.tx.send(request))
                call.sent = True
                await call.over.wait()
        finally:
            del self._calls[request.id]
            if token is not None:
                self._by_token.pop(token, None)
            if call.sent and not call.settled and request.method != INITIALIZE:
                await self._send_cancellation(request)

    async def _noting_loss(self, sending: Awaitable[None]) -> None:
        """Await ``sending``; note a loss of the connection that it raises as reported."""
        try:
            await sending
        except TransportError as error:
            if isinstance(error.__cause__, TransportError):
                self.reported = error.__cause__
            raise

    async def _send_cancellation(self, request: Request) -> None:
        with trio.CancelScope(deadline=trio.current_time() + CANCEL_SECONDS, shield=True):
            try:
                await self._connection.tx.send(cancellation_of(request))
            except (TransportError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                logger.debug("%s: the cancellation of request %r is not sent: %s", self.target, request.id, error)


def _still_waiting(calls: Mapping[RequestId, _Call], key: RequestId | None) -> _Call | None:
    """The call of the id or token, unless its wait has ended."""
    call = None if key is None else calls.get(key)
    return None if call is None or call.over.is_set() else call


def _with_meta(params: Mapping[str, Any] | None, added: Mapping[str, Any]) -> dict[str, Any] | None:
    if not added:
        return None if params is None else dict(params)
    given = params or NOTHING
    return {**given, "_meta": {**added, **meta_of(given)}}


Error = TypeVar("Error", bound=Exception)


def fresh(error: Error) -> Error:
    """A copy to raise: several tasks raise the same error, and each adds its own traceback and context."""
    another = copy(error)
    another.__cause__ = error.__cause__
    return another


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
