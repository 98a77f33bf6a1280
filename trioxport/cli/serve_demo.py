"""``trioxport serve-demo``: the demo server on any target."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncIterator

import click
import trio

from trioxport import Target, serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.cli._commands import cli_command
from trioxport.cli._output import write
from trioxport.cli.options import plaintext_option
from trioxport.demo import serve_demo
from trioxport.targets import STANDARD_STREAMS


@cli_command
@click.argument("target", metavar="TARGET")
@plaintext_option
async def command(target: str, allow_plaintext: bool) -> int:
    """Serve the demo server until Ctrl-C or SIGTERM.

    TARGET is the URL to listen on: http://127.0.0.1:8000/mcp, ws://..., tcp://HOST:PORT, unix:///PATH, or stdio: or
    http+stdio: for this process's own standard streams.
    """
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(_stop_at, signals, tasks.cancel_scope)
            for address in await tasks.start(_serve, target, allow_plaintext, tasks.cancel_scope):
                if address not in STANDARD_STREAMS:  # the parent of this process knows
                    write(f"serving {address}", sys.stderr)
    return 0


async def _serve(
    target: str, allow_plaintext: bool, scope: trio.CancelScope, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await serve_transport(
        serve_demo, _with_access_log(target), allow_plaintext=allow_plaintext, task_status=task_status
    )
    scope.cancel()


def _with_access_log(target: str) -> Target:
    """The target, with an access log if it is served over HTTP."""
    if target.partition(":")[0] not in ("http", "https"):
        return target
    from trioxport.transports.http.server import HttpServer

    access = logging.getLogger("trioxport.access")
    access.addHandler(logging.StreamHandler())
    access.setLevel(logging.INFO)
    return HttpServer(target, access_log=True)


async def _stop_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()
