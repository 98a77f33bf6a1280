"""The conversation of one legacy client with a modern server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from random import Random
from typing import Any, Final

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.errors import ProtocolViolation, TransportError, UsageError
from trioxport.messages import (
    NOTHING,
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
    DISCOVER,
    INITIALIZE,
    INITIALIZED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    LEGACY_VERSIONS,
    LISTEN,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    PROGRESS,
    as_id,
    cancellation_of,
    cancelled_id,
    items_of,
    members_of,
    meta_of,
)
from trioxport.servers.translation._changes import Changes
from trioxport.servers.translation._link import Link
from trioxport.servers.translation._members import (
    CAPABILITIES_KEY,
    CLIENT_KEY,
    INPUT_REQUIRED,
    LEVEL_KEY,
    PING,
    ROOTS_CHANGED,
    SERVER_KEY,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    VERSION_KEY,
    is_level,
    to_legacy_error,
    to_legacy_result,
    to_modern_capabilities,
    with_meta,
    without,
    without_meta,
)
from trioxport.servers.translation._rounds import RoundCall, RoundLimits

USUAL_LEVEL: Final = "info"
"""The level of log messages for a client that has set none: a legacy server may choose one."""

_DROPPED: Final = (INITIALIZED, ROOTS_CHANGED, PROGRESS)
"""Notifications of legacy clients that a modern server does not know."""
_LISTS: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}
_MODERN_ONLY: Final = ("resultType", "supportedVersions", "ttlMs", "cacheScope")
_UNKNOWN_SERVER: Final = {"name": "unknown", "version": "unknown"}
_RANDOM: Final = Random()


class LegacySession:
    """The translation behind ``AsLegacyServer``."""

    def __init__(self, link: Link, limits: RoundLimits) -> None:
        self.link = link
        self._limits = limits
        self._ids = count(1)
        self._meta: dict[str, Any] = {VERSION_KEY: MODERN_VERSIONS[0], CAPABILITIES_KEY: {}, LEVEL_KEY: USUAL_LEVEL}
        self._capabilities: Mapping[str, Any] = NOTHING
        self._calls: dict[RequestId, RoundCall] = {}
        self._rounds: dict[RequestId, RoundCall] = {}
        self._asked: dict[RequestId, RoundCall] = {}
        self._by_token: dict[RequestId, RoundCall] = {}
        self._changes = Changes(link, self._listen_request, limits.backoff)
        self._local: Mapping[str, Callable[[Request], Awaitable[None]]] = {
            INITIALIZE: self._initialize,
            PING: self._pong,
            SET_LEVEL: self._set_level,
            SUBSCRIBE: self._subscribe,
            UNSUBSCRIBE: self._unsubscribe,
            DISCOVER: self._refuse_modern,
            LISTEN: self._refuse_modern,
        }

    # Messages of the client.

    async def send(self, message: Message) -> None:
        if isinstance(message, Request):
            await self._local.get(message.method, self._begin)(message)
        elif isinstance(message, Notification):
            await self._notify(message)
        elif message.id is not None and message.id in self._asked:
            await trio.lowlevel.checkpoint()
            self._take_answer(message)
        else:
            await trio.lowlevel.checkpoint()
            logger.debug("%s: an answer to no question in flight, id %r", self.link.target, message.id)

    async def aclose(self) -> None:
        await self.link.aclose_send()

    async def _initialize(self, request: Request) -> None:
        params = members_of(request.params)
        self._meta[CAPABILITIES_KEY] = to_modern_capabilities(members_of(params.get("capabilities")))
        if "clientInfo" in params:
            self._meta[CLIENT_KEY] = params["clientInfo"]
        await self._begin(request)

    async def _pong(self, request: Request) -> None:
        await self._answer(Response(request.id, {}))

    async def _set_level(self, request: Request) -> None:
        level = members_of(request.params).get("level")
        if "logging" not in self._capabilities:
            await self._refuse_unknown(request)
        elif is_level(level):
            self._meta[LEVEL_KEY] = level
            await self._answer(Response(request.id, {}))
        else:
            await self._answer(ErrorResponse(request.id, INVALID_PARAMS, f"Invalid log level: {level!r}"))

    async def _subscribe(self, request: Request) -> None:
        uri = members_of(request.params).get("uri")
        if not members_of(self._capabilities.get("resources")).get("subscribe"):
            await self._refuse_unknown(request)
        elif isinstance(uri, str):
            await trio.lowlevel.checkpoint()
            self._changes.subscribe(request, uri)
        else:
            await self._answer(ErrorResponse(request.id, INVALID_PARAMS, f"{request.method} names no uri"))

    async def _unsubscribe(self, request: Request) -> None:
        uri = members_of(request.params).get("uri")
        if isinstance(uri, str):
            self._changes.unsubscribe(uri)
        await self._answer(Response(request.id, {}))

    async def _refuse_unknown(self, request: Request) -> None:
        await self._answer(ErrorResponse(request.id, METHOD_NOT_FOUND, f"Method not found: {request.method}"))

    async def _refuse_modern(self, request: Request) -> None:
        reason = f"Method not found: {request.method} (this server is presented as {LEGACY_VERSIONS[0]})"
        await self._answer(ErrorResponse(request.id, METHOD_NOT_FOUND, reason))

    async def _answer(self, answer: Response | ErrorResponse) -> None:
        await trio.lowlevel.checkpoint()
        self.link.give(answer)

    async def _begin(self, request: Request) -> None:
        """Send a request of the client to the server."""
        if request.id in self._calls:
            raise UsageError(f"a request with the id {request.id!r} is in flight already", hint="Give each its own id")
        call = self._calls[request.id] = RoundCall(request)
        if call.token is not None:
            self._by_token[call.token] = call
        round_request = self._next_round(call)
        try:
            await self.link.send(round_request)
        except BaseException as error:
            is_settled = self._rounds.pop(round_request.id, None) is None
            if is_settled and isinstance(error, TransportError):
                return
            self._forget(call)
            raise

    async def _notify(self, notification: Notification) -> None:
        request_id = cancelled_id(notification)
        if request_id is not None:
            await self._cancel(request_id, notification)
        elif notification.method not in _DROPPED:
            await self.link.send(notification)
        else:
            await trio.lowlevel.checkpoint()
        if notification.method == INITIALIZED:
            declared = {name for name, value in self._capabilities.items() if members_of(value).get("listChanged")}
            self._changes.want_lists(tuple(name for kind, name in _LISTS.items() if kind in declared))

    async def _cancel(self, request_id: RequestId, notification: Notification) -> None:
        """Cancel a request of the client: the round in progress, and the questions to the client."""
        call = self._calls.get(request_id)
        if call is None or call.request.method == INITIALIZE:
            await trio.lowlevel.checkpoint()
            self._changes.forget(request_id)
            return
        round_id = call.round_id
        self._forget(call)
        for _, question in call.questions.values():
            self.link.give(cancellation_of(question, "the request that it belongs to was cancelled"))
        if round_id is not None:
            params = {**members_of(notification.params), "requestId": round_id}
            await self.link.send(attrs.evolve(notification, params=params))

    # Rounds.

    def _next_round(self, call: RoundCall) -> Request:
        """The request of the next round, which is in flight from now on."""
        method = DISCOVER if call.request.method == INITIALIZE else call.request.method
        params = NOTHING if method == DISCOVER else call.params_of_round()
        call.end_pause()
        call.round_id = next(self._ids)
        call.rounds += 1
        self._rounds[call.round_id] = call
        if isinstance(params, list):  # of a method of no revision
            return attrs.evolve(call.request, id=call.round_id, method=method, params=params)
        return attrs.evolve(call.request, id=call.round_id, method=method, params=with_meta(params, **self._meta))

    def _post_next_round(self, call: RoundCall) -> None:
        request = self._next_round(call)

        def fail(error: TransportError) -> None:
            if self._rounds.get(request.id) is call:
                self._settle(call, Undelivered.of(call.request, error))

        self.link.post(request, fail)

    def _ask(self, call: RoundCall, result: Mapping[str, Any]) -> None:
        """Put the server's questions to the client."""
        if call.rounds >= self._limits.max_rounds:
            self._fail(call, f"{call.request.method} needs more input after {call.rounds} rounds")
            return
        try:
            questions = call.ask(result)
        except ValueError as error:
            self._fail(call, f"The server needs input, and asks for it wrongly: {error}")
            return
        if len(self._asked) + len(questions) > self._limits.max_questions:
            self._fail(call, "Too many questions wait for the client")
            return
        for question in questions:
            self._asked[question.id] = call
            self.link.give(question)
        call.pause = trio.CancelScope()
        self.link.start(self._expire_later if questions else self._repeat_later, call, call.pause)

    def _fail(self, call: RoundCall, reason: str) -> None:
        self._settle(call, ErrorResponse(call.request.id, INTERNAL_ERROR, reason))

    async def _repeat_later(self, call: RoundCall, pause: trio.CancelScope) -> None:
        with pause:
            await trio.sleep(self._limits.backoff.delay(call.rounds - 1, _RANDOM))
            self._post_next_round(call)

    async def _expire_later(self, call: RoundCall, pause: trio.CancelScope) -> None:
        with pause:
            await trio.sleep(self._limits.answer_timeout)
            reason = f"The client gave no input within {self._limits.answer_timeout:g} s"
            refusal = ErrorResponse(call.request.id, INTERNAL_ERROR, reason)
            self._give_up(call, refusal, "the answer did not come in time")

    def _take_answer(self, answer: Response | ErrorResponse) -> None:
        """Take the client's answer to a question; after the last one the next round begins."""
        assert answer.id is not None
        call = self._asked.pop(answer.id)
        refusal = call.take_answer(answer)
        if refusal is not None:
            self._give_up(call, refusal, "another question of the same request was refused")
        elif not call.questions:
            self._post_next_round(call)

    def _give_up(self, call: RoundCall, refusal: ErrorResponse, reason: str) -> None:
        """Take back the questions of a call, and answer it by an error."""
        for _, question in call.questions.values():
            self.link.give(cancellation_of(question, reason))
        self._settle(call, refusal)

    def _settle(self, call: RoundCall, answer: Response | ErrorResponse) -> None:
        self._forget(call)
        self.link.give(answer)

    def _forget(self, call: RoundCall) -> None:
        del self._calls[call.request.id]
        if call.round_id is not None:
            self._rounds.pop(call.round_id, None)
        for question_id in call.questions:
            self._asked.pop(question_id, None)
        if call.token is not None and self._by_token.get(call.token) is call:
            del self._by_token[call.token]
        call.end_pause()

    # Messages of the server.

    def take(self, message: Incoming) -> None:
        if self._changes.take(message):
            return
        if isinstance(message, Response | ErrorResponse):
            self._take_result(message)
        elif isinstance(message, Notification):
            self._take_notification(message)
        else:
            self.link.refuse(message, METHOD_NOT_FOUND, f"a modern server sends no requests ({message.method})")

    def _take_result(self, message: Response | ErrorResponse) -> None:
        call = None if message.id is None else self._rounds.pop(message.id, None)
        if call is None:
            self.link.scope.discard(ProtocolViolation(f"an answer to no request in flight, id {message.id!r}"))
            return
        request = call.request
        if isinstance(message, Undelivered):
            self._settle(call, attrs.evolve(message, id=request.id, original=request))
        elif isinstance(message, ErrorResponse):
            self._settle(call, attrs.evolve(to_legacy_error(message), id=request.id))
        elif request.method == INITIALIZE:
            self._settle(call, self._initialized(request, message))
        elif members_of(message.result).get("resultType") == INPUT_REQUIRED:
            self._ask(call, members_of(message.result))
        else:
            result = to_legacy_result(request.method, message.result)
            self._settle(call, attrs.evolve(message, id=request.id, result=result))

    def _initialized(self, request: Request, discovered: Response) -> Response | ErrorResponse:
        """The answer to ``initialize``."""
        members = members_of(discovered.result)
        supported = items_of(members.get("supportedVersions"))
        if MODERN_VERSIONS[0] not in supported:
            data = {"supported": list(supported), "requested": MODERN_VERSIONS[0]}
            return ErrorResponse(request.id, INVALID_PARAMS, "Unsupported protocol version", data)
        asked = members_of(request.params).get("protocolVersion")
        self._capabilities = members_of(members.get("capabilities"))
        result = {
            **without(without_meta(members, SERVER_KEY), *_MODERN_ONLY),
            "protocolVersion": asked if asked in LEGACY_VERSIONS else LEGACY_VERSIONS[0],
            "capabilities": self._capabilities,
            "serverInfo": meta_of(members).get(SERVER_KEY, _UNKNOWN_SERVER),
        }
        return attrs.evolve(discovered, id=request.id, result=result)

    def _take_notification(self, notification: Notification) -> None:
        if notification.method == CANCELLED:
            ended = cancelled_id(notification)
            if ended is not None:
                self._changes.end_by_server(ended)
            return
        call = self._call_of(notification)
        metadata: dict[str, Any] = dict(without(notification.metadata, "related_request"))
        if call is not None:
            metadata |= Metadata(related_request=call.request.id)
        self.link.give(attrs.evolve(notification, metadata=metadata))

    def _call_of(self, notification: Notification) -> RoundCall | None:
        """The request that a notification belongs to, if that is known."""
        if notification.method == PROGRESS:
            token = as_id(members_of(notification.params).get("progressToken"))
            return None if token is None else self._by_token.get(token)
        related = metadata_of(notification).get("related_request")
        return None if related is None else self._rounds.get(related)

    def _listen_request(self, wanted: Mapping[str, Any]) -> Request:
        params = with_meta({"notifications": wanted}, **without(self._meta, LEVEL_KEY))
        return Request(next(self._ids), LISTEN, params)

    # The end.

    def end(self, loss: TransportError, *, in_order: bool) -> None:
        for call in list(self._calls.values()):
            self._settle(call, Undelivered.of(call.request, loss))
        for request in self._changes.waiting():
            self.link.give(Undelivered.of(request, loss))
