"""``run_server``: a server from its start to its end, in this process or in several."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery, require_trio
from trioxport._diagnostics import logger
from trioxport._diagnostics.validators import COUNT, names_options
from trioxport.abc import CLOSE_TIMEOUT, CONNECT_TIMEOUT, Codec, Layer
from trioxport.codecs.json import JSON
from trioxport.errors import UsageError
from trioxport.frames import Limits
from trioxport.opening import DEFAULT_LIMITS, serve_transport
from trioxport.running.figures import Figures
from trioxport.running.pool import WorkerPool
from trioxport.running.process import open_runner
from trioxport.running.worker import WorkerLink, WorkerPart
from trioxport.targets import Target, describe, to_listener
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer
from trioxport.transports.listening import inherited_sockets

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SLOW_START_SECONDS: Final = 2.0
"""Seconds after which the log says that a server does not listen yet."""


@names_options
async def run_server(
    server: Any,
    target: Target,
    *,
    on_listening: Callable[[Sequence[str]], object] = lambda addresses: None,
    workers: int = 1,
    metrics: str | None = None,
    layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    limits: Limits = DEFAULT_LIMITS,
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    allow_plaintext: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, and then stop in order.

    Args:
        server: A handler, as for :func:`trioxport.serve_transport`; an ``MCPServer``, a low-level ``Server`` of the
            official SDK, or a ``FastMCP`` server.
        target: Where to serve it. An ``HttpServer(drain=...)`` goes on listening for that many seconds, so that load
            balancers notice.
        on_listening: Called with the addresses, once it listens; they are logged on ``trioxport`` in any case.
        workers: The number of processes that serve on one port. Each of them is this program, started anew, up to this
            call. One that dies is started again. Not on Windows.
        metrics: The path of a page with the figures of :class:`~trioxport.layers.Metrics` for Prometheus, as
            ``"/metrics"``, on an HTTP server; with workers it has their sums. The layer is added if there is none.
        layers: As for :func:`trioxport.serve_transport`, and so are the others.
        codec: The encoding of messages.
        limits: The limits of sizes and buffers.
        connect_timeout: Seconds that a client may take to connect.
        close_timeout: Seconds that running handlers get to finish.
        allow_plaintext: Whether to listen beyond loopback without encryption.

    Raises:
        UsageError: The target cannot be served. With ``workers`` it has to be an address of TCP or a Unix socket, and
            an HTTP server has to be without sessions, since a session lives in one process, or to have a directory of
            them. Or the first worker did not start.
        TransportError: The listener ended for another reason.
        TypeError: ``server`` is no server.

    A server that is still connecting, to Redis or to a hub, ends at a signal too. A second signal has its usual effect:
    Ctrl-C raises ``KeyboardInterrupt``, SIGTERM ends the process. With workers it kills them. A worker that has not
    stopped after ``drain`` and ``close_timeout`` and 5 seconds is killed.
    """
    require_trio("run_server")
    COUNT.option("workers", workers)
    if not is_server(server):
        raise TypeError(
            f"{server!r} is no server: pass an async function, an MCPServer, a Server of the SDK, or a FastMCP server"
        )
    config = _served(target)
    part = WorkerPart.taken()
    if workers > 1 and part is None:
        await _run_workers(workers, config, close_timeout, on_listening)
        return
    figures = None
    if metrics is not None:
        figures = Figures(layers, part)
        config, layers = figures.page_of(config, metrics), figures.layers
    serve = partial(
        _serving_function(server),
        target=config,
        layers=layers,
        codec=codec,
        limits=limits,
        connect_timeout=connect_timeout,
        close_timeout=close_timeout,
        allow_plaintext=allow_plaintext,
    )
    if part is None:
        await _run(_Start(serve, describe(target), on_listening))
    else:
        await _run_part(serve, describe(target), part, figures)


def _served(target: Target) -> Target:
    """``target``, as an ``HttpServer`` if it is an HTTP endpoint in another form."""
    if describe(target).startswith(("http://", "https://", "http+unix:", "http+stdio:", "sse+http")):
        listener = to_listener(target)
        return listener.server() if isinstance(listener, Http) else listener
    return target


