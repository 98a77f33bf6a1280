"""The figures of ``Metrics`` in Prometheus' text format, as its own parser reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trioxport.layers import Metrics, prometheus_text
from trioxport.layers._latency import BOUNDARIES_SECONDS, Histogram
from trioxport.layers.metrics import MetricsSnapshot, OperationSummary
from trioxport.layers.prometheus import counters_in, sum_of_texts

ODD = 'a\\b"c\nd'


def snapshot(count: int = 3, connections: int = 2) -> MetricsSnapshot:
    times = Histogram()
    for seconds in (0.015, 0.3, 700.0)[:count]:
        times.add(seconds)
    calls = OperationSummary(count, 1, {"tool_error": 1, ODD: 2}, times.summary())
    idle = OperationSummary(1, 0, {}, None)
    refusals, clients = {"401 Unauthorized": 4}, {"editor": 7}
    return MetricsSnapshot(connections, {"ping": idle}, {ODD: calls}, idle, calls, refusals, clients)


def samples(text: str) -> Mapping[tuple[Any, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_parser_of_prometheus_reads_all_figures() -> None:
    found = samples(prometheus_text(snapshot()))
    received = (("direction", "received"), ("method", ODD))
    assert found["trioxport_connections",] == 2
    assert found["trioxport_refusals_total", ("reason", "401 Unauthorized")] == 4
    assert found["trioxport_client_messages_total", ("client", "editor")] == 7
    assert found["trioxport_messages_total", *received] == 3
    assert found["trioxport_messages_total", ("direction", "sent"), ("method", "ping")] == 1
    assert found["trioxport_requests_in_flight", *received] == 1
    assert found["trioxport_errors_total", received[0], ("error", ODD), received[1]] == 2
    assert found["trioxport_request_duration_seconds_count", *received] == 3
    assert found["trioxport_request_duration_seconds_sum", *received] == pytest.approx(700.315)
    buckets = {
        dict(labels)["le"]: value for (name, *labels), value in found.items() if name.endswith("_seconds_bucket")
    }
    assert buckets == {
        **{f"{boundary:g}": 0 if boundary < 0.02 else 1 if boundary < 0.5 else 2 for boundary in BOUNDARIES_SECONDS},
        "+Inf": 3,
    }


def test_the_families_have_their_types_without_any_figure() -> None:
    families = {
        family.name: family.type for family in text_string_to_metric_families(prometheus_text(Metrics().snapshot()))
    }
    assert families == {
        "trioxport_connections": "gauge",
        "trioxport_messages": "counter",
        "trioxport_requests_in_flight": "gauge",
        "trioxport_errors": "counter",
        "trioxport_request_duration_seconds": "histogram",
        "trioxport_client_messages": "counter",
        "trioxport_refusals": "counter",
        "trioxport_redeliveries": "counter",
        "trioxport_server_events": "counter",
    }


def test_figures_of_processes_are_added() -> None:
    one, two = prometheus_text(snapshot(3)), prometheus_text(snapshot(1, connections=5))
    total = samples(sum_of_texts([one, "", two]))
    assert total == {
        sample: samples(one).get(sample, 0) + samples(two).get(sample, 0) for sample in {*samples(one), *samples(two)}
    }
    assert total["trioxport_connections",] == 7


def test_counters_outlast_a_process_and_gauges_do_not() -> None:
    kept = samples(counters_in(prometheus_text(snapshot())))
    assert {name for name, *_ in kept} == {
        "trioxport_messages_total",
        "trioxport_client_messages_total",
        "trioxport_errors_total",
        "trioxport_refusals_total",
        "trioxport_request_duration_seconds_bucket",
        "trioxport_request_duration_seconds_sum",
        "trioxport_request_duration_seconds_count",
    }
