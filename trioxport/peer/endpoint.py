"""A small JSON-RPC endpoint on top of a connection, for programs that bring no SDK of their own.

::

    async with open_transport("stdio:python server.py") as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info={"name": "example", "version": "1.0"})
        tools = await peer.request("tools/list")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from trioxport._core.causes import as_loss
from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics.validators import ASYNC_FUNCTION, instance_of
from trioxport.abc import Era
from trioxport.connection import Connection
from trioxport.errors import ConnectionLost, TransportError
from trioxport.messages import NOTHING, Incoming, Notification, Request
from trioxport.peer import negotiation
from trioxport.peer.incoming import IncomingRequests, NotificationHandler, RequestHandler
from trioxport.peer.negotiation import Negotiated
from trioxport.peer.outgoing import OutgoingRequests, ProgressCallback, fresh
from trioxport.protocol import CANCELLED, PROGRESS, as_id, members_of

DEFAULT_TIMEOUT: Final = 60.0

_CONNECTION: Final = instance_of(Connection, "a Connection, such as open_transport yields")


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
        self._calls = OutgoingRequests(connection)
        self._handlers = IncomingRequests(self, tasks, requests, notifications)
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
        timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109 (silence is measured, which fail_after cannot)
        on_progress: ProgressCallback | None = None,
        metadata: Mapping[str, Any] = NOTHING,
    ) -> Any:
        """Send a request and return the result of its answer.

        Args:
            method: Such as ``"tools/call"``.
            params: Its parameters. After a modern :meth:`negotiate` the required ``_meta`` members are added; those
                that are there already win.
            timeout: Seconds without a sign of life: an answer, or, with ``on_progress``, a progress notification.
                None waits for ever. For a cap on the whole, put ``trio.fail_after`` around the call.
            on_progress: A plain function, called with ``(progress, total, message)``. What it raises comes out here.
            metadata: That of the :class:`~trioxport.Request`: notes for layers and transports, such as the
                ``"headers"`` of this request.

        Raises:
            JSONRPCError: The answer is an error.
            RequestTimeout: No sign of life in time; the other side is told that the request is cancelled.
            TransportError: The request was not sent, or will not be answered: ``outcome`` says whether it can have been
                acted on. ``ConnectionLost`` if the connection is gone.
            trio.ClosedResourceError: The peer's block was left.

        Cancelled, it sends ``notifications/cancelled`` first, which takes at most a second; ``initialize`` alone is
        given up in silence, as the legacy lifecycle demands. Specification 2026-07-28, basic/patterns/cancellation and
        basic/patterns/progress.
        """
        self._refuse_if_over()
        return await self._calls.make(method, params, self._meta, timeout, on_progress, metadata)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None = None, *, metadata: Mapping[str, Any] = NOTHING
    ) -> None:
        """Send a notification: return when it is accepted, which is not when it has arrived.

        ``params`` and ``metadata`` are as for :meth:`request`, but that nothing is added to the parameters.
        Raises ``ConnectionLost`` if the connection is gone, ``UsageError`` or ``MessageTooLarge`` if it cannot be sent.
        """
        await self._calls.notify(method, params, metadata)

    async def negotiate(
        self,
        *,
        client_info: Mapping[str, Any],
        capabilities: Mapping[str, Any] = NOTHING,
        era: Era | None = None,
        probe_timeout: float = 5.0,
    ) -> Negotiated:
        """Find out which era and version the server speaks, and open the conversation as they demand. Clients only.

        Asks for ``server/discover`` first. A server that answers with an error that is not of the modern era, or not
        at all, is legacy and gets the ``initialize`` handshake. Afterwards ``connection.info`` knows ``era`` and
        ``protocol_version``, and in the modern era every request carries the required ``_meta`` members.

        Args:
            client_info: This program's ``name`` and ``version``.
            capabilities: What this client offers to servers.
            era: Not to ask: ``"modern"`` never falls back, ``"legacy"`` begins with ``initialize``.
            probe_timeout: Seconds without an answer after which the server counts as legacy.

        Raises:
            VersionMismatch: There is no version in common; the message lists both sides' versions.
            JSONRPCError: The server refuses for another reason.
            ProtocolViolation: The server's answer is of no use.
            TransportError: As for :meth:`request`.

        Specification 2026-07-28, basic/transports/stdio, section Backward Compatibility; 2025-11-25, basic/lifecycle.
        """
        client = negotiation.ClientIdentity(dict(client_info), dict(capabilities))
        negotiated = await negotiation.negotiate(self, client, era, probe_timeout)
        self._meta = client.meta(negotiated.protocol_version) if negotiated.era == "modern" else NOTHING
        return negotiated

    async def wait_finished(self, grace: float = 5.0) -> None:
        """Wait until the other side is done, and then until the handlers are: what a server's block consists of.

        Args:
            grace: Seconds that handlers get after the other side is done, before leaving the block cancels them.

        Raises ``ConnectionLost`` if the connection broke; the handlers are cancelled by then.
        """
        await self._ended.wait()
        self._refuse_if_lost()
        with trio.move_on_after(grace):
            await self._handlers.finished()

    def _refuse_if_over(self) -> None:
        self._refuse_if_lost()
        if self._end_error is not None:
            raise fresh(self._end_error)

    def _refuse_if_lost(self) -> None:
        if self._failure is not None:
            self._calls.told = self._failure
            raise fresh(self._failure)

    async def _read(self) -> None:
        try:
            async for message in self.connection.rx:
                await self._take(message)
        except trio.ClosedResourceError:
            pass  # closed by a task of this side, which therefore knows
        except Exception as error:
            self._failure = as_loss(error)
        self._end(self._failure or self._orderly_end())

    def _orderly_end(self) -> TransportError:
        """The error of requests that are made after the end."""
        told = self.connection.unanswered
        if told is None:
            return ConnectionLost("the conversation has ended", target=self.target, outcome="not_sent")
        ended = fresh(told)
        ended.outcome = "not_sent"
        return ended

    async def _take(self, message: Incoming) -> None:
        if isinstance(message, Request):
            await self._handlers.take_request(message)
        elif isinstance(message, Notification):
            self._take_notification(message)
        else:
            self._calls.take_answer(message)

    def _take_notification(self, notification: Notification) -> None:
        params = members_of(notification.params)
        if notification.method == PROGRESS:
            self._calls.take_progress(params)
        elif notification.method == CANCELLED:
            request_id = as_id(params.get("requestId"))
            if request_id is not None and not self._handlers.cancel(request_id):
                self._calls.take_cancelled(request_id)
        else:
            self._handlers.take_notification(notification)

    def _end(self, error: Exception) -> None:
        self._end_error = error
        self._handlers.end(lost=self._failure is not None)
        self._calls.end(error)
        self._ended.set()

    def _close(self) -> None:
        """Leave the block: nobody reads any more."""
        self._end(trio.ClosedResourceError("the peer is closed"))

    def _raise_what_nobody_saw(self) -> None:
        if self._failure is not None and self._failure is not self._calls.told:
            raise self._failure


@asynccontextmanager
async def open_peer(
    connection: Connection,
    *,
    requests: Mapping[str, RequestHandler] = NOTHING,
    notifications: Mapping[str, NotificationHandler] = NOTHING,
) -> AsyncGenerator[Peer]:
    """Converse over ``connection`` for the time of a block; nobody else may use its ``tx`` and ``rx`` meanwhile.

    Args:
        connection: What :func:`trioxport.open_transport` yields, or what a server's handler gets.
        requests: For each method that the other side may call, ``async def handler(request: IncomingRequest)``, which
            returns the result (None counts as an empty one). They run at the same time, up to 256 of them; more are
            answered with an error. A ``JSONRPCError`` that one raises is the answer; any other exception is logged and
            answered with "Internal error". ``ping`` is answered without a handler.
        notifications: For each method, ``async def handler(notification: Notification)``. They run one after another in
            the order of arrival; what they raise is logged. If more than 1024 wait, the next is dropped with a
            warning, so that a handler may itself wait for an answer. Progress and cancellation are taken care of.

    Raises:
        TransportError: On leaving, a failure of the connection that no request and no ``wait_finished`` has raised.

    Leaving the block cancels the handlers that still run, and leaves the connection open. A handler is cancelled too
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
        peer._raise_what_nobody_saw()  # pyright: ignore[reportPrivateUsage] # nor this