def is_server(found: object) -> bool:
    """Whether :func:`run_server` can serve an object. Raises ``UsageError`` if it takes the SDK, which is missing."""
    if _is_handler(found):
        return True
    from trioxport.interop.mcp_sdk import is_sdk_server

    return is_sdk_server(found)


def _is_handler(candidate: Any) -> bool:
    return iscoroutinefunction(candidate) or iscoroutinefunction(getattr(candidate, "__call__", None))  # noqa: B004 (which is it)


def _serving_function(server: Any) -> Callable[..., Awaitable[None]]:
    if _is_handler(server):
        return partial(serve_transport, server)
    from trioxport.interop.mcp_sdk import serve_sdk

    return partial(serve_sdk, server)


@attrs.frozen
class _Start:
    """The start of a server, which can be cancelled as long as it lasts.

    Args:
        serve: Serves, and says where.
        target: The target, redacted.
        on_listening: Called with the addresses.
    """

    serve: Callable[..., Awaitable[None]]
    target: str
    on_listening: Callable[[list[str]], object]

    async def run(self, tasks: trio.Nursery) -> None:
        """Start the server in ``tasks``, and cancel them when it ends by itself, as ``stdio:`` does."""
        async with open_bare_nursery() as waiting:
            waiting.start_soon(self._note_delay)
            addresses: list[str] = await tasks.start(self._serve_to_the_end, tasks.cancel_scope)
            waiting.cancel_scope.cancel()
            self.on_listening(addresses)

    async def _serve_to_the_end(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[list[str]]) -> None:
        await self.serve(task_status=task_status)
        scope.cancel()

    async def _note_delay(self) -> None:
        await trio.sleep(SLOW_START_SECONDS)
        logger.info("%s: connecting; it does not listen yet", self.target)


async def _run(start: _Start) -> None:
    async with open_bare_nursery() as tasks:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            tasks.start_soon(start.run, tasks)
            await _wait_for_signal(signals)
        tasks.cancel_scope.cancel()


async def _wait_for_signal(signals: AsyncIterator[int]) -> None:
    number = await anext(signals)
    logger.info("received %s: stopping", signal.Signals(number).name)


# Workers.


async def _run_workers(
    count: int, target: Target, close_timeout: float, on_listening: Callable[[Sequence[str]], object]
) -> None:
    """Run ``count`` processes of this program on the sockets of ``target``."""
    if isinstance(target, HttpServer) and target.sessions is not None and target.sessions.directory is None:
        raise UsageError(
            "a session of the legacy era lives in one process, and its requests would reach any worker",
            target=describe(target),
            hint=(
                "Pass HttpServer(..., sessions=None) for the modern era alone, share the sessions through Redis by "
                "Sessions(directory=RedisSessions(...)), or serve with one worker"
            ),
        )
    async with open_runner(target, close_timeout) as runner:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            await WorkerPool(count, runner).run(signals, on_listening)


async def _run_part(
    serve: Callable[..., Awaitable[None]], target: str, part: WorkerPart, figures: Figures | None
) -> None:
    """Serve as a worker, until a signal or the end of the link to the process that started this one."""
    async with part.open_link() as link, open_bare_nursery() as tasks:

        def listening(addresses: list[str]) -> None:
            tasks.start_soon(link.report, addresses)
            if figures is not None:
                tasks.start_soon(figures.publish)

        with inherited_sockets(part.listening_sockets()), trio.open_signal_receiver(*SIGNALS) as signals:
            tasks.start_soon(_Start(serve, target, listening).run, tasks)
            await _wait_for_end(signals, link)
        tasks.cancel_scope.cancel()


async def _wait_for_end(signals: AsyncIterator[int], link: WorkerLink) -> None:
    async with open_bare_nursery() as waiting:

        async def wait(function: Callable[[], Awaitable[None]]) -> None:
            await function()
            waiting.cancel_scope.cancel()

        waiting.start_soon(wait, link.wait_stopped)
        waiting.start_soon(wait, partial(_wait_for_signal, signals))
