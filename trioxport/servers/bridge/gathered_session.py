"""One client's session with several servers, which stand behind one endpoint as one server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final, TypeAlias, cast

import attrs
import trio
from trio.abc import SendChannel

from trioxport._version import __version__
from trioxport.abc import Era, MessageChannels
from trioxport.codecs.forwarding import renamed
from trioxport.errors import UsageError
from trioxport.messages import ErrorResponse, Incoming, Message, Notification, Request, RequestId, Response
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import (
    CANCELLED,
    DISCOVER,
    INITIALIZE,
    INITIALIZED,
    INVALID_PARAMS,
    LEGACY_VERSIONS,
    LISTEN,
    META,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    PROGRESS,
    as_id,
    cancelled_id,
    members_of,
    meta_of,
)
from trioxport.servers.bridge.failures import GONE, undelivered_response
from trioxport.servers.bridge.gathered_listening import ACKNOWLEDGED, GatheredListening
from trioxport.servers.bridge.gathered_lists import LISTS, GatheredList
from trioxport.servers.bridge.leg import Leg
from trioxport.servers.bridge.members import Directory, Member
from trioxport.servers.bridge.port import MAX_IN_FLIGHT

INFO: Final = {"name": "trioxport bridge", "version": __version__}
CAPABILITIES: Final[Mapping[str, Any]] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
"""The capabilities of all servers together: they are not waited for, and a server may come later."""

CHANGES: Final = tuple(f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))
_SET_LEVEL: Final = "logging/setLevel"

Answer: TypeAlias = Response | ErrorResponse


@attrs.define(eq=False)
class _Question:
    """A request of a server that the client works on, with the server's id."""

    leg: Leg
    request: Request


