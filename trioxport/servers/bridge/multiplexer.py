"""The multiplexer: one connection to a server for any number of clients.

Ids of requests and progress tokens are the multiplexer's own at the server, so that clients cannot meet. Messages go to
the client that they belong to; for those that belong to none, an :class:`Audience` decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Final, Protocol

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import MessageChannels
from trioxport.codecs.forwarding import renamed
from trioxport.errors import ConnectionLost
from trioxport.messages import (
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    RequestId,
    Response,
    Undelivered,
)
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import (
    CANCELLED,
    LISTEN,
    META,
    METHOD_NOT_FOUND,
    PROGRESS,
    SUBSCRIPTION,
    as_id,
    cancellation_of,
    cancelled_id,
    members_of,
    meta_of,
)
from trioxport.servers.bridge.failures import MAX_UNSENT, send_or_log, undelivered_response
from trioxport.servers.bridge.port import ForwardedRequest, Port

LOG: Final = "notifications/message"
PING: Final = "ping"


class Audience(Protocol):
    """The clients for messages of a server that belong to no request."""

    def of_notification(self, ports: Iterable[Port], notification: Notification) -> Iterable[Port]:
        """The clients that a notification goes to."""
        ...

    def of_request(self, request: Request, related: Port | None) -> Port | ErrorResponse:
        """The client that a request of the server goes to, or the answer that refuses it.

        Args:
            request: The request.
            related: The client with the request that it belongs to, where that is known.
        """
        ...


class ModernAudience:
    """The clients of a modern server, whose every message belongs to a request.

    Over a wire on which all messages share a channel, a log message does not say to which. It goes to the only client
    with a request in flight that asked for log messages, and is dropped if there are several.
    """

    def of_notification(self, ports: Iterable[Port], notification: Notification) -> Iterable[Port]:
        """The client that a log message goes to."""
        asking = [port for port in ports if any(map(_asks_for_logs, port.in_flight.values()))]
        return asking if notification.method == LOG and len(asking) == 1 else ()

    def of_request(self, request: Request, related: Port | None) -> ErrorResponse:
        """The refusal of a request, for a modern server sends none."""
        return ErrorResponse(request.id, METHOD_NOT_FOUND, "A server sends no requests in the modern era")


@attrs.define(eq=False)
class _AskedRequest:
    """A request of the server that a client works on, with the server's id."""

    port: Port
    request: Request


