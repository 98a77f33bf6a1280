"""The conversation of modern clients with a legacy server that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.errors import ProtocolViolation, TransportError, UsageError
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
from trioxport.peer.client_handlers import ELICIT, LOG
from trioxport.protocol import (
    CANCELLED,
    DISCOVER,
    INITIALIZED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LISTEN,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    PROGRESS,
    cancelled_id,
    items_of,
    members_of,
)
from trioxport.servers.translation._calls import (
    MAX_QUESTIONS,
    MAY_ASK,
    QUESTIONS,
    InputQuestion,
    ModernCall,
    PendingCalls,
    progress_of,
)
from trioxport.servers.translation._link import Link
from trioxport.servers.translation._listeners import Listeners
from trioxport.servers.translation._members import (
    PING,
    ROOTS_CHANGED,
    URL_ELICITATION_REQUIRED,
    to_modern_error,
    to_modern_result,
    without,
)
from trioxport.servers.translation._upstream_state import LogLevels, ServerHandshake, refusal_of
from trioxport.servers.translation._waiting import WaitingRequests

ELICITED: Final = "notifications/elicitation/complete"
"""The notification of a legacy server that an elicitation is over, which a modern client learns by repeating."""

FIRST_ID: Final = 1001
"""Lower ids are those of a probe for the era before the translation, whose answer may come late."""

_DROPPED: Final = (INITIALIZED, ROOTS_CHANGED, PROGRESS)
"""Notifications of clients that are not for a server that many clients share."""


class ModernServer:
    """The translation behind ``AsModernServer``."""

    def __init__(
        self, link: Link, handshake: Mapping[str, Any], answer_timeout: float, max_pending: int, max_waiting: int
    ) -> None:
        self.link = link
        self._max_pending = max_pending
        self._ids = count(FIRST_ID)
        self._own: dict[RequestId, Callable[[Response | ErrorResponse], object]] = {}
        self._handshake = ServerHandshake(link, handshake, self._ask_server)
        self._waiting = WaitingRequests(link, self._handshake, self._dispatch, max_waiting)
        self._calls: dict[RequestId, ModernCall] = {}
        self._by_client: dict[RequestId, ModernCall] = {}
        self._asked: dict[RequestId, ModernCall] = {}
        self._to_ask: list[ModernCall] = []
        self._pending = PendingCalls(link, answer_timeout, self._expire)
        self._listeners = Listeners(link, self._ask_server)
        self._levels = LogLevels(link, self._ask_server)

    # Messages of clients.

    async def send(self, message: Message) -> None:
        if isinstance(message, Request):
            await self._take_request(message)
        elif isinstance(message, Notification):
            await self._take_client_notification(message)
        else:
            await trio.lowlevel.checkpoint()
            self.link.scope.discard(ProtocolViolation("an answer of a modern client, which is asked by results only"))

    async def aclose(self) -> None:
        await self._waiting.aclose()

    async def _take_request(self, request: Request) -> None:
        if self._is_in_flight(request.id):
            raise UsageError(f"a request with the id {request.id!r} is in flight already", hint="Give each its own id")
        refusal = refusal_of(request)
        if refusal is not None:
            await trio.lowlevel.checkpoint()
            self.link.give(refusal)
        elif await self._waiting.is_ready():
            await self._dispatch(request)
        else:
            self._waiting.keep(request)

    def _is_in_flight(self, request_id: RequestId) -> bool:
        return request_id in self._waiting or request_id in self._by_client or request_id in self._listeners

    async def _dispatch(self, request: Request) -> None:
        if request.method == DISCOVER:
            await trio.lowlevel.checkpoint()
            self.link.give(Response(request.id, self._handshake.discovered()))
        elif request.method == LISTEN:
            await trio.lowlevel.checkpoint()
            self._listeners.open(request, self._handshake.capabilities)
        elif "requestState" in members_of(request.params):
            await self._resume(request)
        else:
            await self._call(ModernCall(next(self._ids), request))

    async def _call(self, call: ModernCall) -> None:
        """Send a client's request to the server."""
        self._calls[call.id] = self._by_client[call.request.id] = call
        try:
            await self._levels.want(call, self._calls.values(), self._handshake.capabilities)
            await self.link.send(call.for_server())
        except BaseException as error:
            is_settled = self._calls.get(call.id) is not call
            if is_settled and isinstance(error, TransportError):
                return
            self._forget(call)
            raise

    async def _resume(self, request: Request) -> None:
        """Continue a call with the input that its client was asked for."""
        await trio.lowlevel.checkpoint()
        try:
            call = self._pending.resume(request)
        except ValueError as error:
            self.link.give(ErrorResponse(request.id, INVALID_PARAMS, str(error)))
            return
        if call.repeats:
            await self._call(ModernCall(next(self._ids), request))
            return
        self._by_client[request.id] = call
        answers = members_of(members_of(request.params).get("inputResponses"))
        for key, question in list(call.questions.items()):
            if key in answers and (call.answer is None or question.is_placed):
                del call.questions[key]
                self._answer(call, question, answers[key])
        if call.answer is not None:
            self._settle(call, call.answer)
        elif call.questions:
            self._ask_later(call)

    def _answer(self, call: ModernCall, question: InputQuestion, answer: Any) -> None:
        """Send a client's input to the server."""
        assert question.id is not None
        del self._asked[question.id]

        def fail(error: TransportError) -> None:
            if self._by_client.get(call.request.id) is call:
                self._settle(call, Undelivered.of(call.request, error))

        self.link.post(Response(question.id, answer), fail)

    async def _take_client_notification(self, notification: Notification) -> None:
        request_id = cancelled_id(notification)
        if request_id is not None:
            await self._cancel(request_id, notification)
        elif notification.method not in _DROPPED:
            await self.link.send(notification)
        else:
            await trio.lowlevel.checkpoint()

    async def _cancel(self, request_id: RequestId, notification: Notification) -> None:
        call = self._by_client.get(request_id)
        if call is not None:
            self._withdraw(call, "the client cancelled its request")
            params = {**members_of(notification.params), "requestId": call.id}
            await self.link.send(attrs.evolve(notification, params=params))
            return
        await trio.lowlevel.checkpoint()
        if not self._listeners.close(request_id):
            self._waiting.forget(request_id)

    # Messages of the server.

    def take(self, message: Incoming) -> None:
        if isinstance(message, Request):
            self._take_question(message)
        elif isinstance(message, Notification):
            self._take_notification(message)
        else:
            self._take_answer(message)

    def _take_answer(self, message: Response | ErrorResponse) -> None:
        own = None if message.id is None else self._own.pop(message.id, None)
        call = None if message.id is None else self._calls.get(message.id)
        if own is not None:
            own(message)
        elif call is None:
            self.link.scope.discard(ProtocolViolation(f"an answer to no request in flight, id {message.id!r}"))
        elif not call.is_awaited:
            del self._calls[call.id]
            call.answer = message
        elif isinstance(message, ErrorResponse) and message.code == URL_ELICITATION_REQUIRED:
            self._ask_to_visit(call, message)
        else:
            self._settle(call, message)

    def _settle(self, call: ModernCall, answer: Response | ErrorResponse) -> None:
        """Answer the client's request."""
        self._forget(call)
        request = call.request
        if isinstance(answer, Undelivered):
            self.link.give(attrs.evolve(answer, id=request.id, original=request))
        elif isinstance(answer, ErrorResponse):
            self.link.give(attrs.evolve(to_modern_error(answer), id=request.id))
        else:
            result = to_modern_result(request.method, answer.result, self._handshake.server_info)
            self.link.give(attrs.evolve(answer, id=request.id, result=result))
        self._place_again(call)

    def _forget(self, call: ModernCall) -> None:
        self._calls.pop(call.id, None)
        if self._by_client.get(call.request.id) is call:
            del self._by_client[call.request.id]
        for question in call.questions.values():
            if question.id is not None:
                self._asked.pop(question.id, None)

    def _withdraw(self, call: ModernCall, reason: str) -> None:
        """Forget a call, and refuse the questions that its client has not answered."""
        self._forget(call)
        for question in call.questions.values():
            if question.id is not None and call.answer is None and not question.is_placed:
                self.link.post(ErrorResponse(question.id, INTERNAL_ERROR, reason))
        self._place_again(call)

    def _expire(self, call: ModernCall) -> None:
        """Cancel a call whose client has not come back with the input."""
        reason = "the client did not give the input in time"
        logger.info("%s: %s is cancelled: %s", self.link.target, call.request.method, reason)
        self._withdraw(call, reason)
        if call.answer is None and not call.repeats:
            self.link.post(Notification(CANCELLED, {"requestId": call.id, "reason": reason}))

    # Questions of the server.

    def _take_question(self, request: Request) -> None:
        if request.method == PING:
            self.link.answer(request, Response(request.id, {}))
            return
        if request.method not in QUESTIONS:
            self.link.refuse(request, METHOD_NOT_FOUND, f"Method not found: {request.method}")
            return
        self._place(InputQuestion(request.method, request.params, request.id), request)

    def _place(self, question: InputQuestion, request: Request) -> None:
        """Add a question to the call that it belongs to, or may belong to, or refuse it."""
        related = metadata_of(request).get("related_request")
        call = self._only_client_for(question) if related is None else self._calls.get(related)
        refusal = self._refusal_of(call, question)
        if call is None or refusal is not None:
            self.link.refuse(request, *(refusal or (INVALID_REQUEST, "No request is in flight")))
            return
        call.add(attrs.evolve(question, is_placed=related is None and len(self._calls) > 1))
        self._asked[request.id] = call
        if call.is_awaited:
            self._ask_later(call)

    def _place_again(self, call: ModernCall) -> None:
        """Find another call for the questions that are not known to belong to one that is over."""
        for question in call.questions.values():
            if question.id is not None and question.is_placed:
                self._place(question, Request(question.id, question.method, question.params))

    def _only_client_for(self, question: InputQuestion) -> ModernCall | None:
        """The call for a question that does not say to which it belongs: one of the only client; else None.

        Of several, it is one during which the client takes the question, and waits for an answer.
        """
        calls = list(self._calls.values())
        if len({call.client for call in calls}) != 1:
            return None
        return max(calls, key=lambda call: (call.may_be_asked(question), call.is_awaited))

    def _refusal_of(self, call: ModernCall | None, question: InputQuestion) -> tuple[int, str] | None:
        """The code and the reason to refuse a question, or None."""
        method = question.method
        if question.id in self._asked:
            return INVALID_REQUEST, "A request with this id is in flight"
        if call is None:
            flying = len(self._calls)
            reason = f"{method} does not say to which of {flying} requests of several clients it belongs"
            return INVALID_REQUEST, reason if flying else f"No request is in flight whose client {method} could ask"
        if call.request.method not in MAY_ASK:
            return INVALID_REQUEST, f"A client cannot be asked during {call.request.method}"
        if not question.is_offered_by(call.capabilities):
            return METHOD_NOT_FOUND, f"The client of this request has no capability for {method}"
        if len(call.questions) >= MAX_QUESTIONS or (call.is_awaited and len(self._pending) >= self._max_pending):
            return INTERNAL_ERROR, "Too many questions wait for the input of clients"
        return None

    def _ask_later(self, call: ModernCall) -> None:
        """Ask the client, together with the questions that the server has already sent."""
        if call not in self._to_ask:
            self._to_ask.append(call)
        self.link.hold(self._ask_clients)

    def _ask_clients(self) -> None:
        calls, self._to_ask = self._to_ask, []
        for call in calls:
            if call.questions and self._by_client.get(call.request.id) is call:
                del self._by_client[call.request.id]
                self.link.give(self._pending.ask(call))

    def _ask_to_visit(self, call: ModernCall, error: ErrorResponse) -> None:
        """Ask a client to visit the URLs without which the server has refused the request."""
        self._forget(call)
        urls = [InputQuestion(ELICIT, each, None) for each in items_of(members_of(error.data).get("elicitations"))]
        if not all(question.is_offered_by(call.capabilities) for question in urls):
            data: dict[str, Any] = {"requiredCapabilities": {"elicitation": {"url": {}}}}
            self.link.give(ErrorResponse(call.request.id, MISSING_CLIENT_CAPABILITY, error.message, data))
        elif not urls or call.request.method not in MAY_ASK or len(self._pending) >= self._max_pending:
            self.link.give(attrs.evolve(to_modern_error(error), id=call.request.id))
        else:
            call.repeats, call.questions = True, {}
            for question in urls:
                call.add(question)
            self.link.give(self._pending.ask(call))

    # Notifications of the server.

    def _take_notification(self, notification: Notification) -> None:
        if notification.method == PROGRESS:
            self._take_progress(notification)
        elif notification.method == LOG:
            for call in self._levels.readers(notification, self._calls):
                self._give_related(notification, call)
        elif notification.method == CANCELLED:
            self._take_back(notification)
        elif notification.method != ELICITED and not self._listeners.take(notification):
            related = metadata_of(notification).get("related_request")
            self._give_related(notification, None if related is None else self._calls.get(related))

    def _take_progress(self, notification: Notification) -> None:
        token = members_of(notification.params).get("progressToken")
        call = self._calls.get(token) if isinstance(token, int) else None
        if call is not None and call.is_awaited and call.token is not None:
            self._give_related(progress_of(call, notification), call)

    def _take_back(self, notification: Notification) -> None:
        """Take back a question that the server has cancelled; a client that was asked already answers in vain."""
        question_id = cancelled_id(notification)
        call = None if question_id is None else self._asked.pop(question_id, None)
        if call is not None:
            call.questions = {key: each for key, each in call.questions.items() if each.id != question_id}

    def _give_related(self, notification: Notification, call: ModernCall | None) -> None:
        metadata: dict[str, Any] = dict(without(notification.metadata, "related_request"))
        if call is not None:
            metadata |= Metadata(related_request=call.request.id)
        self.link.give(attrs.evolve(notification, metadata=metadata))

    def _ask_server(
        self, method: str, params: Mapping[str, Any], then: Callable[[Response | ErrorResponse], object]
    ) -> None:
        """Send a request of the translation's own; ``then`` takes its answer."""
        request = Request(next(self._ids), method, params)
        self._own[request.id] = then

        def fail(error: TransportError) -> None:
            if self._own.pop(request.id, None) is not None:
                then(Undelivered.of(request, error))

        self.link.post(request, fail)

    # The end.

    def end(self, loss: TransportError, *, in_order: bool) -> None:
        for call in list(self._by_client.values()):
            self._settle(call, Undelivered.of(call.request, loss))
        self._waiting.end(loss)
        self._listeners.end(loss, in_order=in_order)
