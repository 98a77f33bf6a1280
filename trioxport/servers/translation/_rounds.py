"""The rounds of a legacy client's request: what a modern server asks, the client is asked, and the answers go back.

Specification 2026-07-28, basic/patterns/mrtr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio

from trioxport._core.backoff import Backoff
from trioxport._core.reissues import new_request_id
from trioxport.messages import ErrorResponse, Params, Request, RequestId, Response
from trioxport.metadata import Metadata
from trioxport.peer.client_handlers import ELICIT
from trioxport.protocol import as_id, members_of, meta_of

_CANCEL: Final = {"action": "cancel"}
_URL_MODE: Final = "url"


@attrs.frozen
class RoundLimits:
    """The limits of the rounds of one session.

    Args:
        max_rounds: Rounds of one request.
        max_questions: Questions that may wait for the client at the same time.
        answer_timeout: Seconds in which the client has to answer the questions of a round.
        backoff: The waits before a round for which the server asks nothing.
    """

    max_rounds: int
    max_questions: int
    answer_timeout: float
    backoff: Backoff


@attrs.define(eq=False)
class RoundCall:
    """A request of the client, and its state.

    Attributes:
        request: The request, as the client sent it.
        round_id: The id of the round that the server works on; None between rounds.
        rounds: The number of rounds so far.
        questions: The questions that the client has not answered, by the id of their requests.
        answers: The client's answers for the next round, by the server's keys.
        state: The member ``requestState`` for the next round, if there is one.
        pause: The scope of the wait for the next round.
    """

    request: Request
    round_id: RequestId | None = None
    rounds: int = 0
    questions: dict[RequestId, tuple[str, Request]] = attrs.Factory(dict[RequestId, tuple[str, Request]])
    answers: dict[str, Any] = attrs.Factory(dict[str, Any])
    state: dict[str, Any] = attrs.Factory(dict[str, Any])
    pause: trio.CancelScope | None = None

    @property
    def token(self) -> RequestId | None:
        """The progress token."""
        return as_id(meta_of(self.request.params).get("progressToken"))

    def end_pause(self) -> None:
        """End the wait for the next round."""
        if self.pause is not None:
            self.pause.cancel()
            self.pause = None

    def params_of_round(self) -> Params | None:
        """The parameters of the next round."""
        params = self.request.params
        if not self.rounds:
            return params
        added = {"inputResponses": self.answers} if self.answers else {}
        return {**members_of(params), **added, **self.state}

    def ask(self, result: Mapping[str, Any]) -> list[Request]:
        """Take an ``input_required`` result. Returns the requests to the client.

        Raises ``ValueError`` for a question that is none.
        """
        self.round_id = None
        self.questions, self.answers = {}, {}
        self.state = {"requestState": result["requestState"]} if "requestState" in result else {}
        for key, question in members_of(result.get("inputRequests")).items():
            request = self._request_of(members_of(question))
            self.questions[request.id] = key, request
        return [request for _, request in self.questions.values()]

    def _request_of(self, question: Mapping[str, Any]) -> Request:
        method, params = question.get("method"), question.get("params")
        if not isinstance(method, str):
            raise ValueError("a question without a method")
        if method == ELICIT and members_of(params).get("mode") == _URL_MODE:
            params = {"elicitationId": new_request_id(), **members_of(params)}
        return Request(new_request_id(), method, params, metadata=Metadata(related_request=self.request.id))

    def take_answer(self, answer: Response | ErrorResponse) -> ErrorResponse | None:
        """Take the client's answer to a question. Returns the error that ends the call, if it does.

        A modern server takes no errors. An elicitation can be cancelled instead; nothing stands for a refused sampling.
        """
        assert answer.id is not None
        key, question = self.questions.pop(answer.id)
        if isinstance(answer, Response):
            self.answers[key] = answer.result
        elif question.method == ELICIT:
            self.answers[key] = _CANCEL
        else:
            reason = f"the client refused {question.method}, which the server needs: {answer.message}"
            return ErrorResponse(self.request.id, answer.code, reason, answer.data)
        return None