class GatheredSession:
    """The channels of one client to several servers, and what its requests need of each.

    Each request is a task, so that a server that hangs delays the requests to itself alone.

    Args:
        era: The era of the client.
        first: The first message of the client.
        directory: The servers.
        tasks: The nursery of the session.
        connect_timeout: Seconds until a server has to be connected.
        list_timeout: Seconds that a list waits for a server.
    """

    def __init__(
        self,
        era: Era,
        first: Message,
        directory: Directory,
        tasks: trio.Nursery,
        *,
        connect_timeout: float,
        list_timeout: float,
    ) -> None:
        self.era: Era = era
        self.list_timeout = list_timeout
        self._first = first
        self._directory = directory
        self._tasks = tasks
        self._to_client, from_servers = trio.open_memory_channel[Incoming](0)
        self.channels = MessageChannels(_SendToServers(self), from_servers)
        self._legs = {member: Leg(member, self, tasks, connect_timeout) for member in directory.members}
        for leg in self._legs.values():
            tasks.start_soon(leg.run)
        self._numbers = count(1)
        self._scopes: dict[RequestId, trio.CancelScope] = {}
        self._questions: dict[RequestId, _Question] = {}
        self._listenings: dict[RequestId, GatheredListening] = {}
        self._has_listed = False
        self._sends_no_more = False

    @property
    def legs(self) -> Sequence[Leg]:
        """The conversations with the servers."""
        return list(self._legs.values())

    def new_id(self) -> str:
        """An id for a request that is not the client's."""
        return f"bridge:{next(self._numbers)}"

    def first_message(self) -> Message:
        """The message with which a conversation begins: ``initialize`` in the legacy era."""
        if self.era == "modern" or (isinstance(self._first, Request) and self._first.method == INITIALIZE):
            return self._first
        params = {"protocolVersion": LEGACY_VERSIONS[0], "capabilities": {}, "clientInfo": INFO}
        return Request(self.new_id(), INITIALIZE, params, metadata=self._first.metadata)

    async def deliver(self, message: Incoming) -> None:
        """Give the client a message, once it reads."""
        with suppress(*GONE):  # it has left
            await self._to_client.send(message)

    # From the client.

    def end(self) -> None:
        """Take no more messages; the channel of the client ends once all but its subscriptions are answered."""
        self._sends_no_more = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._sends_no_more and not self._scopes.keys() - self._listenings.keys():
            self._to_client.close()

    def check_room(self, request: Request) -> None:
        """Raise ``UsageError`` for a request that the client may not send now."""
        if request.id in self._scopes:
            raise UsageError("A request with this id is in flight")
        if len(self._scopes) >= MAX_IN_FLIGHT:
            raise UsageError(f"More than {MAX_IN_FLIGHT} requests at once")

    def take(self, message: Message) -> None:
        """Take a message of the client."""
        if isinstance(message, Request):
            scope = self._scopes[message.id] = trio.CancelScope()
            self._tasks.start_soon(self._work_on, message, scope)
        elif isinstance(message, Response | ErrorResponse):
            question = None if message.id is None else self._questions.pop(message.id, None)
            if question is not None:
                question.leg.send_soon(renamed(message, question.request.id))
        elif (cancelled := cancelled_id(message)) is not None:
            if cancelled in self._scopes:
                self._scopes[cancelled].cancel()
        elif message.method == PROGRESS:
            self._pass_progress(message)
        elif message.method != INITIALIZED:
            for leg in self.legs:
                leg.send_soon(message)

    def _pass_progress(self, notification: Notification) -> None:
        """Pass on the progress of the client with a question, whose token is the id that it has here."""
        token = as_id(members_of(notification.params).get("progressToken"))
        question = None if token is None else self._questions.get(token)
        if question is not None and (given := meta_of(question.request.params).get("progressToken")) is not None:
            question.leg.send_soon(renamed(notification, params={"progressToken": given}))

    async def _work_on(self, request: Request, scope: trio.CancelScope) -> None:
        with scope:
            handle = _HANDLERS.get(request.method, GatheredSession._refuse)
            await self.deliver(await handle(self, request))
        if self._scopes.get(request.id) is scope:
            del self._scopes[request.id]
        self._end_if_idle()

    async def _refuse(self, request: Request) -> Answer:
        return ErrorResponse(request.id, METHOD_NOT_FOUND, f"Several servers together have no {request.method}")

    async def _initialize(self, request: Request) -> Answer:
        self._first = request
        for leg in self.legs:
            leg.begin()
        wanted = members_of(request.params).get("protocolVersion")
        version = wanted if wanted in LEGACY_VERSIONS else LEGACY_VERSIONS[0]
        return Response(request.id, {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": INFO})

    async def _ping(self, request: Request) -> Answer:
        return Response(request.id, {})

    async def _discover(self, request: Request) -> Answer:
        result = {
            "resultType": "complete",
            "supportedVersions": list(MODERN_VERSIONS),
            "capabilities": CAPABILITIES,
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {META + "serverInfo": INFO},
        }
        return Response(request.id, result)

    async def _list(self, request: Request) -> Answer:
        gathered = GatheredList(request, self._directory, self.new_id)
        await gathered.gather(self.legs, self.list_timeout)
        self._has_listed = True
        return gathered.answer(self.legs, self.era)

    async def _use_named(self, request: Request) -> Answer:
        """Send a call of a tool, or a request for a prompt, to the server in its name."""
        given = members_of(request.params).get("name")
        found = self._directory.named(given)
        if found is None:
            return self._unknown(request, given)
        member, name = found
        return await self._ask(member, renamed(request, params={"name": name}))

    async def _complete(self, request: Request) -> Answer:
        reference = members_of(members_of(request.params).get("ref"))
        if reference.get("type") != "ref/prompt":
            return await self._use_resource(request, reference.get("uri"))
        found = self._directory.named(reference.get("name"))
        if found is None:
            return self._unknown(request, reference.get("name"))
        member, name = found
        return await self._ask(member, renamed(request, params={"ref": {**reference, "name": name}}))

    def _unknown(self, request: Request, name: object) -> Answer:
        prefixes = ", ".join(member.prefix for member in self._directory.members)
        return ErrorResponse(request.id, INVALID_PARAMS, f"No server has {name!r}: names begin with {prefixes}")

    async def _use_uri(self, request: Request) -> Answer:
        return await self._use_resource(request, members_of(request.params).get("uri"))

    async def _use_resource(self, request: Request, uri: object) -> Answer:
        """Send a request to the server that has a resource; while none is known, to one after another."""
        member = self._directory.of_uri(uri)
        if member is not None:
            return await self._ask(member, request)
        answer: Answer = ErrorResponse(request.id, INVALID_PARAMS, f"No server has the resource {uri!r}")
        for leg in [leg for leg in self.legs if leg.member.is_waited_for]:
            with trio.move_on_after(self.list_timeout):
                answer = await self._ask(leg.member, request)
            if isinstance(answer, Response):
                self._directory.note(uri, leg.member)
                break
        return answer

    async def _subscribe(self, request: Request) -> Answer:
        uri = members_of(request.params).get("uri")
        answer = await self._use_resource(request, uri)
        member = self._directory.of_uri(uri)
        if isinstance(answer, Response) and member is not None:
            self._legs[member].lasting[str(uri)] = request
        return answer

    async def _unsubscribe(self, request: Request) -> Answer:
        uri = members_of(request.params).get("uri")
        for leg in self.legs:
            leg.lasting.pop(str(uri), None)
        return await self._use_resource(request, uri)

    async def _set_level(self, request: Request) -> Answer:
        for leg in self.legs:
            leg.keep(_SET_LEVEL, request)
        return Response(request.id, {})

    async def _listen(self, request: Request) -> Answer:
        listening = self._listenings[request.id] = GatheredListening(request, self.deliver)
        try:
            return await listening.run(self.legs, self.list_timeout)
        finally:
            del self._listenings[request.id]

    async def _ask(self, member: Member, request: Message) -> Answer:
        assert isinstance(request, Request)
        return await self._legs[member].request(request)

    # From the servers.

    async def take_request(self, leg: Leg, request: Request) -> None:
        """Put a request of a server to the client, under an id of its own."""
        if request.method == "ping":
            leg.send_soon(Response(request.id, {}))
            return
        if len(self._questions) >= MAX_IN_FLIGHT:
            leg.send_soon(undelivered_response(request, f"it has more than {MAX_IN_FLIGHT} questions"))
            return
        request_id = self.new_id()
        self._questions[request_id] = _Question(leg, request)
        meta = {"progressToken": request_id} if "progressToken" in meta_of(request.params) else {}
        await self.deliver(self._related(renamed(request, request_id, meta=meta)))

    async def take_notification(self, leg: Leg, notification: Notification) -> None:
        """Pass on a notification of a server."""
        if notification.method == ACKNOWLEDGED:
            for listening in list(self._listenings.values()):
                await listening.acknowledged(leg, notification)
        elif (cancelled := cancelled_id(notification)) is not None:
            for withdrawal in self._withdrawals(leg, cancelled, notification):
                await self.deliver(withdrawal)
        else:
            await self.deliver(self._related(notification))

    def _withdrawals(self, leg: Leg, cancelled: RequestId | None, notification: Notification) -> list[Message]:
        """Forget questions of a server, one or all; returns the news for the client that they need no answer."""
        withdrawn = [
            request_id
            for request_id, question in self._questions.items()
            if question.leg is leg and cancelled in (None, question.request.id)
        ]
        for request_id in withdrawn:
            del self._questions[request_id]
        return [renamed(notification, params={"requestId": request_id}) for request_id in withdrawn]

    async def opened(self, leg: Leg) -> None:
        """Report that lists may have changed, if the client has read one before."""
        if self._has_listed and self.era == "legacy":
            for change in CHANGES:
                await self.deliver(Notification(change))

    def ended(self, leg: Leg) -> None:
        """Withdraw the questions of a server that is gone."""
        for withdrawal in self._withdrawals(leg, None, Notification(CANCELLED, {"reason": "the server is gone"})):
            self._tasks.start_soon(self.deliver, withdrawal)

    def _related(self, message: Message) -> Message:
        """A message without a relation to a request that is not the client's."""
        related = metadata_of(message).get("related_request")
        if related is None or related in self._scopes:
            return message
        rest = {name: each for name, each in message.metadata.items() if name != "related_request"}
        return attrs.evolve(message, metadata=cast("Metadata", rest))


_Handler: TypeAlias = Callable[[GatheredSession, Request], Awaitable[Answer]]
# pyright: reportPrivateUsage=false
_HANDLERS: Final[dict[str, _Handler]] = {
    **dict.fromkeys(LISTS, GatheredSession._list),
    **dict.fromkeys(("tools/call", "prompts/get"), GatheredSession._use_named),
    INITIALIZE: GatheredSession._initialize,
    "ping": GatheredSession._ping,
    DISCOVER: GatheredSession._discover,
    "completion/complete": GatheredSession._complete,
    "resources/read": GatheredSession._use_uri,
    "resources/subscribe": GatheredSession._subscribe,
    "resources/unsubscribe": GatheredSession._unsubscribe,
    _SET_LEVEL: GatheredSession._set_level,
    LISTEN: GatheredSession._listen,
}


class _SendToServers(SendChannel[Message]):
    def __init__(self, session: GatheredSession) -> None:
        self._session = session

    async def send(self, value: Message) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(value, Request):
            self._session.check_room(value)
        self._session.take(value)

    async def aclose(self) -> None:
        self._session.end()
        await trio.lowlevel.checkpoint()
