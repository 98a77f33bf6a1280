"""Load: closed and open loops on a clock that jumps, so that the figures are exact."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trioxport import ConnectionLost, RequestTimeout
from trioxport.diagnosis.load import LoadMeasurement, LoadPlan, LoadReport, ToolFailure
from trioxport.protocol import JSONRPCError


async def measured(send: Callable[[], Awaitable[object]], **plan: float | None) -> LoadReport:
    return await LoadMeasurement(send, LoadPlan(**plan)).run()  # type: ignore[arg-type]  # of any kind


async def test_a_closed_loop_sends_when_the_last_request_is_answered(autojump_clock: MockClock) -> None:
    report = await measured(partial(trio.sleep, 0.1), seconds=1.05, concurrency=3)
    assert len(report.latencies) == 33  # those that began in time are finished
    assert report.latencies[-1] == pytest.approx(0.1)
    assert report.elapsed == pytest.approx(1.1)
    assert report.rate == pytest.approx(30)
    assert (report.end, report.unfinished, report.not_begun, report.failed) == ("time", 0, 0, 0)


async def test_a_count_ends_a_loop(autojump_clock: MockClock) -> None:
    report = await measured(partial(trio.sleep, 0.1), count=7, concurrency=2)
    assert (len(report.latencies), report.end) == (7, "count")
    report = await measured(partial(trio.sleep, 0.1), count=7, rate=100.0, concurrency=9)
    assert (len(report.latencies), report.end) == (7, "count")


async def test_an_open_loop_counts_the_wait_for_a_server_that_stalls(autojump_clock: MockClock) -> None:
    begin = trio.current_time()

    async def stalls_once() -> None:
        if 1 <= trio.current_time() - begin < 2:
            await trio.sleep_until(begin + 2)
        await trio.sleep(0.001)

    report = await measured(stalls_once, seconds=3, rate=100.0, concurrency=1)
    assert len(report.latencies) == 300
    assert report.latencies[-1] == pytest.approx(1.001, abs=0.01)
    # The requests of the second that stalled waited for half a second on average; without them in the figures only one
    # request would look slow.
    slow = [value for value in report.latencies if value > 0.1]
    assert 95 <= len(slow) <= 110
    assert report.latencies[149] < 0.01


async def test_an_open_loop_that_cannot_keep_up_says_how_many_it_did_not_send(autojump_clock: MockClock) -> None:
    report = await measured(partial(trio.sleep, 1), seconds=10, rate=10.0, concurrency=2, grace=5)
    assert (len(report.latencies), report.unfinished, report.not_begun) == (28, 2, 70)
    assert report.elapsed == pytest.approx(15)


async def test_requests_without_an_answer_are_not_waited_for_longer_than_the_grace(autojump_clock: MockClock) -> None:
    report = await measured(trio.sleep_forever, seconds=1, concurrency=4, grace=2)
    assert (len(report.latencies), report.unfinished, report.not_begun) == (0, 4, 0)
    assert report.elapsed == pytest.approx(3)
    assert report.figures()["latency"] is None


async def test_failures_are_counted_by_kind_with_the_first_text(autojump_clock: MockClock) -> None:
    errors = iter(
        [
            JSONRPCError(-32601, "Method not found"),
            ToolFailure("no luck"),
            RequestTimeout("no answer within 1 s"),
            ToolFailure("again"),
        ]
    )

    async def fail() -> None:
        await trio.sleep(0.01)
        if (error := next(errors, None)) is not None:
            raise error

    report = await measured(fail, count=5)
    assert {kind: (each.count, each.example) for kind, each in report.failures.items()} == {
        "error -32601": (1, "Method not found (code -32601)"),
        "ToolFailure": (2, "no luck"),
        "RequestTimeout": (1, "no answer within 1 s"),
    }
    assert (report.failed, len(report.latencies)) == (4, 1)


async def test_a_lost_connection_ends_the_measurement(autojump_clock: MockClock) -> None:
    async def lose() -> None:
        await trio.sleep(0.1)
        raise ConnectionLost("the server ended the connection")

    for rate in (None, 20.0):
        report = await measured(lose, concurrency=3, rate=rate)
        assert report.end == "connection lost"
        assert report.failed <= 3
        assert report.elapsed < 0.5


async def test_a_defect_of_the_caller_is_raised(autojump_clock: MockClock) -> None:
    async def defect() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await measured(defect)


async def test_stopping_reports_what_was_measured(autojump_clock: MockClock) -> None:
    measurement = LoadMeasurement(partial(trio.sleep, 0.1), LoadPlan(seconds=100))

    async def stop() -> None:
        await trio.sleep(1.05)
        measurement.stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        report = await measurement.run()
    assert (len(report.latencies), report.unfinished, report.end) == (10, 1, "stopped")


async def test_the_figures_are_json(autojump_clock: MockClock) -> None:
    report = await measured(partial(trio.sleep, 0.1), count=4)
    figures = json.loads(json.dumps(report.figures()))
    assert figures["latency"]["p50"] == pytest.approx(0.1)
    assert list(figures["latency"]) == ["min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
    assert sum(bucket["count"] for bucket in figures["histogram"]) == 4
