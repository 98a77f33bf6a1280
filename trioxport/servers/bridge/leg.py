"""A leg: one client's conversation with one of several servers, begun when it is used, and again after a loss."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import attrs
import trio
from trio.abc import SendChannel

from trioxport._diagnostics import logger
from trioxport.abc import Era, MessageChannels
from trioxport.errors import ConnectError, ConnectionLost
from trioxport.messages import ErrorResponse, Incoming, Message, Notification, Request, RequestId, Response, Undelivered
from trioxport.protocol import INITIALIZED, cancellation_of, cancelled_id
from trioxport.servers.bridge.failures import MAX_UNSENT, error_response, send_or_log
from trioxport.servers.bridge.members import Member, SessionChannels
from trioxport.servers.on_demand import OnDemand

ENDED: Final = "the server has ended the request"


class LegOwner(Protocol):
    """The session of the client that legs are for."""

    era: Era

    def new_id(self) -> str:
        """An id for a request that is not the client's."""
        ...

    def first_message(self) -> Message:
        """The message with which a conversation begins: ``initialize`` in the legacy era."""
        ...

    async def take_request(self, leg: Leg, request: Request) -> None:
        """Take a request of a server."""
        ...

    async def take_notification(self, leg: Leg, notification: Notification) -> None:
        """Take a notification of a server."""
        ...

    async def opened(self, leg: Leg) -> None:
        """Note that the conversation of a leg has begun."""
        ...

    def ended(self, leg: Leg) -> None:
        """Note that the conversation of a leg is over."""
        ...


@attrs.define(eq=False)
class _WaitingRequest:
    request: Request
    is_answered: trio.Event = attrs.field(factory=trio.Event)
    answer: Response | ErrorResponse | None = None

    def settle(self, answer: Response | ErrorResponse) -> None:
        self.answer = answer
        self.is_answered.set()


class Leg(OnDemand[MessageChannels]):
    """A conversation of one client with one server.

    Args:
        member: The server.
        owner: The session of the client.
        tasks: The nursery of the session.
        connect_timeout: Seconds until the conversation has to be open.

    Attributes:
        lasting: Requests of the client that a new conversation begins with: subscriptions and the level of logs.
    """

    def __init__(self, member: Member, owner: LegOwner, tasks: trio.Nursery, connect_timeout: float) -> None:
        super().__init__(member.name, self._converse, self._pass_messages, connect_timeout, member.mode.failures)
        self.member = member
        self.lasting: dict[str, Request] = {}
        self._owner = owner
        self._tasks = tasks
        self._channels: MessageChannels | None = None
        self._waiting: dict[RequestId, _WaitingRequest] = {}
        self._unsent: deque[tuple[SendChannel[Message], Message]] = deque()

    async def request(self, request: Request) -> Response | ErrorResponse:
        """Send a request, after connecting if need be, and wait for the answer; a failure is an error response.

        Cancelled: the server is told.
        """
        waiting = _WaitingRequest(request)
        try:
            channels = await self.connected()
            self._waiting[request.id] = waiting
            await channels.send.send(request)
            await waiting.is_answered.wait()
        except Exception as error:
            self._waiting.pop(request.id, None)
            return error_response(request.id, self.name, error)
        finally:
            if self._waiting.pop(request.id, None) is not None:
                self.send_soon(cancellation_of(request))
        assert waiting.answer is not None
        return waiting.answer

    def send_soon(self, message: Message) -> None:
        """Send a message that is not waited for, if there is a conversation; an answer to it is dropped."""
        if self._channels is None:
            return
        if len(self._unsent) >= MAX_UNSENT:
            logger.debug("server %s: a message is dropped, since the server does not read", self.name)
            return
        self._unsent.append((self._channels.send, message))
        if len(self._unsent) == 1:
            self._tasks.start_soon(self._send_unsent)

    async def _send_unsent(self) -> None:
        """Send what is not waited for, in its order."""
        while self._unsent:
            channel, message = self._unsent[0]
            await send_or_log(channel, message, self.name)
            self._unsent.popleft()

    def keep(self, key: str, request: Request) -> None:
        """Send a request now, and at the beginning of each later conversation."""
        self.lasting[key] = request
        self.send_soon(attrs.evolve(request, id=self._owner.new_id()))

    @asynccontextmanager
    async def _converse(self) -> AsyncGenerator[MessageChannels]:
        first = self._owner.first_message()
        async with self.member.mode.channels(self._owner.era, first) as session:
            try:
                self._channels = session.channels
                if self._owner.era == "legacy" and isinstance(first, Request):
                    await self._initialize(session, first)
                self.member.is_late = False
                await self._owner.opened(self)
                yield session.channels
            finally:
                self._channels = None
                self._owner.ended(self)

    async def _initialize(self, session: SessionChannels, first: Request) -> None:
        channels = session.channels
        if not session.is_sent:
            await channels.send.send(first)
        answer = await channels.receive.receive()
        while not (isinstance(answer, Response | ErrorResponse) and answer.id == first.id):
            await self._take(answer)
            answer = await channels.receive.receive()
        if isinstance(answer, Undelivered):
            raise answer.cause
        if isinstance(answer, ErrorResponse):
            raise ConnectError(f"the server refuses to initialize: {answer.message}", target=self.name)
        await channels.send.send(Notification(INITIALIZED))
        for request in list(self.lasting.values()):
            await channels.send.send(attrs.evolve(request, id=self._owner.new_id()))

    async def _pass_messages(self, channels: MessageChannels) -> None:
        try:
            async for message in channels.receive:
                await self._take(message)
        finally:
            for waiting in list(self._waiting.values()):
                lost = ConnectionLost("the connection to the server is closed", target=self.name)
                self._settle(error_response(waiting.request.id, self.name, lost))

    async def _take(self, message: Incoming) -> None:
        if isinstance(message, Undelivered):
            if message.id is not None:
                self._settle(error_response(message.id, self.name, message.cause))
        elif isinstance(message, Response | ErrorResponse):
            self._settle(message)
        elif isinstance(message, Request):
            await self._owner.take_request(self, message)
        elif (ended := cancelled_id(message)) is not None and ended in self._waiting:
            self._settle(error_response(ended, self.name, ConnectionLost(ENDED, target=self.name)))
        else:
            await self._owner.take_notification(self, message)

    def _settle(self, answer: Response | ErrorResponse) -> None:
        waiting = None if answer.id is None else self._waiting.pop(answer.id, None)
        if waiting is not None:
            waiting.settle(answer)
