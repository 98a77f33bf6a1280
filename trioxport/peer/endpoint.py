"""The JSON-RPC endpoint of a connection: requests with their answers, and handlers of incoming messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import attrs
import trio

from trioxport._core.error_mapping import as_loss
from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics.validators import ASYNC_FUNCTION, instance_of
from trioxport.abc import Era
from trioxport.connection import Connection
from trioxport.errors import ConnectionLost, TransportError
from trioxport.messages import NOTHING, Incoming, Notification, Request, RequestId, shown_metadata
from trioxport.peer.incoming import IncomingRequests, NotificationHandler
from trioxport.peer.negotiation import ClientIdentity, Negotiated, negotiate
from trioxport.peer.outgoing import OutgoingRequests, ProgressCallback, fresh
from trioxport.protocol import CANCELLED, LISTEN, PROGRESS, as_id, members_of, meta_of

DEFAULT_TIMEOUT_SECONDS: Final = 60.0

_CONNECTION: Final = instance_of(Connection, "a Connection, such as open_transport yields")


@attrs.frozen(eq=False)
class IncomingRequest:
    """A request of the other side, as a handler gets it.

    Args:
        id: Its id; no two requests in flight have the same.
        method: Its method.
        params: Its parameters; empty if it has none.
        metadata: Notes of layers and of the transport about it.
        peer: The peer that received it; a handler may send requests of its own there.
    """

    id: RequestId
    method: str
    params: Mapping[str, Any]
    metadata: Mapping[str, Any] = attrs.field(repr=shown_metadata)
    peer: Peer

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Send a progress notification, if the other side asked for them; ``progress`` has to increase.

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


class Peer:
    """This side of a conversation: made by :func:`open_peer`, and usable from any task while its block lasts."""

    def __init__(
        self,
        connection: Connection,
        tasks: trio.Nursery,
        requests: Mapping[str, RequestHandler],
        notifications: Mapping[str, NotificationHandler],
    ) -> None:
        self.connection = connection
        self._meta: Mapping[str, Any] = NOTHING
        self._ended = trio.Event()
        self._end_error: Exception | None = None
        self._failure: TransportError | None = None
        self._outgoing = OutgoingRequests(connection)
        self._incoming = IncomingRequests(connection, tasks, requests, notifications, self._as_received)
        tasks.start_soon(self._read)

    @property
    def target(self) -> str:
        """The connection's target, redacted."""
        return self.connection.info.target

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
        on_progress: ProgressCallback | None = None,
        metadata: Mapping[str, Any] = NOTHING,
    ) -> Any:
        """Send a request and return the result of its answer.

        Args:
            method: Such as ``"tools/call"``.
            params: Its parameters. After a modern :meth:`negotiate` the required ``_meta`` members are added; those
                that are there already are kept.
            timeout: Seconds without an answer and, with ``on_progress``, without a progress notification. None waits
                for ever. For a limit on the whole, put ``trio.fail_after`` around the call.
            on_progress: A plain function, called with ``(progress, total, message)``. Its exception is raised here.
            metadata: The metadata of the :class:`~trioxport.Request`: notes for layers and transports, such as the
                ``"headers"`` of this request.

        Raises:
            JSONRPCError: The answer is an error.
            RequestTimeout: Neither an answer nor progress came in time; the request is cancelled on the wire.
            TransportError: The request was not sent, or will not be answered: ``outcome`` says whether the other side
                can have acted on it. ``ConnectionLost`` if the connection is gone.
            trio.ClosedResourceError: The peer's block was left.

        Cancelled, it sends ``notifications/cancelled`` first, which takes at most a second. ``initialize`` is never
        cancelled on the wire, as the legacy lifecycle demands. Specification 2026-07-28, basic/patterns/cancellation
        and basic/patterns/progress.
        """
        self._refuse_if_over()
        return await self._outgoing.make(method, params, self._meta, timeout, on_progress, metadata)

    async def listen(self, wanted: Mapping[str, Any], opening: Callable[[RequestId], object]) -> Any:
        """Send ``subscriptions/listen``; when the server ends the subscription, return the result.

        The notifications that came before are handled by then.

        Args:
            wanted: The filter.
            opening: Called before with the id by which notifications name the subscription.

        Raises and, cancelled, does the same as :meth:`request`.
        """
        self._refuse_if_over()
        request_id = self._outgoing.new_id()
        opening(request_id)
        params = {"notifications": wanted}
        try:
            return await self._outgoing.make(LISTEN, params, self._meta, None, None, NOTHING, request_id)
        finally:
            await self._incoming.caught_up()

    async def notify(
        self, method: str, params: Mapping[str, Any] | None = None, *, metadata: Mapping[str, Any] = NOTHING
    ) -> None:
        """Send a notification; return when the connection has accepted it, which may be before it arrives.

        Args:
            method: Such as ``"notifications/roots/list_changed"``.
            params: Its parameters; nothing is added to them.
            metadata: As for :meth:`request`.

        Raises:
            ConnectionLost: The connection is gone.
            UsageError: The message cannot be encoded.
            MessageTooLarge: It is over the limit.
        """
        await self._outgoing.notify(method, params, metadata)

    async def negotiate(
        self,
        *,
        client_info: Mapping[str, Any],
        capabilities: Mapping[str, Any] = NOTHING,
        era: Era | None = None,
        probe_timeout: float = 5.0,
    ) -> Negotiated:
        """Find the era and the version that the server speaks, and do the handshake of that era. Clients only.

        Sends ``server/discover`` first. A server that does not answer, or answers with an error of no modern code, is
        legacy and gets the ``initialize`` handshake. Afterwards ``connection.info`` has ``era`` and
        ``protocol_version``, and in the modern era every request carries the required ``_meta`` members.

        Args:
            client_info: This program's ``name`` and ``version``.
            capabilities: The capabilities that this client declares.
            era: The era, if it is known: ``"modern"`` never falls back, ``"legacy"`` begins with ``initialize``.
            probe_timeout: Seconds without an answer after which the server counts as legacy.

        Raises:
            VersionMismatch: There is no version in common; the message lists the versions of both sides.
            JSONRPCError: The server refuses for another reason.
            ProtocolViolation: The server's answer has not the required members.
            TransportError: As for :meth:`request`.

        Specification 2026-07-28, basic/transports/stdio, section Backward Compatibility; 2025-11-25, basic/lifecycle.
        """
        client = ClientIdentity(dict(client_info), dict(capabilities))
        negotiated = await negotiate(self, client, era, probe_timeout)
        self._meta = client.meta(negotiated.protocol_version) if negotiated.era == "modern" else NOTHING
        return negotiated

    async def wait_finished(self, grace: float = 5.0) -> None:
        """Wait until the other side sends no more, and then for the handlers: the body of a server's block.

        Args:
            grace: Seconds that handlers may take after the other side has ended; leaving the block then cancels them.

        Raises:
            ConnectionLost: The connection broke; the handlers are cancelled.
        """
        await self._ended.wait()
        self._refuse_if_lost()
        with trio.move_on_after(grace):
            await self._incoming.finished()

    async def wait_ended(self) -> None:
        """Wait until the other side sends no more, and its notifications are handled. Raises ``ConnectionLost``."""
        await self._ended.wait()
        await self._incoming.caught_up()
        self._refuse_if_lost()

    def _refuse_if_over(self) -> None:
        self._refuse_if_lost()
        if self._end_error is not None:
            raise fresh(self._end_error)

    def _refuse_if_lost(self) -> None:
        if self._failure is not None:
            self._outgoing.reported = self._failure
            raise fresh(self._failure)

    async def _read(self) -> None:
        try:
            async for message in self.connection.rx:
                await self._take(message)
        except trio.ClosedResourceError:
            pass  # a task of this side closed it
        except Exception as error:
            self._failure = as_loss(error)
        self._end(self._failure or self._orderly_end())

    def _orderly_end(self) -> TransportError:
        """The error of requests that are made after the end."""
        reason = self.connection.unanswered
        if reason is None:
            return ConnectionLost("the conversation has ended", target=self.target, outcome="not_sent")
        ended = fresh(reason)
        ended.outcome = "not_sent"
        return ended

    async def _take(self, message: Incoming) -> None:
        if isinstance(message, Request):
            await self._incoming.take_request(message)
        elif isinstance(message, Notification):
            self._take_notification(message)
        else:
            self._outgoing.take_answer(message)

    def _as_received(self, request: Request) -> IncomingRequest:
        params = NOTHING if request.params is None or isinstance(request.params, list) else request.params
        return IncomingRequest(request.id, request.method, params, request.metadata, self)

    def _take_notification(self, notification: Notification) -> None:
        params = members_of(notification.params)
        if notification.method == PROGRESS:
            self._outgoing.take_progress(params)
        elif notification.method == CANCELLED:
            request_id = as_id(params.get("requestId"))
            if request_id is not None and not self._incoming.cancel(request_id):
                self._outgoing.take_cancelled(request_id)
        else:
            self._incoming.take_notification(notification)

    def _end(self, error: Exception) -> None:
        self._end_error = error
        self._incoming.end(lost=self._failure is not None)
        self._outgoing.end(error)
        self._ended.set()

    def _close(self) -> None:
        """End what waits for an answer, since reading ends with the block."""
        self._end(trio.ClosedResourceError("the peer is closed"))

    def _raise_unreported(self) -> None:
        """Raise a failure of the connection that no request has raised."""
        if self._failure is not None and self._failure is not self._outgoing.reported:
            raise self._failure


