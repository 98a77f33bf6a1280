"""The requests of modern clients that a legacy server works on, and those among them that wait for a client's input.

Specification 2026-07-28, basic/patterns/mrtr.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs
import trio

from trioxport.messages import ErrorResponse, Notification, Request, RequestId, Response
from trioxport.metadata import metadata_of
from trioxport.peer.client_handlers import ELICIT, ROOTS, SAMPLE
from trioxport.protocol import as_id, members_of, meta_of
from trioxport.servers.translation._link import Link
from trioxport.servers.translation._members import (
    CALL_TOOL,
    CAPABILITIES_KEY,
    INPUT_REQUIRED,
    LEVEL_KEY,
    REQUEST_KEYS,
    with_meta,
    without,
    without_meta,
)

QUESTIONS: Final = (ELICIT, SAMPLE, ROOTS)
"""The requests of a legacy server that a modern client can be asked."""
MAY_ASK: Final = (CALL_TOOL, "prompts/get", "resources/read")
"""The requests of a modern client that may be answered by questions."""
MAX_QUESTIONS: Final = 64
"""Questions of one request that may wait for the client at the same time."""

_INPUT: Final = ("inputResponses", "requestState")


@attrs.frozen(eq=False)
class InputQuestion:
    """A question for a client.

    Args:
        method: The method of the request that asks it.
        params: Its parameters, or None.
        id: The id of the server's request; None for one that no answer is sent to.
        is_placed: Whether the server did not say to which of several requests it belongs.
    """

    method: str
    params: Any
    id: RequestId | None
    is_placed: bool = False

    def as_input_request(self) -> dict[str, Any]:
        """The member of ``inputRequests``."""
        return {"method": self.method} if self.params is None else {"method": self.method, "params": self.params}

    def is_offered_by(self, capabilities: Mapping[str, Any]) -> bool:
        """Whether a client of these capabilities may be asked."""
        params = members_of(self.params)
        if self.method == ELICIT:
            modes = capabilities.get("elicitation")
            mode = params.get("mode", "form")
            is_named = isinstance(mode, str) and mode in members_of(modes)
            return isinstance(modes, dict) and (is_named or (mode == "form" and not modes))
        if self.method == SAMPLE:
            return "sampling" in capabilities and ("tools" not in params or _has_tools(capabilities))
        return "roots" in capabilities


@attrs.define(eq=False)
class ModernCall:
    """A request of a client, and its state at the server.

    Attributes:
        id: Its id at the server.
        request: The request, as the client sent it last.
        is_awaited: Whether the client waits for an answer; otherwise it has been asked for input.
        questions: The questions that are not answered, by the keys for the client.
        answer: The server's answer, which came while the client was asked.
        repeats: Whether the server has refused the request for lack of input: it is to be sent once more.
        numbers: The number of questions so far.
        deadline: The time until which the client has to come back with the input.
    """

    id: RequestId
    request: Request
    is_awaited: bool = True
    questions: dict[str, InputQuestion] = attrs.Factory(dict[str, InputQuestion])
    answer: Response | ErrorResponse | None = None
    repeats: bool = False
    numbers: int = 0
    deadline: float = 0.0

    @property
    def principal(self) -> str | None:
        return metadata_of(self.request).get("principal")

    @property
    def client(self) -> tuple[str | None, str | None]:
        """The identity of the client: its principal, or else its connection where that is known."""
        noted = metadata_of(self.request)
        return self.principal, None if self.principal is not None else noted.get("client")

    @property
    def token(self) -> RequestId | None:
        """The client's progress token."""
        return as_id(meta_of(self.request.params).get("progressToken"))

    @property
    def level(self) -> str | None:
        """The level from which the client wants log messages, or None."""
        return meta_of(self.request.params).get(LEVEL_KEY)

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return members_of(meta_of(self.request.params).get(CAPABILITIES_KEY))

    def add(self, question: InputQuestion) -> None:
        self.numbers += 1
        self.questions[str(self.numbers)] = question

    def may_be_asked(self, question: InputQuestion) -> bool:
        """Whether the client takes a question during this request."""
        return self.request.method in MAY_ASK and question.is_offered_by(self.capabilities)

    def for_server(self) -> Request:
        """The request as the server gets it."""
        params: Any = without_meta(without(members_of(self.request.params), *_INPUT), *REQUEST_KEYS)
        if self.token is not None:
            params = with_meta(params, progressToken=self.id)
        return attrs.evolve(self.request, id=self.id, params=params)


def _has_tools(capabilities: Mapping[str, Any]) -> bool:
    return "tools" in members_of(capabilities["sampling"])


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def asks_for(request: Request) -> tuple[str, Mapping[str, Any]]:
    """The part of a request that its repetition with input must have too."""
    return request.method, without(members_of(request.params), "_meta", *_INPUT)


class PendingCalls:
    """The calls that wait for a client's input, by their ``requestState``.

    Args:
        link: The channels.
        timeout: Seconds that each may wait.
        expire: Called with each that has waited for so long.
    """

    def __init__(self, link: Link, timeout: float, expire: Callable[[ModernCall], object]) -> None:
        self._link = link
        self._timeout = timeout
        self._expire = expire
        self._by_state: dict[str, ModernCall] = {}
        self._is_watching = False

    def __len__(self) -> int:
        return len(self._by_state)

    def __iter__(self) -> Iterator[ModernCall]:
        return iter(self._by_state.values())

    def ask(self, call: ModernCall) -> Response:
        """The ``input_required`` result of a call, which waits from now on."""
        state = secrets.token_urlsafe(32)
        call.is_awaited = False
        call.deadline = trio.current_time() + self._timeout
        self._by_state[state] = call
        if not self._is_watching:
            self._is_watching = True
            self._link.start(self._watch)
        questions = {key: question.as_input_request() for key, question in call.questions.items()}
        result = {"resultType": INPUT_REQUIRED, "inputRequests": questions, "requestState": state}
        return Response(call.request.id, result)

    def resume(self, request: Request) -> ModernCall:
        """The call that ``request`` repeats, which no longer waits.

        Raises ``ValueError`` with the reason of a refusal.
        """
        state = members_of(request.params).get("requestState")
        call = self._by_state.get(state) if isinstance(state, str) else None
        if call is None or call.principal != metadata_of(request).get("principal"):
            raise ValueError("requestState is unknown or has expired: begin the request anew")
        if asks_for(request) != asks_for(call.request):
            raise ValueError("requestState belongs to another request")
        answers = members_of(request.params).get("inputResponses", {})
        if not _is_object(answers) or not all(map(_is_object, members_of(answers).values())):
            raise ValueError("inputResponses has to be an object of results")
        assert isinstance(state, str)
        del self._by_state[state]
        call.request, call.is_awaited = request, True
        return call

    async def _watch(self) -> None:
        """Expire the calls, which are in the order of their deadlines."""
        while self._by_state:
            state, call = next(iter(self._by_state.items()))
            if trio.current_time() >= call.deadline:
                del self._by_state[state]
                self._expire(call)
            else:
                await trio.sleep_until(call.deadline)
        self._is_watching = False


def progress_of(call: ModernCall, notification: Notification) -> Notification:
    """A progress notification of the server, with the client's token."""
    return attrs.evolve(notification, params={**members_of(notification.params), "progressToken": call.token})
