"""``trioxport bench``: load on a server, and its latencies."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, cast

import click
import trio

from trioxport import UsageError
from trioxport._core.nursery import open_bare_nursery
from trioxport.cli._commands import cli_command
from trioxport.cli._output import complain, one_line, write
from trioxport.cli._results import readable
from trioxport.cli._timeline import aligned, cut
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, Seconds, connection_options, json_option, target_argument
from trioxport.diagnosis.latencies import duration, histogram
from trioxport.diagnosis.load import MAX_REQUESTS, LoadMeasurement, LoadPlan, LoadReport, ToolFailure
from trioxport.peer import Client
from trioxport.protocol import DISCOVER, members_of

BAR_CHARACTERS: Final = 40


@cli_command
@target_argument
@click.option("--tool", metavar="NAME", help="Call this tool (default: ping, or server/discover in the modern era).")
@click.option("--arguments", metavar="JSON", default="{}", help="Its arguments, a JSON object.")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Have at most so many requests in flight.",
)
@click.option(
    "--rate",
    type=Seconds(),
    metavar="PER-SECOND",
    help="Begin so many requests a second (open loop); by default each follows the answer to the last (closed loop).",
)
@click.option("-d", "--duration", "seconds", type=Seconds(), default=10.0, show_default=True, metavar="SECONDS",
              help="Begin requests for so long.")  # fmt: skip
@click.option("-n", "--count", type=click.IntRange(1, MAX_REQUESTS), default=MAX_REQUESTS, metavar="COUNT",
              help="Make at most so many requests.")  # fmt: skip
@json_option
@connection_options
async def command(
    target: str,
    tool: str | None,
    arguments: str,
    concurrency: int,
    rate: float | None,
    seconds: float,
    count: int,
    as_json: bool,
    options: ConnectionOptions,
) -> int:
    """Measure the latencies of a server under load.

    In an open loop (--rate) the latency counts from the moment at which a request should have begun, so that a server
    that stalls is seen to stall. Raise --concurrency above the rate times the expected latency, or requests wait here.

    The exit code is 1 if a request failed. Ctrl-C ends the measurement and prints what was measured.
    """
    plan = LoadPlan(seconds, count, concurrency, rate, grace=options.timeout)
    given = _arguments(arguments)
    async with open_session(target, options) as client:
        report = await _measured(LoadMeasurement(_request(client, tool, given, options.timeout), plan))
    write(one_line(report.figures()) if as_json else report_text(report), sys.stdout)
    if report.end == "stopped":
        return 130
    return 1 if report.failed or report.unfinished else 0


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--arguments is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("--arguments is not a JSON object")
    return cast("dict[str, Any]", found)


def _request(
    client: Client,
    tool: str | None,
    arguments: dict[str, Any],
    timeout: float,
) -> Callable[[], Awaitable[object]]:
    async def ping() -> None:
        await client.peer.request("ping" if client.server.era == "legacy" else DISCOVER, timeout=timeout)

    async def call() -> None:
        result = members_of(
            await client.peer.request("tools/call", {"name": tool, "arguments": arguments}, timeout=timeout)
        )
        if result.get("isError") is True:
            raise ToolFailure(cut(readable(result), 200))

    return ping if tool is None else call


async def _measured(measurement: LoadMeasurement) -> LoadReport:
    """Measure until the end, or until Ctrl-C."""
    reports: list[LoadReport] = []
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(_stop_at, signals, measurement)
            reports.append(await measurement.run())
            tasks.cancel_scope.cancel()
    return reports[0]


async def _stop_at(signals: AsyncIterator[int], measurement: LoadMeasurement) -> None:
    await anext(signals)
    complain("stopped: this is what was measured")
    measurement.stop()


def report_text(report: LoadReport) -> str:
    """The report to read: rates, percentiles, a histogram and the failures."""
    return "\n".join([*_totals(report), *_percentiles(report), *_bars(report), *_failures(report)])


def _totals(report: LoadReport) -> Iterator[str]:
    count = len(report.latencies)
    yield f"{count} requests in {duration(report.elapsed)}: {report.rate:.4g} a second"
    if report.end == "connection lost":
        yield "ended early: the connection was lost"
    if report.unfinished:
        yield f"without an answer at the end: {report.unfinished}"
    if report.not_begun:
        yield f"not sent, because earlier requests took too long: {report.not_begun}"


def _percentiles(report: LoadReport) -> Iterator[str]:
    latency = report.figures()["latency"]
    if latency is not None:
        yield ""
        yield from aligned([(name, duration(value)) for name, value in latency.items()], "<>")


def _bars(report: LoadReport) -> Iterator[str]:
    buckets = histogram(report.latencies)
    if not buckets:
        return
    yield ""
    largest = max(bucket.count for bucket in buckets)
    rows = [
        (f"<= {duration(bucket.upper)}", str(bucket.count), "#" * round(BAR_CHARACTERS * bucket.count / largest))
        for bucket in buckets
    ]
    yield from aligned(rows, ">><")


def _failures(report: LoadReport) -> Iterator[str]:
    if report.failures:
        yield ""
        rows = [("failures", "count", "first")]
        rows += [(kind, str(each.count), cut(each.example, 100)) for kind, each in report.failures.items()]
        yield from aligned(rows, "<><")
