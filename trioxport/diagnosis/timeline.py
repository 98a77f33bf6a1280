"""The timeline of a recording: its messages in order, each with the request that it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

import attrs

from trioxport.diagnosis.latencies import percentile
from trioxport.diagnosis.recording import RecordedMessage
from trioxport.messages import ErrorResponse, Notification, Request, RequestId, Response
from trioxport.protocol import PROGRESS, as_id, cancelled_id, members_of, meta_of

State: TypeAlias = Literal["answered", "error", "tool error", "cancelled", "unanswered", "not sent"]
FAILED: Final = ("error", "tool error", "unanswered", "not sent")
"""The states of requests that failed."""

_SUBJECTS: Final = ("name", "uri")
_Key: TypeAlias = tuple[int, bool, RequestId]


@attrs.define(eq=False)
class RecordedRequest:
    """A request, with all that belongs to it.

    Args:
        number: Its number in the recording, from 1.
        asked: The recorded request.
        request: The request itself.
        answer: The recorded answer; None if there is none.
        is_cancelled: Whether its sender cancelled it.
    """

    number: int
    asked: RecordedMessage
    request: Request
    answer: RecordedMessage | None = None
    is_cancelled: bool = False

    @property
    def label(self) -> str:
        """The method, and the name of the tool or prompt, or the URI of the resource, if it has one."""
        params = members_of(self.request.params)
        subject = next((params[name] for name in _SUBJECTS if isinstance(params.get(name), str)), None)
        return self.request.method if subject is None else f"{self.request.method} {subject}"

    @property
    def latency(self) -> float | None:
        """Seconds between the request and its answer; None if there is none."""
        return None if self.answer is None else max(self.answer.time - self.asked.time, 0.0)

    @property
    def state(self) -> State:
        """The end of the request."""
        if self.answer is None:
            unanswered: State = "cancelled" if self.is_cancelled else "unanswered"
            return "not sent" if self.asked.error is not None else unanswered
        message = self.answer.message
        if isinstance(message, Response):
            return "tool error" if members_of(message.result).get("isError") is True else "answered"
        return "error"


@attrs.frozen
class Step:
    """A message of the timeline, and the request that it belongs to; None if it belongs to none."""

    recorded: RecordedMessage
    exchange: RecordedRequest | None

    @property
    def is_answer(self) -> bool:
        """Whether the message ends its request."""
        return self.exchange is not None and self.recorded is self.exchange.answer

    @property
    def label(self) -> str:
        """The method of the message, or that of the request that it answers."""
        message = self.recorded.message
        if isinstance(message, Notification):
            return message.method
        if self.exchange is not None:
            return self.exchange.label
        return "(an answer to no request)" if isinstance(message, Response | ErrorResponse) else "(no message)"


@attrs.frozen
class MethodSummary:
    """The requests of one method: their number, how many failed, and the median, 95th percentile and maximum of their
    latencies in seconds, None if none was answered."""

    method: str
    count: int
    failed: int
    median: float | None
    p95: float | None
    maximum: float | None


@attrs.frozen
class Timeline:
    """The messages of a recording in order, and its requests.

    Args:
        steps: The messages.
        exchanges: The requests.
        begin: The time of the recording's first message, in seconds since the epoch; 0 if there is none.
    """

    steps: Sequence[Step]
    exchanges: Sequence[RecordedRequest]
    begin: float

    def summaries(self) -> list[MethodSummary]:
        """The requests by method, the most frequent first."""
        by_method: dict[str, list[RecordedRequest]] = defaultdict(list)
        for exchange in self.exchanges:
            by_method[exchange.request.method].append(exchange)
        summaries = [_summary(method, exchanges) for method, exchanges in by_method.items()]
        return sorted(summaries, key=lambda summary: -summary.count)


def _summary(method: str, exchanges: Sequence[RecordedRequest]) -> MethodSummary:
    latencies = sorted(each.latency for each in exchanges if each.latency is not None)
    failed = sum(each.state in FAILED for each in exchanges)
    if not latencies:
        return MethodSummary(method, len(exchanges), failed, None, None, None)
    return MethodSummary(
        method, len(exchanges), failed, percentile(latencies, 50), percentile(latencies, 95), latencies[-1]
    )


@attrs.frozen
class Selection:
    """The messages to show. All conditions have to hold.

    Args:
        method: A pattern for the method, as ``"tools/*"``.
        id: The id of a request, as text: its request, its answer and its progress.
        session: The number of a connection.
        slower: Seconds; requests whose answer took longer, and those that have none.
        failed: Whether to show only requests that failed.
    """

    method: str | None = None
    id: str | None = None
    session: int | None = None
    slower: float | None = None
    failed: bool = False

    def of(self, timeline: Timeline) -> Timeline:
        """The part of a timeline that is selected."""
        chosen = [each for each in timeline.exchanges if self._has_exchange(each)]
        known = {id(each) for each in chosen}
        steps = [
            step
            for step in timeline.steps
            if (id(step.exchange) in known if step.exchange is not None else self._has_alone(step))
        ]
        return Timeline(steps, chosen, timeline.begin)

    def _has_exchange(self, exchange: RecordedRequest) -> bool:
        latency = exchange.latency
        return (
            (self.method is None or fnmatchcase(exchange.request.method, self.method))
            and (self.id is None or str(exchange.request.id) == self.id)
            and self.session in (None, exchange.asked.session)
            and (self.slower is None or latency is None or latency > self.slower)
            and (not self.failed or exchange.state in FAILED)
        )

    def _has_alone(self, step: Step) -> bool:
        """Whether to show a message that belongs to no request."""
        if self.id is not None or self.slower is not None or (self.failed and step.recorded.error is None):
            return False
        return self.session in (None, step.recorded.session) and (
            self.method is None or fnmatchcase(step.label, self.method)
        )


def timeline_of(recording: Iterable[RecordedMessage]) -> Timeline:
    """Match the messages of a recording. Blocks while it is read."""
    matcher = _Matcher()
    steps: list[Step] = []
    for recorded in recording:
        if _repeats(recorded, steps[-1].recorded if steps else None):
            steps[-1] = matcher.not_sent(steps[-1], recorded)
        else:
            steps.append(Step(recorded, matcher.exchange_of(recorded)))
    begin = steps[0].recorded.time if steps else 0.0
    return Timeline(steps, matcher.exchanges, begin)


def _repeats(recorded: RecordedMessage, before: RecordedMessage | None) -> bool:
    """Whether a tap recorded the same message again, because it was not accepted."""
    if recorded.error is None or before is None:
        return False
    return (recorded.session, recorded.payload) == (before.session, before.payload) and (
        recorded.from_client == before.from_client
    )


class _Matcher:
    """Finds the request that each message belongs to."""

    def __init__(self) -> None:
        self.exchanges: list[RecordedRequest] = []
        self._open: dict[_Key, RecordedRequest] = {}
        self._by_token: dict[_Key, RecordedRequest] = {}

    def exchange_of(self, recorded: RecordedMessage) -> RecordedRequest | None:
        message = recorded.message
        if isinstance(message, Request):
            return self._begun(recorded, message)
        if isinstance(message, Response | ErrorResponse):
            return self._answered(recorded, message.id)
        if not isinstance(message, Notification):
            return None
        if message.method == PROGRESS:
            token = as_id(members_of(message.params).get("progressToken"))
            return None if token is None else self._by_token.get((recorded.session, not recorded.from_client, token))
        if (request_id := cancelled_id(message)) is not None:
            return self._cancelled(recorded, request_id)
        return None

    def not_sent(self, step: Step, recorded: RecordedMessage) -> Step:
        if step.exchange is not None and step.recorded is step.exchange.asked:
            step.exchange.asked = recorded
        return Step(recorded, step.exchange)

    def _begun(self, recorded: RecordedMessage, request: Request) -> RecordedRequest:
        exchange = RecordedRequest(len(self.exchanges) + 1, recorded, request)
        self.exchanges.append(exchange)
        self._open[recorded.session, recorded.from_client, request.id] = exchange
        token = as_id(meta_of(request.params).get("progressToken"))
        if token is not None:
            self._by_token[recorded.session, recorded.from_client, token] = exchange
        return exchange

    def _answered(self, recorded: RecordedMessage, request_id: RequestId | None) -> RecordedRequest | None:
        if request_id is None:
            return None
        exchange = self._open.pop((recorded.session, not recorded.from_client, request_id), None)
        if exchange is not None:
            exchange.answer = recorded
        return exchange

    def _cancelled(self, recorded: RecordedMessage, request_id: RequestId) -> RecordedRequest | None:
        exchange = self._open.get((recorded.session, recorded.from_client, request_id))
        if exchange is not None:
            exchange.is_cancelled = True
        return exchange
