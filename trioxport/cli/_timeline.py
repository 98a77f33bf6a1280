"""A timeline as text: a line for each message, and the latencies by method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from trioxport.cli._output import escaped
from trioxport.diagnosis.latencies import duration
from trioxport.diagnosis.timeline import Step, Timeline
from trioxport.messages import ErrorResponse

MAX_LABEL_CHARACTERS: Final = 60


def timeline_text(timeline: Timeline) -> str:
    """The timeline, each message in a line: its time, its connection, its direction, its request and the latency."""
    if not timeline.steps:
        return "no messages"
    rows: list[tuple[str, ...]] = [("time", "conn", "", "id", "message", "latency", "")]
    rows += [_row(timeline, step) for step in timeline.steps]
    return "\n".join([*aligned(rows, ">><<<><"), "", *_summary(timeline)])


def timeline_lines(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """The timeline for programs: a JSON object for each message, its latency in seconds at the answer."""
    for step in timeline.steps:
        exchange = step.exchange
        latency = exchange.latency if step.is_answer and exchange is not None else None
        yield {
            "time": step.recorded.time,
            "connection": step.recorded.session,
            "from": "client" if step.recorded.from_client else "server",
            "id": None if exchange is None else exchange.request.id,
            "message": step.label,
            "latency": None if latency is None else round(latency, 6),
            "remark": _remark(step) or None,
        }


def _row(timeline: Timeline, step: Step) -> tuple[str, ...]:
    exchange = step.exchange
    latency = "" if not step.is_answer or exchange is None or exchange.latency is None else duration(exchange.latency)
    return (
        f"{step.recorded.time - timeline.begin:.3f}",
        str(step.recorded.session),
        "->" if step.recorded.from_client else "<-",
        "" if exchange is None else cut(str(exchange.request.id), 12),
        cut(step.label, MAX_LABEL_CHARACTERS),
        latency,
        cut(_remark(step), MAX_LABEL_CHARACTERS),
    )


def _remark(step: Step) -> str:
    """The outcome of a request, at its answer or, without one, at the request; or the fault of the message."""
    exchange, error = step.exchange, step.recorded.error
    if error is not None:
        return error
    if exchange is None or exchange.state == "answered":
        return ""
    if isinstance(message := step.recorded.message, ErrorResponse):
        return f"error {message.code}: {message.message}"
    ends_here = step.is_answer or (exchange.answer is None and step.recorded is exchange.asked)
    return exchange.state if ends_here else ""


def _summary(timeline: Timeline) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("requests", "count", "failed", "median", "95 %", "max")]
    for each in timeline.summaries():
        figures = ["-" if seconds is None else duration(seconds) for seconds in (each.median, each.p95, each.maximum)]
        rows.append((cut(each.method, MAX_LABEL_CHARACTERS), str(each.count), str(each.failed), *figures))
    yield from aligned(rows, "<>>>>>")


def aligned(rows: Sequence[Sequence[str]], alignments: str) -> list[str]:
    """The rows of a table as lines; ``alignments`` has ``<`` or ``>`` for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{align}{width}}" for cell, align, width in zip(row, alignments, widths, strict=True)).rstrip()
        for row in rows
    ]


def cut(text: str, size: int) -> str:
    """A text in one line of at most ``size`` characters, without control characters."""
    text = escaped(text).replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= size else text[: size - 1] + "…"
