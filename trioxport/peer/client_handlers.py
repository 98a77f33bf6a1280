"""The answers of a client to what servers ask of it, in both eras.

In the legacy era a server sends requests; in the modern one it answers a request with questions, and the client sends
the request again with the answers (2026-07-28, basic/patterns/mrtr).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import attrs

from trioxport._diagnostics.validators import ASYNC_FUNCTION
from trioxport.errors import ProtocolViolation
from trioxport.messages import Notification
from trioxport.peer.endpoint import IncomingRequest, RequestHandler
from trioxport.peer.incoming import NotificationHandler
from trioxport.protocol import METHOD_NOT_FOUND, JSONRPCError, members_of

Answer: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Takes the parameters of a request, and returns the members of its result."""

ELICIT: Final = "elicitation/create"
SAMPLE: Final = "sampling/createMessage"
ROOTS: Final = "roots/list"
LOG: Final = "notifications/message"


@attrs.frozen(kw_only=True)
class Handlers:
    """The async functions that answer a server; each that is given is offered to the server as a capability.

    Args:
        elicit: Takes the parameters of ``elicitation/create``, returns an ``ElicitResult``:
            ``{"action": "accept", "content": {...}}``, or the action ``"decline"`` or ``"cancel"``.
        sample: Takes the parameters of ``sampling/createMessage``, returns a ``CreateMessageResult``.
        roots: Returns the URIs of the roots (``file://...``).
        log: Takes the parameters of each ``notifications/message``.
    """

    elicit: Answer | None = attrs.field(default=None, validator=ASYNC_FUNCTION.or_none())
    sample: Answer | None = attrs.field(default=None, validator=ASYNC_FUNCTION.or_none())
    roots: Callable[[], Awaitable[Sequence[str]]] | None = attrs.field(default=None, validator=ASYNC_FUNCTION.or_none())
    log: Callable[[Mapping[str, Any]], Awaitable[object]] | None = attrs.field(
        default=None, validator=ASYNC_FUNCTION.or_none()
    )

    def capabilities(self) -> dict[str, Any]:
        """The capabilities that the handlers stand for."""
        offered = {"elicitation": self.elicit, "sampling": self.sample, "roots": self.roots}
        return {name: {} for name, handler in offered.items() if handler is not None}

    def requests(self) -> dict[str, RequestHandler]:
        """The handlers of the requests that a legacy server sends."""
        return {method: partial(_answer_request, answer) for method, answer in self._answers().items()}

    def notifications(self) -> dict[str, NotificationHandler]:
        """The handlers of notifications."""
        return {} if self.log is None else {LOG: partial(_pass_on, self.log)}

    async def answer_all(self, requests: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the questions of a modern server, one after another.

        Args:
            requests: The ``inputRequests`` of its result, by the server's keys.

        Raises:
            ProtocolViolation: A question is none, or is of a kind that was not offered to the server.
        """
        answers = self._answers()
        given: dict[str, Any] = {}
        for key, request in requests.items():
            method = members_of(request).get("method")
            answer = answers.get(method) if isinstance(method, str) else None
            if answer is None:
                raise ProtocolViolation(f"the server asks for {method!r}, which this client did not offer")
            given[key] = dict(await answer(members_of(members_of(request).get("params"))))
        return given

    def _answers(self) -> dict[str, Answer]:
        known = {ELICIT: self.elicit, SAMPLE: self.sample, ROOTS: self._list_roots if self.roots else None}
        return {method: answer for method, answer in known.items() if answer is not None}

    async def _list_roots(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.roots is None:
            raise JSONRPCError(METHOD_NOT_FOUND, "This client has no roots")
        return {"roots": [{"uri": uri} for uri in await self.roots()]}


async def _answer_request(answer: Answer, request: IncomingRequest) -> Mapping[str, Any]:
    return await answer(request.params)


async def _pass_on(handler: Callable[[Mapping[str, Any]], Awaitable[object]], notification: Notification) -> None:
    await handler(members_of(notification.params))
