"""``trioxport ping``: round trips to a server, with their times."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median

import click
import trio

from trioxport.cli._commands import cli_command
from trioxport.cli._output import one_line, write
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, Seconds, connection_options, json_option, target_argument
from trioxport.peer import Client
from trioxport.protocol import DISCOVER


@cli_command
@target_argument
@click.option("-n", "--count", type=click.IntRange(1), default=4, show_default=True, help="Round trips to make.")
@click.option("-i", "--interval", type=Seconds(), default=1.0, metavar="SECONDS", show_default=True,
              help="Time between the beginnings of two of them.")  # fmt: skip
@json_option
@connection_options
async def command(target: str, count: int, interval: float, as_json: bool, options: ConnectionOptions) -> int:
    """Measure round trips to a server.

    In the legacy era the request is ping; the modern era has none, so it is server/discover. The connection is opened,
    and the era negotiated, before the first of them.
    """
    times: list[float] = []
    async with open_session(target, options) as client:
        method = ping_method(client)
        for number in range(1, count + 1):
            seconds = await round_trip(client, method, options.timeout)
            times.append(seconds * 1000)
            if not as_json:
                write(f"{method} {number}: {times[-1]:.2f} ms", sys.stdout)
            if number < count:
                await trio.sleep(max(0.0, interval - seconds))
    _summarize(method, times, as_json)
    return 0


def ping_method(client: Client) -> str:
    """The smallest request of the server's era."""
    return "ping" if client.server.era == "legacy" else DISCOVER


async def round_trip(client: Client, method: str, timeout: float) -> float:
    """Make a round trip and return its seconds."""
    began = trio.current_time()
    await client.peer.request(method, timeout=timeout)
    return trio.current_time() - began


def _summarize(method: str, times: Sequence[float], as_json: bool) -> None:
    summary = {"min": min(times), "median": median(times), "max": max(times)}
    if as_json:
        shown = {name: round(value, 3) for name, value in summary.items()}
        write(one_line({"method": method, "times": [round(time, 3) for time in times], **shown}), sys.stdout)
    else:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in summary.items())
        write(f"{len(times)} of {len(times)} answered; {parts} ms", sys.stdout)
