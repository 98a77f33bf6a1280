"""OpenTelemetry spans by the semantic conventions for MCP, in one trace across any transport.

The context travels in ``params._meta`` as ``traceparent``, ``tracestate`` and ``baggage`` (specification 2026-07-28,
basic/index, section OpenTelemetry trace context).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

import attrs

from trioxport._diagnostics.hints import install_hint
from trioxport._diagnostics.text_redaction import redact_text
from trioxport._diagnostics.validators import FLAG
from trioxport.abc import MessageChannels, Scope
from trioxport.errors import TransportError, UsageError
from trioxport.layers import _conventions as names
from trioxport.layers._operations import Failure, Operation, watched
from trioxport.messages import (
    NOTHING,
    Incoming,
    Notification,
    Params,
    Request,
    Response,
    Undelivered,
)
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import INITIALIZE, members_of, meta_of

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Link, Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

_W3C: Final = frozenset({"traceparent", "tracestate", "baggage"})


@attrs.frozen
class Tracing:
    """A span for each request and notification: of kind CLIENT where it is sent, SERVER where it is received.

    The span of a sent request ends with its answer, that of a received one when it is answered. An ``Undelivered``, a
    cancellation and a connection that ends without an answer end it too, with an ``error.type``, and
    ``trioxport.outcome`` where that is known. The span of a notification covers its sending, or has no length on the
    side that receives it.

    A sent message carries the context of its span in ``params._meta``, also if the span is not sampled; one whose
    ``_meta`` has a ``traceparent`` continues that trace. A server takes the context of a received message from
    ``_meta``, or else from its HTTP headers. A received message has a :class:`~trioxport.layers.tracing.Within` in
    ``metadata["within"]``; :mod:`trioxport.peer` runs its handlers in that context.

    Below ``Retry`` each attempt has its own span, with ``trioxport.attempt``; all of them have the parent of the first.

    Args:
        tracer_provider: The receiver of the spans; OpenTelemetry's global provider by default.
        propagator: The format of the context on the wire; OpenTelemetry's global propagator by default.
        notifications: Whether notifications have spans and carry a context too.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """

    level: ClassVar[Literal["message"]] = "message"

    tracer_provider: TracerProvider | None = None
    propagator: TextMapPropagator | None = None
    notifications: bool = attrs.field(default=True, validator=FLAG, kw_only=True)

    def __attrs_post_init__(self) -> None:
        try:
            import_module("opentelemetry.trace")
        except ModuleNotFoundError as error:
            raise UsageError(
                "Tracing needs OpenTelemetry, which is not installed",
                hint=install_hint("otel"),
            ) from error

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return watched(channels, scope, _Spans(self, scope))


class Within:
    """A context manager that makes the context of a received message the current one, for a block of one task.

    ::

        with message.metadata["within"]:
            ...  # spans that begin here are children of the message's span

    Args:
        context: The context: the message's span, and the baggage that came with it.
    """

    __slots__ = ("_token", "context")

    def __init__(self, context: Context) -> None:
        self.context = context
        self._token: Token[Context] | None = None

    def __enter__(self) -> Self:
        from opentelemetry.context import attach

        self._token = attach(self.context)
        return self

    def __exit__(self, *_: object) -> None:
        from opentelemetry.context import detach

        assert self._token is not None
        detach(self._token)


class _Spans:
    """Begins the spans of one connection."""

    def __init__(self, layer: Tracing, scope: Scope) -> None:
        from opentelemetry import baggage, context, propagate, trace

        from trioxport._version import __version__

        self._start = trace.get_tracer("trioxport", __version__, layer.tracer_provider).start_span
        self._client_kind, self._server_kind = trace.SpanKind.CLIENT, trace.SpanKind.SERVER
        self._trace = trace
        self._no_state = trace.DEFAULT_TRACE_STATE
        self._current = context.get_current
        self._propagator = layer.propagator or propagate.get_global_textmap()
        self._fields = tuple(self._propagator.fields)
        self._writes_w3c = _W3C.issuperset(self._fields) and "traceparent" in self._fields
        self._baggage = baggage.get_all
        self._notifications = layer.notifications
        self._info = scope.info
        self._serving = scope.settings.role == "server"
        network = names.network_of(scope)
        self._to_them: dict[str, AttributeValue] = {**network, **names.server_of(scope)}
        self._from_them: dict[str, AttributeValue] = {**network, **names.client_of(scope)}

    def sending(self, message: Request | Notification) -> tuple[Request | Notification, Operation | None]:
        if type(message) is Notification and not self._notifications:
            return message, None
        meta = meta_of(message.params)
        attempt = None if message.metadata is NOTHING else metadata_of(message).get("attempt")
        parent = (None if meta is NOTHING else self._extracted(meta)) or self._current()
        name, attributes = self._described(message, meta, self._to_them)
        if attempt is not None:
            attributes[names.ATTEMPT] = attempt
        span = self._start(name, parent, self._client_kind, attributes)
        carrying = _carrying(message, meta, self._injected(span, parent))
        return carrying, _SentSpan(message, span, self) if span.is_recording() else None

    def received(self, message: Request | Notification) -> tuple[Request | Notification, Operation | None]:
        if not self._notifications and type(message) is Notification:
            return message, None
        meta = meta_of(message.params)
        parent = self._extracted(meta) or self._extracted(self._headers(message))
        links = None if parent is None else self._ambient()
        name, attributes = self._described(message, meta, self._from_them)
        span = self._start(name, parent, self._server_kind, attributes, links)
        within = Within(self._trace.set_span_in_context(span, parent))
        noted: Mapping[str, Any] = Metadata(within=within)
        if message.metadata is not NOTHING:
            noted = {**message.metadata, **noted}
        return _copy(message, message.params, noted), _Span(message.method, span) if span.is_recording() else None

    def lost(self, error: TransportError) -> None:
        """Do nothing: the span of each request records the loss."""

    def learned(self, answer: Response) -> dict[str, AttributeValue]:
        """The attributes that are known once ``initialize`` is answered."""
        version = members_of(answer.result).get("protocolVersion")
        found = {names.SESSION: self._info.session_id, names.PROTOCOL_VERSION: version}
        return {name: names.clean(value) for name, value in found.items() if isinstance(value, str)}

    def _injected(self, span: Span, parent: Context) -> dict[str, str]:
        """The propagation fields that carry the context of ``span``."""
        trace_id, span_id, _, flags, state, is_valid = span.get_span_context()  # half the time of its properties
        plain = self._writes_w3c and (state is self._no_state or not state)
        if plain and not (parent and self._baggage(parent)):
            # The whole context in the format of W3C, in a quarter of the propagator's time.
            return {"traceparent": "00-%032x-%016x-%02x" % (trace_id, span_id, flags)} if is_valid else {}  # noqa: UP031 (fast)
        carried: dict[str, str] = {}
        context = self._trace.set_span_in_context(span, parent)
        self._propagator.inject(carried, context)  # pyright: ignore[reportArgumentType] # its default setter takes it
        return carried

    def _headers(self, message: Request | Notification) -> Mapping[str, Any]:
        """The HTTP headers of a received message, where proxies put their trace context."""
        if not self._serving or message.metadata is NOTHING:
            return NOTHING
        return metadata_of(message).get("headers") or NOTHING

    def _extracted(self, carrier: Mapping[str, Any]) -> Context | None:
        """The trace context in a message's ``_meta`` or headers; values that are no text in ASCII are ignored."""
        if carrier is NOTHING:
            return None
        carried = {
            field: value for field in self._fields if isinstance(value := carrier.get(field), str) and value.isascii()
        }
        return self._propagator.extract(carried) if carried else None

    def _ambient(self) -> list[Link] | None:
        """A link to the current span of the receiving task, such as that of an HTTP request."""
        ambient = self._trace.get_current_span().get_span_context()
        return [self._trace.Link(ambient)] if ambient.is_valid else None

    def _described(
        self, message: Request | Notification, meta: Mapping[str, Any], connection: Mapping[str, AttributeValue]
    ) -> tuple[str, dict[str, AttributeValue]]:
        """The name and the attributes of a span."""
        method = names.clean(message.method)
        target, subject = names.subject_of(message)
        attributes: dict[str, AttributeValue] = {names.METHOD: method, **connection, **subject}
        if type(message) is Request:
            number = message.id
            attributes[names.REQUEST_ID] = str(number) if type(number) is int else names.clean(str(number))
        info = self._info
        version = (None if meta is NOTHING else meta.get(names.VERSION_IN_META)) or info.protocol_version
        if isinstance(version, str):
            attributes[names.PROTOCOL_VERSION] = names.clean(version)
        if info.session_id is not None:
            attributes[names.SESSION] = info.session_id
        return method if target is None else f"{method} {target}", attributes


