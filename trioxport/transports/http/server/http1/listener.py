"""Serves an endpoint on sockets of its own."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.auth.tls import server_contexts
from trioxport.errors import UsageError
from trioxport.transports._sockets import bound, listen, refuse_plaintext
from trioxport.transports._urls import authority
from trioxport.transports.http.server.application import GRACE, Endpoint
from trioxport.transports.http.server.http1.runner import Runner
from trioxport.transports.http.server.target import HttpServer, Upgrades
from trioxport.transports.http.server.websockets import MountedWebSockets


class HttpListener:
    """The listener of one HTTP server.

    Args:
        config: What it is told.
        settings: The settings of its connections.
    """

    def __init__(self, config: HttpServer, settings: ConnectionSettings) -> None:
        self._config = config
        self._settings = settings
        self._endpoint = Endpoint(config, settings)

    async def listen(self, acceptor: Acceptor, *, task_status: trio.TaskStatus[list[str]]) -> None:
        parts = urlsplit(self._config.url)
        host, target = parts.hostname or "", str(self._config)
        tls = self._config.tls
        if (parts.scheme == "https") != (tls is not None):
            raise UsageError("https, and nothing else, is served with tls", target=target, hint="Pass tls=")
        if parts.port is None:
            raise UsageError("a server has to know its port", target=target, hint="0 takes a free one")
        if tls is None:
            refuse_plaintext(host, self._settings)
        context = None if tls is None else server_contexts(tls)
        endpoint = self._endpoint
        upgrades = Upgrades() if self._config.websocket is True else self._config.websocket
        sockets = MountedWebSockets(upgrades, endpoint, acceptor) if upgrades else None
        upgrade = None if sockets is None else sockets.upgrade
        runner = Runner(self._endpoint, self._config.bounds, self._endpoint.refusals, context, upgrade)
        listeners = await listen(host, parts.port, target)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._endpoint.run, acceptor)
            life = trio.CancelScope(shield=True)
            accepting = trio.CancelScope()
            nursery.start_soon(self._serve, runner, sockets, listeners, life, accepting)
            task_status.started([self._address(listener) for listener in listeners])
            try:
                await trio.sleep_forever()
            finally:
                runner.keeps_alive = False
                await self._endpoint.drain()
                accepting.cancel()
                runner.drain()
                if sockets is not None:
                    sockets.drain()
                life.deadline = self._endpoint.stop() + GRACE

    async def _serve(
        self,
        runner: Runner,
        sockets: MountedWebSockets | None,
        listeners: list[trio.SocketListener],
        life: trio.CancelScope,
        accepting: trio.CancelScope,
    ) -> None:
        with life:
            async with trio.open_nursery() as watching:
                if sockets is not None:
                    watching.start_soon(sockets.monitor.run)
                async with trio.open_nursery() as clients:
                    with accepting:
                        await trio.serve_listeners(runner.serve, listeners, handler_nursery=clients)
                watching.cancel_scope.cancel()

    def _address(self, listener: trio.SocketListener) -> str:
        parts = urlsplit(self._config.url)
        host, port = bound(listener)
        return f"{parts.scheme}://{authority(host, port)}{parts.path}"
