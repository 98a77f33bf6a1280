"""Spans in memory, for tests: what was begun, what was ended, and how they hang together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler


class Recorder(SpanProcessor):
    """Keeps every span of its provider."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.begun: list[Span] = []
        self.ended: list[ReadableSpan] = []
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.begun.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)

    @property
    def facts(self) -> list[dict[str, Any]]:
        return facts_of(self.ended)

    def one(self, name: str) -> dict[str, Any]:
        [found] = [fact for fact in self.facts if fact["name"] == name]
        return found

    def assert_all_ended_once(self) -> None:
        begun = sorted(span.get_span_context().span_id for span in self.begun)
        assert begun == sorted(span.context.span_id for span in self.ended if span.context)


def facts_of(spans: Sequence[ReadableSpan]) -> list[dict[str, Any]]:
    """The spans as plain values, which can also be sent from one process to another."""
    return [_fact(span) for span in spans]


def _fact(span: ReadableSpan) -> dict[str, Any]:
    attributes: Mapping[str, Any] = span.attributes or {}
    assert span.context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "attributes": dict(attributes),
        "status": span.status.status_code.name,
        "description": span.status.description,
    }