class _Span:
    """An operation with its span."""

    __slots__ = ("_span", "method", "original")

    original: Request | None

    def __init__(self, method: str, span: Span) -> None:
        self.method = method
        self.original = None
        self._span = span

    def end(self, failure: Failure | None, answer: Incoming | None) -> None:
        if failure is not None and self._span.is_recording():
            self._record(failure)
        self._span.end()

    def _record(self, failure: Failure) -> None:
        from opentelemetry.trace import StatusCode

        if failure.code is not None:
            self._span.set_attribute(names.STATUS_CODE, str(failure.code))
        if failure.outcome is not None:
            self._span.set_attribute(names.OUTCOME, failure.outcome)
        if failure.type is not None:
            self._span.set_attribute(names.ERROR_TYPE, failure.type)
            self._span.set_status(StatusCode.ERROR, names.clean(redact_text(failure.reason)) or None)


class _SentSpan(_Span):
    """The operation of a sent message."""

    __slots__ = ("_spans",)

    def __init__(self, message: Request | Notification, span: Span, spans: _Spans) -> None:
        super().__init__(message.method, span)
        self.original = message if type(message) is Request else None
        self._spans = spans

    def end(self, failure: Failure | None, answer: Incoming | None) -> None:
        attempt = metadata_of(answer).get("attempt") if isinstance(answer, Undelivered) else None
        if attempt is not None:
            self._span.set_attribute(names.ATTEMPT, attempt)
        elif self.method == INITIALIZE and isinstance(answer, Response):
            self._span.set_attributes(self._spans.learned(answer))
        super().end(failure, answer)


def _carrying(
    message: Request | Notification, meta: Mapping[str, Any], carried: Mapping[str, str]
) -> Request | Notification:
    """The message with a context in its ``_meta``; unchanged if its parameters are an array."""
    params = message.params
    if not carried or isinstance(params, list):
        return message
    meta = carried if meta is NOTHING else {**meta, **carried}
    params = {**params, "_meta": meta} if params else {"_meta": meta}
    return _copy(message, params, message.metadata)


def _copy(
    message: Request | Notification, params: Params | None, metadata: Mapping[str, Any]
) -> Request | Notification:
    """A changed copy, made in half the time of ``attrs.evolve``."""
    if type(message) is Request:
        return Request(message.id, message.method, params, message.extra, metadata)
    return Notification(message.method, params, message.extra, metadata)
