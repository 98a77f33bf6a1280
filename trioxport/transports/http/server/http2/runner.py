"""Connections of HTTP/2 on a server: each request gets a task of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import trio

from trioxport._diagnostics import logger
from trioxport._diagnostics.refusal_log import RefusalLog, status_reason
from trioxport.transports._http2 import Http2Connection, Http2Settings, Http2Stream
from trioxport.transports.http.server.client_connection import ConnectedClient
from trioxport.transports.http.server.http2.exchange import Http2Exchange
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import ServerRequest

HEADERS_FACTOR: Final = 4
"""A header list may be so many times over the bound and is refused with 431; beyond that its connection ends."""


class Http2Runner:
    """Serves the connections of one server.

    Args:
        answer: Answers one request.
        bounds: The bounds of clients.
        refusals: Counts requests that do not reach ``answer``.
    """

    def __init__(
        self, answer: Callable[[ServerRequest], Awaitable[None]], bounds: Bounds, refusals: RefusalLog
    ) -> None:
        self._answer = answer
        self._bounds = bounds
        self._refusals = refusals
        self._connections: set[Http2Connection] = set()
        self._is_draining = False
        self._settings = Http2Settings(
            max_concurrent_streams=bounds.streams,
            max_headers=HEADERS_FACTOR * bounds.head,
            frame_timeout=bounds.head_timeout,
            idle_timeout=bounds.idle_timeout,
            write_timeout=bounds.write_timeout,
        )

    def drain(self) -> None:
        """Tell the clients that the server goes away; requests that are on their way are still answered."""
        self._is_draining = True
        for connection in self._connections:
            connection.drain()

    def finish_draining(self) -> None:
        """Let each connection end with its current requests."""
        for connection in list(self._connections):
            connection.finish_draining()

    async def serve(self, client: ConnectedClient, early: bytes = b"") -> None:
        """Serve one client until its connection is over; ``early`` are bytes of it that were read already."""
        connection = Http2Connection(client.stream, self._settings, role="server", early=early)
        self._connections.add(connection)
        if self._is_draining:
            connection.drain()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                async for stream in connection.requests:
                    nursery.start_soon(self._serve, stream, client)
        finally:
            self._connections.discard(connection)
        if connection.violation is not None:
            self._refusals.note("ProtocolViolation", client.peer, connection.violation)

    async def _serve(self, stream: Http2Stream, client: ConnectedClient) -> None:
        with stream:
            exchange = Http2Exchange(stream, client, self._bounds)
            status = exchange.refusal()
            if status is None:
                await self._run(exchange)
            else:
                exchange.refuse_as(status)
            status = await exchange.conclude()
            if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                detail = "the request is no HTTP that is taken here, or did not arrive in time"
                self._refusals.note(status_reason(status), exchange.peer, detail)

    async def _run(self, exchange: Http2Exchange) -> None:
        try:
            with exchange.scope:
                await self._answer(exchange)
        except Exception:
            logger.exception("a request could not be answered")