class Multiplexer:
    """Passes messages between the ports of clients and one server.

    Args:
        name: The name of the server, for messages.
        audience: Decides about messages that belong to no request.
        connect: Awaited before each request of a client; connects to the server if there is no connection.

    Attributes:
        ports: The clients.
        audience: As above; it may be replaced.
    """

    def __init__(
        self, name: str, audience: Audience, connect: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
    ) -> None:
        self.name = name
        self.ports: dict[Port, None] = {}
        self.audience = audience
        self._connect = connect
        self._server: MessageChannels | None = None
        self._ids = count(1)
        self._forwarded: dict[RequestId, ForwardedRequest] = {}
        self._asked: dict[RequestId, _AskedRequest] = {}
        self._unsent: list[Message] = []
        self._has_unsent = trio.lowlevel.ParkingLot()

    def new_id(self) -> int:
        """An id for a request at the server."""
        return next(self._ids)

    def open_port(self) -> Port:
        """A port for one more client, which closes it when it leaves."""
        port = Port(self, self.name)
        self.ports[port] = None
        return port

    def open_inner_port(self) -> Port:
        """A port for requests that are sent while the connection is being negotiated."""
        return Port(_Negotiating(self), self.name)

    # From the clients.

    async def forward(self, port: Port, message: Message) -> None:
        """Send a message of a client to the server.

        Raises:
            TransportError: It is not sent, or the connection is gone.
        """
        if isinstance(message, Request):
            await self._forward_request(port, message)
        elif isinstance(message, Response | ErrorResponse):
            await self._forward_answer(port, message)
        elif message.method == CANCELLED:
            await self._forward_cancellation(port, message)
        else:
            await self.send(message)

    async def _forward_request(self, port: Port, request: Request) -> None:
        await self._connect()
        await self.send_request(port, request)

    async def send_request(self, port: Port, request: Request) -> None:
        """Send a request of a client over the connection that there is."""
        forwarded = ForwardedRequest(port, request, self.new_id())
        self._forwarded[forwarded.id] = port.in_flight[request.id] = forwarded
        token = {"progressToken": forwarded.id} if _token_of(request) is not None else {}
        try:
            await self.send(renamed(request, forwarded.id, meta=token))
        except BaseException:
            self._settle(forwarded)
            raise

    async def _forward_answer(self, port: Port, answer: Response | ErrorResponse) -> None:
        asked = None if answer.id is None else self._asked.get(answer.id)
        if asked is None or asked.port is not port or answer.id is None:
            logger.debug("%s: an answer of a client to no request in flight, id %r", self.name, answer.id)
            return
        self._forget_asked(answer.id)
        await self.send(renamed(answer, asked.request.id))

    async def _forward_cancellation(self, port: Port, notification: Notification) -> None:
        request_id = cancelled_id(notification)
        forwarded = None if request_id is None else port.in_flight.get(request_id)
        if forwarded is not None:
            self._settle(forwarded)
            await self.send(renamed(notification, params={"requestId": forwarded.id}))

    async def send(self, message: Message) -> None:
        """Send a message over the connection that there is. Raises ``ConnectionLost`` if there is none."""
        if self._server is None:
            raise ConnectionLost("there is no connection to the server", target=self.name, outcome="not_sent")
        await self._server.send.send(message)

    def leave(self, port: Port) -> None:
        """Forget a client: cancel its requests, and refuse those that it was asked, in a task of :meth:`serve`."""
        self.ports.pop(port, None)
        for forwarded in list(port.in_flight.values()):
            self._settle(forwarded)
            self.send_soon(cancellation_of(attrs.evolve(forwarded.request, id=forwarded.id), "the client left"))
        for request_id in list(port.asked):
            asked = self._forget_asked(request_id)
            self.send_soon(undelivered_response(asked.request, "it has left"))

    def send_soon(self, message: Message) -> None:
        """Send a message that is not waited for, if there is a connection; an answer to it is dropped."""
        if len(self._unsent) >= MAX_UNSENT:
            logger.debug("%s: a message is dropped, since the server does not read", self.name)
        elif self._server is not None:
            self._unsent.append(message)
            self._has_unsent.unpark_all()

    def take_back(self, method: str, uri: str | None = None) -> None:
        """Do not send the requests of a method, about a resource, that :meth:`send_soon` took and that still wait."""
        self._unsent = [
            each
            for each in self._unsent
            if not (isinstance(each, Request) and each.method == method and members_of(each.params).get("uri") == uri)
        ]

    def _settle(self, forwarded: ForwardedRequest) -> bool:
        """Forget a request; returns whether it was in flight."""
        if self._forwarded.pop(forwarded.id, None) is None:
            return False
        forwarded.port.in_flight.pop(forwarded.request.id, None)
        return True

    def _forget_asked(self, request_id: RequestId) -> _AskedRequest:
        asked = self._asked.pop(request_id)
        asked.port.asked.discard(request_id)
        return asked

    # From the server.

    async def serve(
        self, server: MessageChannels, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Pass messages over a connection to its end. Raises its loss.

        Each request in flight is answered before that, as the connection settles it.
        """
        self._server = server
        task_status.started()
        try:
            async with open_bare_nursery() as tasks:
                tasks.start_soon(self._send_waiting, server)
                async for message in server.receive:
                    self._take(message)
                tasks.cancel_scope.cancel()
        finally:
            self._end()

    async def _send_waiting(self, server: MessageChannels) -> None:
        """Send the messages that are not to be waited for."""
        while True:
            while self._unsent:
                await send_or_log(server.send, self._unsent.pop(0), self.name)
            await self._has_unsent.park()

    def _end(self) -> None:
        """Forget the connection: requests that nothing has settled are lost, and clients need not answer any more."""
        self._server = None
        self._unsent.clear()
        for forwarded in list(self._forwarded.values()):
            lost = ConnectionLost("the connection to the server is closed", target=self.name)
            self._answer(forwarded, Undelivered.of(forwarded.request, lost))
        for request_id, asked in list(self._asked.items()):
            self._forget_asked(request_id)
            asked.port.deliver(Notification(CANCELLED, {"requestId": request_id, "reason": "the server is gone"}))

    def _take(self, message: Incoming) -> None:
        if isinstance(message, Response | ErrorResponse):
            self._take_answer(message)
        elif isinstance(message, Request):
            self._take_request(message)
        else:
            self._take_notification(message)

    def _take_answer(self, answer: Response | ErrorResponse) -> None:
        forwarded = None if answer.id is None else self._forwarded.get(answer.id)
        if forwarded is None:
            logger.debug("%s: an answer to no request in flight: %r", self.name, answer)
        elif isinstance(answer, Undelivered):
            self._answer(forwarded, attrs.evolve(answer, id=forwarded.request.id, original=forwarded.request))
        else:
            subscribed = forwarded.request.method == LISTEN and isinstance(answer, Response)
            meta = {SUBSCRIPTION: forwarded.request.id} if subscribed else {}
            self._answer(forwarded, renamed(answer, forwarded.request.id, meta=meta))

    def _answer(self, forwarded: ForwardedRequest, answer: Incoming) -> None:
        self._settle(forwarded)
        forwarded.port.deliver(answer)

    def _take_notification(self, notification: Notification) -> None:
        params = members_of(notification.params)
        if notification.method == PROGRESS:
            self._take_progress(notification)
        elif notification.method == CANCELLED:
            self._take_cancellation(notification)
        elif (subscription := as_id(meta_of(params).get(SUBSCRIPTION))) is not None:
            forwarded = self._forwarded.get(subscription)
            if forwarded is not None:
                meta = {SUBSCRIPTION: forwarded.request.id}
                forwarded.port.deliver(_related(renamed(notification, meta=meta), forwarded))
        elif (related := self._related_request(notification)) is not None:
            related.port.deliver(_related(notification, related))
        else:
            for port in self.audience.of_notification(self.ports, notification):
                port.deliver(_related(notification, None))

    def _take_progress(self, notification: Notification) -> None:
        number = as_id(members_of(notification.params).get("progressToken"))
        forwarded = None if number is None else self._forwarded.get(number)
        token = None if forwarded is None else _token_of(forwarded.request)
        if forwarded is not None and token is not None:
            forwarded.port.deliver(_related(renamed(notification, params={"progressToken": token}), forwarded))

    def _take_cancellation(self, notification: Notification) -> None:
        """Pass on that the server cancels a request of its own, or ends a subscription."""
        number = cancelled_id(notification)
        forwarded = None if number is None else self._forwarded.get(number)
        if forwarded is not None and forwarded.request.method == LISTEN:
            self._settle(forwarded)
            forwarded.port.deliver(renamed(notification, params={"requestId": forwarded.request.id}))
            return
        for request_id, asked in list(self._asked.items()):
            if asked.request.id == number:
                self._forget_asked(request_id)
                asked.port.deliver(renamed(notification, params={"requestId": request_id}))

    def _take_request(self, request: Request) -> None:
        if request.method == PING:
            self.send_soon(Response(request.id, {}))
            return
        related = self._related_request(request)
        found = self.audience.of_request(request, None if related is None else related.port)
        if isinstance(found, Port) and found.takes_no_question:
            found = undelivered_response(request, "it does not read what it is sent, or does not answer")
        if isinstance(found, ErrorResponse):
            logger.warning("%s: %s refused: %s", self.name, request.method, found.message)
            self.send_soon(found)
            return
        request_id = self.new_id()
        self._asked[request_id] = _AskedRequest(found, request)
        found.asked.add(request_id)
        asked = renamed(request, request_id)
        found.deliver(_related(asked, related))

    def _related_request(self, message: Request | Notification) -> ForwardedRequest | None:
        related = metadata_of(message).get("related_request")
        return None if related is None else self._forwarded.get(related)


@attrs.frozen
class _Negotiating:
    """The owner of a port whose requests do not wait for the end of the negotiation."""

    _multiplexer: Multiplexer

    async def forward(self, port: Port, message: Message) -> None:
        if isinstance(message, Request):
            await self._multiplexer.send_request(port, message)
        else:
            await self._multiplexer.forward(port, message)

    def leave(self, port: Port) -> None:
        self._multiplexer.leave(port)


def _related(message: Message, forwarded: ForwardedRequest | None) -> Message:
    """A message with the client's id of the request that it belongs to, and without other metadata of the server."""
    metadata: Metadata = {} if forwarded is None else {"related_request": forwarded.request.id}
    if (form := metadata_of(message).get("encoded")) is not None:
        metadata["encoded"] = form
    return attrs.evolve(message, metadata=metadata)


def _token_of(request: Request) -> RequestId | None:
    return as_id(meta_of(request.params).get("progressToken"))


def _asks_for_logs(forwarded: ForwardedRequest) -> bool:
    return META + "logLevel" in meta_of(forwarded.request.params)