@asynccontextmanager
async def open_peer(
    connection: Connection,
    *,
    requests: Mapping[str, RequestHandler] = NOTHING,
    notifications: Mapping[str, NotificationHandler] = NOTHING,
) -> AsyncGenerator[Peer]:
    """Send and handle requests over ``connection`` for the time of a block; the peer alone uses its ``tx`` and ``rx``.

    Args:
        connection: The connection of :func:`trioxport.open_transport`, or of a server's handler.
        requests: For each method that the other side may call, ``async def handler(request: IncomingRequest)``, which
            returns the result (None counts as an empty one). They run at the same time, up to 256 of them; more are
            answered with an error. A ``JSONRPCError`` of a handler is the answer; any other exception is logged and
            answered with "Internal error". ``ping`` is answered without a handler.
        notifications: For each method, ``async def handler(notification: Notification)``. They run one after another in
            the order of arrival; their exceptions are logged. While 1024 wait, the next is dropped with a warning, so
            that a handler may itself wait for an answer. Progress and cancellation need no handler.

    Raises:
        TransportError: On leaving, a failure of the connection that no request and no ``wait_finished`` has raised.

    Leaving the block cancels the handlers that still run, and leaves the connection open. A handler is also cancelled
    when the other side cancels its request, which is then not answered, and when the connection is lost.
    """
    _CONNECTION.option("connection", connection)
    for name, handler in (*requests.items(), *notifications.items()):
        ASYNC_FUNCTION.option(f"the handler of {name!r}", handler)
    async with open_bare_nursery() as tasks:
        peer = Peer(connection, tasks, requests, notifications)
        try:
            yield peer
        finally:
            peer._close()  # pyright: ignore[reportPrivateUsage] # users are not to call it
            tasks.cancel_scope.cancel()
        peer._raise_unreported()  # pyright: ignore[reportPrivateUsage] # nor this
