"""``trioxport serve-demo``: the demo server on any target."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import AsyncIterator

import trio

from trioxport import Target, serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.cli._output import write
from trioxport.demo import serve_demo


async def serve_until_signal(options: argparse.Namespace) -> int:
    """Serve until SIGTERM, or until the end of a ``stdio:`` client; return the exit code. Raises ``TransportError``."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(_stop_at, signals, tasks.cancel_scope)
            for address in await tasks.start(_serve, options, tasks.cancel_scope):
                if address != "stdio:":  # the parent of this process knows
                    write(f"serving {address}", sys.stderr)
    return 0


async def _serve(
    options: argparse.Namespace, scope: trio.CancelScope, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await serve_transport(
        serve_demo, _with_access_log(options.target), allow_plaintext=options.allow_plaintext, task_status=task_status
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
