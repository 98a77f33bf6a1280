"""The figures of ``Metrics`` in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from trioxport.layers.metrics import MetricsSnapshot, OperationSummary

_CONNECTIONS: Final = "trioxport_connections"
_MESSAGES: Final = "trioxport_messages_total"
_IN_FLIGHT: Final = "trioxport_requests_in_flight"
_ERRORS: Final = "trioxport_errors_total"
_SECONDS: Final = "trioxport_request_duration_seconds"
_REFUSALS: Final = "trioxport_refusals_total"
_CLIENTS: Final = "trioxport_client_messages_total"
_EVENTS: Final = "trioxport_server_events_total"
_REDELIVERIES: Final = "trioxport_redeliveries_total"
_FAMILIES: Final = {
    _CONNECTIONS: ("gauge", "Open connections."),
    _MESSAGES: ("counter", "Requests and notifications, by method."),
    _IN_FLIGHT: ("gauge", "Requests that are not settled yet."),
    _ERRORS: ("counter", "Requests and notifications that ended by an error, by its type."),
    _SECONDS: ("histogram", "The time until a request was settled, or a sent notification accepted."),
    _REFUSALS: ("counter", "Requests and connections that the server refused before they reached a handler."),
    _CLIENTS: ("counter", "Received messages, by the OAuth client of their access tokens."),
    _EVENTS: ("counter", "Events of a server that shares its sessions with others."),
    _REDELIVERIES: ("counter", "Received messages that a queue had delivered to another server before."),
}
_GAUGES: Final = tuple(name for name, (kind, _) in _FAMILIES.items() if kind == "gauge")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def prometheus_text(snapshot: MetricsSnapshot) -> str:
    """The figures of ``metrics.snapshot()``, for a scrape.

    The metrics are ``trioxport_connections``, ``trioxport_refusals_total`` by ``reason``,
    ``trioxport_client_messages_total`` by ``client``, ``trioxport_server_events_total`` by ``event``, and by
    ``direction`` (``sent`` or ``received``) and ``method``: ``trioxport_messages_total``,
    ``trioxport_requests_in_flight``, ``trioxport_errors_total`` by ``error`` too, and the histogram
    ``trioxport_request_duration_seconds``. Redeliveries are ``trioxport_redeliveries_total``.
    """
    return _written(dict(_samples(snapshot)))


def sum_of_texts(texts: Iterable[str]) -> str:
    """The sum of the figures of several processes, each a text of :func:`prometheus_text`."""
    total: dict[str, float] = {}
    for text in texts:
        for sample, value in _read(text):
            total[sample] = total.get(sample, 0) + value
    return _written(total)


def counters_in(text: str) -> str:
    """The figures of a process that outlast it: all but the gauges."""
    return _written({sample: value for sample, value in _read(text) if not sample.startswith(_GAUGES)})


def _samples(snapshot: MetricsSnapshot) -> Iterator[tuple[str, float]]:
    yield _CONNECTIONS, snapshot.connections
    if snapshot.redeliveries:
        yield _REDELIVERIES, snapshot.redeliveries
    for reason, times in snapshot.refusals.items():
        yield _named(_REFUSALS, {"reason": reason}), times
    for client, times in snapshot.clients.items():
        yield _named(_CLIENTS, {"client": client}), times
    for event, times in snapshot.events.items():
        yield _named(_EVENTS, {"event": event}), times
    for direction, methods in (("sent", snapshot.sent), ("received", snapshot.received)):
        for method, summary in methods.items():
            yield from _operation_samples({"direction": direction, "method": method}, summary)


def _operation_samples(labels: Mapping[str, str], summary: OperationSummary) -> Iterator[tuple[str, float]]:
    yield _named(_MESSAGES, labels), summary.count
    yield _named(_IN_FLIGHT, labels), summary.in_flight
    for error, times in summary.errors.items():
        yield _named(_ERRORS, {**labels, "error": error}), times
    latency = summary.latency
    if latency is None:
        return
    for boundary, count in latency.within.items():
        yield _named(f"{_SECONDS}_bucket", {**labels, "le": f"{boundary:g}"}), count
    yield _named(f"{_SECONDS}_bucket", {**labels, "le": "+Inf"}), latency.count
    yield _named(f"{_SECONDS}_sum", labels), latency.mean * latency.count
    yield _named(f"{_SECONDS}_count", labels), latency.count


def _named(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels.items())
    return f"{name}{{{inner}}}"


def _read(text: str) -> Iterator[tuple[str, float]]:
    """The samples of a text of this module, by name and labels."""
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            sample, _, value = line.rpartition(" ")
            yield sample, float(value)


def _written(samples: Mapping[str, float]) -> str:
    lines: list[str] = []
    for name, (kind, meaning) in _FAMILIES.items():
        found = [f"{sample} {value:.17g}" for sample, value in samples.items() if sample.startswith(name)]
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *found]
    return "\n".join(lines) + "\n"
