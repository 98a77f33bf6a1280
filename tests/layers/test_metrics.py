"""The Metrics layer: what its snapshot counts, and what OpenTelemetry gets to record."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, MetricsData, NumberDataPoint

from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    Notification,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.layers import Metrics
from trioxport.layers._latency import BOUNDARIES_SECONDS, Histogram
from trioxport.testing import check_layer
from trioxport.transports.memory import MemorySwitch


async def working(connection: Connection) -> None:
    """Answers after the seconds that a request names, and with the error that it names."""
    tx, rx = connection
    async for message in rx:
        if not isinstance(message, Request) or message.method == "silent":
            continue
        params: Any = message.params or {}
        await trio.sleep(params.get("seconds", 0))
        code = params.get("code")
        await tx.send(Response(message.id, {}) if code is None else ErrorResponse(message.id, code, "as told"))


@asynccontextmanager
async def measured(client: Metrics, server: Metrics | None = None, target: Any = None) -> AsyncGenerator[Connection]:
    target = target or MemorySwitch()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(working, target, layers=[server or Metrics()], task_status=task_status)

        address: list[str] = await nursery.start(serve)
        async with open_transport(address[0] if address else target, layers=[client]) as connection:
            yield connection
        nursery.cancel_scope.cancel()


async def ask(connection: Connection, number: int, method: str = "work", **params: Any) -> None:
    await connection.tx.send(Request(number, method, params))
    await connection.rx.receive()


class TestTheSnapshot:
    async def test_tells_counts_errors_and_latencies_of_both_sides(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        client, server = Metrics(), Metrics()
        async with measured(client, server) as connection:
            for number in range(98):
                await ask(connection, number, seconds=0.1)
            await ask(connection, 98, seconds=20)
            await ask(connection, 99, seconds=0, code=-32603)
            await ask(connection, 100, "tools/list")
            await connection.tx.send(Notification("note"))
            await ask(connection, 101, "tools/list")
        for metrics, tallies in ((client, client.snapshot().sent), (server, server.snapshot().received)):
            work = tallies["work"]
            assert (work.count, work.in_flight, work.errors) == (100, 0, {"-32603": 1})
            assert work.latency is not None
            assert work.latency.count == 100
            assert work.latency.p50 == pytest.approx(0.1, rel=0.04)
            assert work.latency.p99 == pytest.approx(0.1, rel=0.04)
            assert work.latency.max == pytest.approx(20)
            assert work.latency.mean == pytest.approx(0.298)
            assert {method: tally.count for method, tally in tallies.items()} == {
                "work": 100,
                "tools/list": 2,
                "note": 1,
            }
            assert metrics.snapshot().connections == 0
        assert client.snapshot().all_sent.count == server.snapshot().all_received.count == 103
        assert client.snapshot().all_sent.errors == {"-32603": 1}
        assert server.snapshot().received["note"].latency is None
        assert client.snapshot().received == server.snapshot().sent == {}

    async def test_tells_what_is_in_flight_and_how_it_ended(self) -> None:
        client, switch = Metrics(), MemorySwitch()
        async with measured(client, target=switch) as connection:
            for number in range(3):
                await connection.tx.send(Request(number, "silent"))
            await connection.tx.send(Notification("notifications/cancelled", {"requestId": 0}))
            with pytest.raises(UsageError):
                await connection.tx.send(Request(9, "silent", {"number": float("nan")}))
            now = client.snapshot()
            assert (now.connections, now.sent["silent"].in_flight, now.sent["silent"].count) == (1, 2, 4)
            await trio.testing.wait_all_tasks_blocked()
            switch.cut()
            assert isinstance(await connection.rx.receive(), Undelivered)
            assert client.snapshot().sent["silent"].in_flight == 1
            await connection.rx.receive()
            with pytest.raises(ConnectionLost):
                await connection.rx.receive()
        assert client.snapshot().sent["silent"].errors == {"cancelled": 1, "UsageError": 1, "ConnectionLost": 2}
        async with measured(client) as connection:
            await connection.tx.send(Request(1, "silent"))
        assert client.snapshot().sent["silent"].errors["unanswered"] == 1
        assert (client.snapshot().sent["silent"].in_flight, client.snapshot().connections) == (0, 0)

    async def test_no_peer_can_make_it_grow_without_end(self) -> None:
        server = Metrics()
        async with measured(Metrics(), server) as connection:
            for number in range(300):
                await ask(connection, number, f"method-{number}")
                await ask(connection, number, "same", code=number)
        snapshot = server.snapshot()
        assert len(snapshot.received) == 129
        assert snapshot.received["_OTHER"].count + 128 - 1 == 300
        assert snapshot.received["same"].count == 300
        assert len(snapshot.received["same"].errors) == 65
        assert snapshot.all_received.count == 600


class TestTheHistogram:
    @given(st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
    def test_quantiles_are_right_to_three_per_cent(self, seconds: list[float], share: float) -> None:
        histogram = Histogram()
        for each in seconds:
            histogram.add(each)
        exact = next(each for rank, each in enumerate(sorted(seconds), 1) if rank >= share * len(seconds) - 1e-9)
        assert histogram.quantile(share) == pytest.approx(exact, rel=1 / 31)

    def test_it_is_bounded_whatever_it_is_given(self) -> None:
        histogram = Histogram()
        for exponent in range(-400, 300):
            histogram.add(0.0 if exponent == -400 else 1.017**exponent * 10.0**exponent)
        histogram.add(-1.0)
        assert len(histogram.counts) < 700
        assert histogram.count == 701

    def test_nothing_measured_is_nothing_told(self) -> None:
        assert Histogram().summary() is None


def points(reader: InMemoryMetricReader) -> dict[str, list[HistogramDataPoint]]:
    data = reader.get_metrics_data()
    assert isinstance(data, MetricsData)
    return {
        metric.name: [point for point in metric.data.data_points if isinstance(point, HistogramDataPoint)]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider([reader], shutdown_on_exit=False)


class TestOpenTelemetry:
    async def test_gets_the_histograms_of_the_conventions(
        self, reader: InMemoryMetricReader, provider: MeterProvider
    ) -> None:
        async with measured(Metrics(provider), Metrics(provider), "tcp://127.0.0.1:0") as connection:
            connection.info.protocol_version = "2026-07-28"
            for number in range(3):
                await ask(connection, number, "tools/call", name="weather")
            await ask(connection, 3, "resources/read", uri="file:///x", code=-32002)
        found = points(reader)
        assert set(found) == {f"mcp.{side}.{what}.duration" for side in ("client", "server") for what in KINDS}
        call, resource = found["mcp.client.operation.duration"]
        port = (call.attributes or {})["server.port"]
        assert call.attributes == {
            "mcp.method.name": "tools/call",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "weather",
            "mcp.protocol.version": "2026-07-28",
            "network.transport": "tcp",
            "server.address": "127.0.0.1",
            "server.port": port,
        }
        assert call.count == 3
        assert tuple(call.explicit_bounds) == BOUNDARIES_SECONDS
        assert (resource.attributes or {})["error.type"] == "-32002"
        served = found["mcp.server.operation.duration"][1].attributes or {}
        assert (served["rpc.response.status_code"], served.get("error.type")) == ("-32002", None)
        assert "mcp.resource.uri" not in {**(resource.attributes or {}), **served}
        assert [point.count for name in ("client", "server") for point in found[f"mcp.{name}.session.duration"]] == [
            1,
            1,
        ]

    async def test_gets_the_length_of_a_session_and_why_it_ended(
        self, reader: InMemoryMetricReader, provider: MeterProvider, autojump_clock: trio.testing.MockClock
    ) -> None:
        switch = MemorySwitch()
        async with measured(Metrics(provider), target=switch) as connection:
            await trio.sleep(90)
            switch.cut()
            with pytest.raises(ConnectionLost):
                await connection.rx.receive()
        [session] = points(reader)["mcp.client.session.duration"]
        assert session.sum == pytest.approx(90)
        assert session.attributes == {"error.type": "ConnectionLost"}

    async def test_counts_what_a_server_refuses(self, reader: InMemoryMetricReader, provider: MeterProvider) -> None:
        metrics = Metrics(provider)
        for reason in ("401 Unauthorized", "TLSError", "401 Unauthorized"):
            metrics.note_refusal(reason)
        data = reader.get_metrics_data()
        assert isinstance(data, MetricsData)
        [metric] = data.resource_metrics[0].scope_metrics[0].metrics
        counted = {
            (point.attributes or {})["error.type"]: point.value
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        }
        assert (metric.name, counted) == ("trioxport.server.refusals", {"401 Unauthorized": 2, "TLSError": 1})


KINDS = ("operation", "session")


async def test_keeps_the_contract(provider: MeterProvider) -> None:
    metrics = Metrics(provider)
    await check_layer(metrics)
    assert metrics.snapshot().connections == 0
    assert metrics.snapshot().all_sent.in_flight == metrics.snapshot().all_received.in_flight == 0
