"""HTTP over stdio: the endpoint for the one client on the standard streams of this process, which speaks HTTP/2."""

from __future__ import annotations

import math
from importlib.util import find_spec

import attrs
import trio

from trioxport._diagnostics.hints import install_hint
from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.errors import UsageError
from trioxport.transports.byte_stream import ByteStream
from trioxport.transports.http.server.application import Endpoint
from trioxport.transports.http.server.modern import WRITE_GRACE_SECONDS
from trioxport.transports.http.server.options import HttpServerOptions
from trioxport.transports.stdio.standard_streams import claimed_standard_streams


@attrs.frozen
class StandardClient:
    """The client on the standard streams: a parent process, without an address.

    Args:
        stream: The standard streams.
    """

    stream: ByteStream
    client: None = attrs.field(default=None, init=False)
    server: None = attrs.field(default=None, init=False)
    peer: None = attrs.field(default=None, init=False)
    tls: None = attrs.field(default=None, init=False)


class StdioListener:
    """The listener of a server on the standard streams.

    The connection may be idle, and the client stopped, for any time, as over ``stdio:``.

    Args:
        config: The configuration of the server.
        settings: The settings of its connections.

    Raises:
        UsageError: HTTP/2 is not installed.
    """

    def __init__(self, config: HttpServerOptions, settings: ConnectionSettings) -> None:
        if find_spec("h2") is None:
            raise UsageError("HTTP/2 is not installed", target=str(config), hint=install_hint("http2"))
        from trioxport.transports.http.server.http2.runner import Http2Runner

        self._config = config
        bounds = attrs.evolve(
            config.bounds, idle_timeout=math.inf, head_timeout=math.inf, body_timeout=math.inf, write_timeout=math.inf
        )
        # There is no load balancer to notice that it drains.
        self._endpoint = Endpoint(attrs.evolve(config, bounds=bounds, drain=0.0), settings)
        self._runner = Http2Runner(self._endpoint.answer, bounds, self._endpoint.refusals)

    async def listen(self, acceptor: Acceptor, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Serve the standard streams of this process. Raises ``UsageError`` if they cannot be served."""
        with claimed_standard_streams() as streams:
            await self.serve(streams, acceptor, task_status=task_status)

    async def serve(
        self,
        streams: ByteStream,
        acceptor: Acceptor,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until the client is gone. Then, or cancelled, end everything in order within ``close_timeout``."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._endpoint.run, acceptor)
            life, over = trio.CancelScope(shield=True), trio.Event()
            nursery.start_soon(self._carry, StandardClient(streams), life, over)
            task_status.started([str(self._config)])
            try:
                await over.wait()
            finally:
                self._runner.drain()
                await self._endpoint.drain()
                self._runner.finish_draining()
                life.deadline = self._endpoint.stop() + WRITE_GRACE_SECONDS
            nursery.cancel_scope.cancel()

    async def _carry(self, client: StandardClient, life: trio.CancelScope, over: trio.Event) -> None:
        with life:
            await self._runner.serve(client)
        over.set()
