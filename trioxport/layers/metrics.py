"""Counts, errors, requests in flight and latencies: as a snapshot, and as OpenTelemetry's histograms.

The histograms are those of the semantic conventions for MCP: ``mcp.client.operation.duration``,
``mcp.server.operation.duration``, ``mcp.client.session.duration`` and ``mcp.server.session.duration``. A server's
refusals are the counter ``trioxport.server.refusals``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import attrs
import trio

from trioxport.abc import MessageChannels, Scope
from trioxport.errors import TransportError
from trioxport.layers import _conventions as names
from trioxport.layers._latency import BOUNDARIES_SECONDS, Histogram, Latency
from trioxport.layers._operations import Failure, Operation, watched
from trioxport.messages import Incoming, Notification, Request
from trioxport.metadata import metadata_of

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Meter, MeterProvider
    from opentelemetry.metrics import Histogram as Instrument
    from opentelemetry.util.types import AttributeValue

OTHER: Final = "_OTHER"
"""The name under which methods and errors beyond the limits are counted together."""
MAX_METHODS: Final = 128
MAX_ERRORS: Final = 64
MAX_CLIENTS: Final = 64
"""The numbers of methods, of errors and of OAuth clients that are counted separately; there may be more."""
REFUSALS: Final = "trioxport.server.refusals"
"""The counter of refusals; the conventions define none."""


@attrs.frozen
class OperationSummary:
    """The figures of the requests and notifications of one method, in one direction.

    Args:
        count: The number of messages, those in flight included.
        in_flight: The number of requests that are not settled.
        errors: The number of failures by ``error.type``, as ``Tracing`` has it: the code of an error response,
            ``"tool_error"``, the name of an error such as ``"ConnectionLost"``, ``"cancelled"`` or ``"unanswered"``.
        latency: The time until requests were settled, and sent notifications accepted; None before the first one.
    """

    count: int
    in_flight: int
    errors: Mapping[str, int]
    latency: Latency | None


@attrs.frozen
class MetricsSnapshot:
    """The figures up to now, of all connections with the same :class:`Metrics`.

    Args:
        connections: The number of open connections.
        sent: The messages of this side, by method.
        received: The messages of the peer, by method; ``"_OTHER"`` from the 129th method on.
        all_sent: The sum of ``sent``.
        all_received: The sum of ``received``.
        refusals: The number of requests and connections that a server refused before they reached a handler, by
            reason: an HTTP status, as ``"401 Unauthorized"``, or, with the header at fault,
            ``"403 Forbidden (Origin)"``; or the name of an error, as ``"TLSError"``.
        clients: The number of messages that a server received, by the ``client_id`` of their access tokens;
            ``"_OTHER"`` from the 65th client on.
        events: The number of events of a server that shares its sessions with others: ``"forwarded"``, a request that
            another server answered; ``"served"``, one that another server forwarded here; ``"owner lost"``, one whose
            server was lost before it had answered; ``"lease lost"``.
        redeliveries: The number of received messages that a queue had delivered to another server before.
    """

    connections: int
    sent: Mapping[str, OperationSummary]
    received: Mapping[str, OperationSummary]
    all_sent: OperationSummary
    all_received: OperationSummary
    refusals: Mapping[str, int]
    clients: Mapping[str, int] = attrs.field(factory=dict[str, int])
    events: Mapping[str, int] = attrs.field(factory=dict[str, int])
    redeliveries: int = 0


@attrs.frozen(eq=False)
class Metrics:
    """Counts and times requests and notifications, for :meth:`snapshot` and, if installed, for OpenTelemetry.

    All connections with the same instance add to the same figures. Memory is bounded: latencies are kept in buckets,
    and methods and errors beyond a limit are counted together.

    Args:
        meter_provider: The OpenTelemetry provider to record to, such as
            ``opentelemetry.metrics.get_meter_provider()``; None for the snapshot alone.
    """

    level: ClassVar[Literal["message"]] = "message"

    meter_provider: MeterProvider | None = None
    _totals: _Totals = attrs.field(factory=lambda: _Totals(), init=False, repr=False)
    _refused: Counter | None = attrs.field(
        default=attrs.Factory(lambda metrics: _refusal_counter(metrics.meter_provider), takes_self=True),
        init=False,
        repr=False,
    )

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return watched(channels, scope, _Meters(self._totals, _Instruments.of(self.meter_provider, scope), scope))

    def snapshot(self) -> MetricsSnapshot:
        """The figures up to now."""
        totals = self._totals
        return MetricsSnapshot(
            totals.connections,
            {method: tally.summary() for method, tally in totals.sent.items()},
            {method: tally.summary() for method, tally in totals.received.items()},
            _sum(totals.sent),
            _sum(totals.received),
            dict(totals.refusals),
            dict(totals.clients),
            dict(totals.events),
            totals.redeliveries,
        )

    def note_refusal(self, reason: str) -> None:
        """Count a refusal of a server."""
        refusals = self._totals.refusals
        if reason not in refusals and len(refusals) >= MAX_ERRORS:
            reason = OTHER
        refusals[reason] = refusals.get(reason, 0) + 1
        if self._refused is not None:
            self._refused.add(1, {names.ERROR_TYPE: reason})

    def note_event(self, event: str) -> None:
        """Count an event of a server."""
        events = self._totals.events
        events[event] = events.get(event, 0) + 1


@attrs.define
class _Tally:
    """The figures of one method and direction."""

    method: str
    count: int = 0
    in_flight: int = 0
    errors: dict[str, int] = attrs.Factory(dict[str, int])
    latencies: Histogram = attrs.Factory(Histogram)

    def fail(self, kind: str, times: int = 1) -> None:
        if kind not in self.errors and len(self.errors) >= MAX_ERRORS:
            kind = OTHER
        self.errors[kind] = self.errors.get(kind, 0) + times

    def summary(self) -> OperationSummary:
        return OperationSummary(self.count, self.in_flight, dict(self.errors), self.latencies.summary())


@attrs.define
class _Totals:
    """The figures of all connections."""

    connections: int = 0
    sent: dict[str, _Tally] = attrs.Factory(dict[str, _Tally])
    received: dict[str, _Tally] = attrs.Factory(dict[str, _Tally])
    refusals: dict[str, int] = attrs.Factory(dict[str, int])
    clients: dict[str, int] = attrs.Factory(dict[str, int])
    events: dict[str, int] = attrs.Factory(dict[str, int])
    redeliveries: int = 0

    def note_client(self, client_id: str) -> None:
        """Count a message of an OAuth client."""
        if client_id not in self.clients and len(self.clients) >= MAX_CLIENTS:
            client_id = OTHER
        self.clients[client_id] = self.clients.get(client_id, 0) + 1


def _sum(tallies: Mapping[str, _Tally]) -> OperationSummary:
    together = _Tally("")
    for tally in tallies.values():
        together.count += tally.count
        together.in_flight += tally.in_flight
        together.latencies.merge(tally.latencies)
        for kind, times in tally.errors.items():
            together.fail(kind, times)
    return together.summary()


@attrs.frozen
class _Instruments:
    """OpenTelemetry's histograms, and the attributes that all of a connection's have."""

    sent: Instrument
    received: Instrument
    session: Instrument
    connection: Mapping[str, AttributeValue]
    server: Mapping[str, AttributeValue]

    @classmethod
    def of(cls, provider: MeterProvider | None, scope: Scope) -> _Instruments | None:
        if provider is None:
            return None
        meter = _meter(provider)
        return cls(
            _duration(meter, "mcp.client.operation", "a request until it is settled, as its sender sees it"),
            _duration(meter, "mcp.server.operation", "a request until it is answered, as its receiver sees it"),
            _duration(meter, f"mcp.{scope.settings.role}.session", "a connection"),
            names.network_of(scope),
            names.server_of(scope),
        )


def _meter(provider: MeterProvider) -> Meter:
    from trioxport._version import __version__

    return provider.get_meter("trioxport", __version__)


def _refusal_counter(provider: MeterProvider | None) -> Counter | None:
    if provider is None:
        return None
    description = "The requests and connections that a server refused before they reached a handler."
    return _meter(provider).create_counter(REFUSALS, unit="{refusal}", description=description)


def _duration(meter: Meter, name: str, measured: str) -> Instrument:
    return meter.create_histogram(
        f"{name}.duration",
        unit="s",
        description=f"The duration of {measured}.",
        explicit_bucket_boundaries_advisory=BOUNDARIES_SECONDS,
    )


class _Meters:
    """Measures what passes on one connection."""

    def __init__(self, totals: _Totals, instruments: _Instruments | None, scope: Scope) -> None:
        self._totals = totals
        self._instruments = instruments
        self._info = scope.info
        self._opened = trio.current_time()
        self._error: TransportError | None = None
        totals.connections += 1
        scope.defer(self._end)

    def sending(self, message: Request | Notification) -> tuple[Request | Notification, Operation | None]:
        tally = _tally(self._totals.sent, message)
        instruments = self._instruments
        record = None
        if instruments is not None:
            record = partial(
                self._record, instruments.sent, instruments.server, tally.method, names.subject_of(message)
            )
        return message, _Measured(message.method, tally, record)

    def received(self, message: Request | Notification) -> tuple[Request | Notification, Operation | None]:
        tally = _tally(self._totals.received, message)
        token = self._info.token
        if token is not None and token.client_id is not None:
            self._totals.note_client(token.client_id)
        if metadata_of(message).get("deliveries", 1) > 1:
            self._totals.redeliveries += 1
        if type(message) is Notification:  # no message says when its handler is done
            tally.count += 1
            return message, None
        instruments = self._instruments
        record = None
        if instruments is not None:
            record = partial(self._record, instruments.received, {}, tally.method, names.subject_of(message))
        return message, _Measured(message.method, tally, record)

    def lost(self, error: TransportError) -> None:
        self._error = error

    def _record(
        self,
        instrument: Instrument,
        more: Mapping[str, AttributeValue],
        method: str,
        subject: tuple[str | None, Mapping[str, str]],
        seconds: float,
        failure: Failure | None,
    ) -> None:
        assert self._instruments is not None
        attributes: dict[str, AttributeValue] = {**self._instruments.connection, **more, **subject[1]}
        attributes.pop(names.RESOURCE, None)  # there may be any number of them
        attributes[names.METHOD] = method
        self._add_version(attributes)
        if failure is not None:
            if failure.type is not None:
                attributes[names.ERROR_TYPE] = failure.type
            if failure.code is not None:
                attributes[names.STATUS_CODE] = str(failure.code)
        instrument.record(seconds, attributes)

    def _add_version(self, attributes: dict[str, AttributeValue]) -> None:
        if self._info.protocol_version is not None:
            attributes[names.PROTOCOL_VERSION] = self._info.protocol_version

    def _end(self) -> None:
        self._totals.connections -= 1
        if self._instruments is None:
            return
        attributes = {**self._instruments.connection, **self._instruments.server}
        self._add_version(attributes)
        if self._error is not None:
            attributes[names.ERROR_TYPE] = type(self._error).__name__
        self._instruments.session.record(trio.current_time() - self._opened, attributes)


def _tally(tallies: dict[str, _Tally], message: Request | Notification) -> _Tally:
    tally = tallies.get(message.method)
    if tally is None:
        method = names.clean(message.method) if len(tallies) < MAX_METHODS else OTHER
        tally = tallies.setdefault(method, _Tally(method))
    return tally


class _Measured:
    """An operation that is timed."""

    __slots__ = ("_record", "_started", "_tally", "method", "original")

    original: Request | None

    def __init__(self, method: str, tally: _Tally, record: partial[None] | None) -> None:
        self.method = method
        self.original = None
        self._tally = tally
        self._record = record
        self._started = trio.current_time()
        tally.count += 1
        tally.in_flight += 1

    def end(self, failure: Failure | None, answer: Incoming | None) -> None:
        seconds = trio.current_time() - self._started
        tally = self._tally
        tally.in_flight -= 1
        tally.latencies.add(seconds)
        if failure is not None and failure.type is not None:
            tally.fail(failure.type)
        if self._record is not None:
            self._record(seconds, failure)
