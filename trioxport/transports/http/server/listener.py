"""The listener of an HTTP server: its sockets, its endpoint, and their end in order."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.auth.tls import server_contexts
from trioxport.errors import UsageError
from trioxport.transports._sockets import refuse_plaintext
from trioxport.transports._urls import authority
from trioxport.transports.http.server.application import Endpoint
from trioxport.transports.http.server.http1.runner import Runner
from trioxport.transports.http.server.modern import WRITE_GRACE_SECONDS
from trioxport.transports.http.server.options import HttpServerOptions, Upgrades
from trioxport.transports.http.server.websockets import MountedWebSockets
from trioxport.transports.listening import bound, closing, listen
from trioxport.transports.unix_sockets import listening_at

if TYPE_CHECKING:
    from trioxport.transports.http.server.http2.runner import Http2Runner


def _protocols() -> tuple[str, ...]:
    """The protocols that the server offers by ALPN (RFC 7301)."""
    return ("http/1.1",) if find_spec("h2") is None else ("h2", "http/1.1")


class HttpListener:
    """The listener of one HTTP server.

    Args:
        config: The configuration of the server.
        settings: The settings of its connections.
    """

    def __init__(self, config: HttpServerOptions, settings: ConnectionSettings) -> None:
        self._config = config
        self._settings = settings
        self._endpoint = Endpoint(config, settings)

    async def listen(self, acceptor: Acceptor, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Serve until cancelled; then drain, and end everything in order within ``close_timeout``.

        Raises:
            UsageError: The configuration cannot be served.
        """
        context = self._context()
        async with self._listeners() as listeners:
            await self._run(listeners, context, acceptor, task_status)

    async def _run(
        self,
        listeners: list[trio.SocketListener],
        context: Callable[[], ssl.SSLContext] | None,
        acceptor: Acceptor,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        endpoint = self._endpoint
        upgrades = Upgrades() if self._config.websocket is True else self._config.websocket
        websockets = MountedWebSockets(upgrades, endpoint, acceptor) if upgrades else None
        upgrade = None if websockets is None else websockets.upgrade
        http2 = self._http2_runner()
        serve_http2 = None if http2 is None else http2.serve
        runner = Runner(endpoint.answer, self._config.bounds, endpoint.refusals, context, upgrade, serve_http2)
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run, acceptor)
            life = trio.CancelScope(shield=True)
            accepting = trio.CancelScope()
            nursery.start_soon(self._serve, runner, websockets, listeners, life, accepting)
            task_status.started([self._address(listener) for listener in listeners])
            try:
                await trio.sleep_forever()
            finally:
                runner.keeps_alive = False
                if http2 is not None:
                    http2.drain()
                await endpoint.drain()
                accepting.cancel()
                runner.drain()
                if http2 is not None:
                    http2.finish_draining()
                if websockets is not None:
                    websockets.drain()
                life.deadline = endpoint.stop() + WRITE_GRACE_SECONDS

    def _http2_runner(self) -> Http2Runner | None:
        """The runner of HTTP/2, if its library is installed."""
        if find_spec("h2") is None:
            return None
        from trioxport.transports.http.server.http2.runner import Http2Runner

        return Http2Runner(self._endpoint.answer, self._config.bounds, self._endpoint.refusals)

    def _context(self) -> Callable[[], ssl.SSLContext] | None:
        """The contexts of TLS. Raises ``UsageError``."""
        tls = self._config.tls
        if self._config.http_url.startswith("https:") != (tls is not None):
            raise UsageError("https, and nothing else, is served with tls", target=str(self._config), hint="Pass tls=")
        return None if tls is None else server_contexts(tls, *_protocols())

    @asynccontextmanager
    async def _listeners(self) -> AsyncGenerator[list[trio.SocketListener]]:
        """The listening sockets for the time of a block. Raises ``UsageError``."""
        unix, target = self._config.unix, str(self._config)
        if unix is not None:
            async with listening_at(unix.path, unix.file, target) as listener:
                yield [listener]
            return
        parts = urlsplit(self._config.url)
        host = parts.hostname or ""
        if parts.port is None:
            raise UsageError("a server has to know its port", target=target, hint="0 takes a free one")
        if self._config.tls is None:
            refuse_plaintext(host, self._settings)
        listeners = await listen(host, parts.port, target)
        with closing(listeners):
            yield listeners

    async def _serve(
        self,
        runner: Runner,
        websockets: MountedWebSockets | None,
        listeners: list[trio.SocketListener],
        life: trio.CancelScope,
        accepting: trio.CancelScope,
    ) -> None:
        with life:
            async with trio.open_nursery() as watchers:
                watchers.start_soon(runner.idle.run)
                if websockets is not None:
                    watchers.start_soon(websockets.monitor.run)
                async with trio.open_nursery() as clients:
                    with accepting:
                        await trio.serve_listeners(runner.serve, listeners, handler_nursery=clients)
                watchers.cancel_scope.cancel()

    def _address(self, listener: trio.SocketListener) -> str:
        if self._config.unix is not None:
            return str(self._config)
        parts = urlsplit(self._config.url)
        return f"{parts.scheme}://{authority(*bound(listener))}{parts.path}"
