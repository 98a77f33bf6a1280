"""A server as a whole program: it says where it listens, and stops in order at a signal.

::

    trio.run(run_server, server, HttpServer("http://127.0.0.1:8000/mcp", drain=5))
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final

import trio

from trioxport._core.nursery import open_bare_nursery, require_trio
from trioxport._diagnostics import logger
from trioxport.opening import serve_transport
from trioxport.targets import Target

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def run_server(
    server: Any,
    target: Target,
    *,
    on_listening: Callable[[Sequence[str]], object] = lambda addresses: None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM, and then stop in order.

    Args:
        server: A handler, as for :func:`trioxport.serve_transport`; an ``MCPServer``, a low-level ``Server`` of the
            official SDK, or a ``FastMCP`` server.
        target: Where to serve it. An ``HttpServer(drain=...)`` goes on listening for that many seconds, so that load
            balancers notice.
        on_listening: Called with the addresses, once it listens; they are logged on ``trioxport`` in any case.
        options: Those of :func:`trioxport.serve_transport`; ``close_timeout`` is what running handlers get to finish.

    Raises:
        UsageError: The target cannot be served.
        TransportError: The listener ended for another reason.
        TypeError: ``server`` is no server.

    A second signal has its usual effect: Ctrl-C raises ``KeyboardInterrupt``, SIGTERM ends the process.
    """
    require_trio("run_server")
    serve = partial(_serving_function(server), target=target, **options)
    async with open_bare_nursery() as tasks:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            addresses: list[str] = await tasks.start(_serve_to_the_end, serve, tasks.cancel_scope)
            on_listening(addresses)
            await _wait_for_signal(signals)
        tasks.cancel_scope.cancel()


def _serving_function(server: Any) -> Callable[..., Awaitable[None]]:
    if iscoroutinefunction(server) or iscoroutinefunction(getattr(server, "__call__", None)):  # noqa: B004 (which is it)
        return partial(serve_transport, server)
    from trioxport.interop.mcp_sdk import serve_sdk

    return partial(serve_sdk, server)


async def _serve_to_the_end(
    serve: Callable[..., Awaitable[None]], scope: trio.CancelScope, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    """Serve, and end the program when that ends by itself, as ``stdio:`` does when its client is gone."""
    await serve(task_status=task_status)
    scope.cancel()


async def _wait_for_signal(signals: AsyncIterator[int]) -> None:
    number = await anext(signals)
    logger.info("received %s: stopping", signal.Signals(number).name)
