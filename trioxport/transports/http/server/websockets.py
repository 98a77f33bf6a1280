"""WebSockets at the endpoint of an HTTP server: under the same access policy, for the same handler."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

import trio

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.abc import Acceptor, Scope
from trioxport.errors import ConnectError
from trioxport.transports._access.request import AccessRefused
from trioxport.transports.http.server.application import Endpoint
from trioxport.transports.http.server.client_connection import ClientConnection
from trioxport.transports.http.server.http1.request_parser import RequestParser
from trioxport.transports.http.server.options import Upgrades
from trioxport.transports.http.server.request import RequestHead
from trioxport.transports.websocket.heartbeat import HeartbeatMonitor, PingSettings
from trioxport.transports.websocket.opening_handshake import check_upgrade
from trioxport.transports.websocket.server import negotiate_subprotocol
from trioxport.transports.websocket.wire import WebSocketWire, carry_websocket


class MountedWebSockets:
    """The WebSockets at one endpoint.

    Args:
        options: Their pings.
        endpoint: The endpoint, with its access policy, health pages and access log.
        acceptor: Takes the connections of admitted clients.

    Attributes:
        monitor: The heartbeats of all of them, for the listener to run.
    """

    def __init__(self, options: Upgrades, endpoint: Endpoint, acceptor: Acceptor) -> None:
        self._pings = PingSettings(options.ping_interval, options.ping_timeout)
        self._endpoint = endpoint
        self._acceptor = acceptor
        self._open_scopes: set[trio.CancelScope] = set()
        self.monitor = HeartbeatMonitor()

    def drain(self) -> None:
        """End all of them with a close frame: the server goes away."""
        for scope in self._open_scopes:
            scope.cancel()

    async def upgrade(self, client: ClientConnection, head: RequestHead, request: RequestParser) -> None:
        """Serve one client until it or its handler is done."""
        self._endpoint.gate.policy.identify(head)
        opening = partial(self._open, client, head, request)
        started = trio.current_time()
        with trio.CancelScope() as life:
            self._open_scopes.add(life)
            try:
                await self._acceptor.serve(
                    lambda scope: carry_websocket(opening(scope), scope, self.monitor), head.peer
                )
            finally:
                self._open_scopes.discard(life)
                self._endpoint.log(head, started)

    async def _open(
        self, client: ClientConnection, head: RequestHead, request: RequestParser, scope: Scope
    ) -> WebSocketWire:
        """Open the WebSocket. Raises ``ConnectError`` after a rejection."""
        try:
            pending = await check_upgrade(client.stream, request.head.fields, request.head.target, request.unread)
            if "authorization" in pending.headers:  # as a subprotocol too
                head.headers["authorization"] = pending.headers["authorization"]
            await pending.check_access(partial(self._check, head))
            pending.fields += head.fields
            await negotiate_subprotocol(pending, scope)
        except ConnectError as error:
            head.status = error.status if isinstance(error, RefusedConnection) else 0
            raise
        except Exception:  # of the application's verifier
            head.status = HTTPStatus.INTERNAL_SERVER_ERROR.value
            raise
        head.status = HTTPStatus.SWITCHING_PROTOCOLS.value
        scope.info.principal, scope.info.token = head.principal, head.token
        scope.info.headers = head.shown()
        scope.info.tls = head.tls
        admission = self._endpoint.gate.policy.admission(head, scope.settings.refusals)
        return WebSocketWire(
            client.stream,
            client.socket,
            scope,
            client=False,
            early=pending.early,
            pings=self._pings,
            admission=admission,
        )

    async def _check(self, head: RequestHead) -> None:
        """Raise ``AccessRefused`` for a client that may not open a WebSocket here."""
        access, health = self._endpoint.gate, self._endpoint.health
        if health.has(head):
            raise AccessRefused(400, "There is no WebSocket at this path")
        await access.policy.check(head)
        if not access.is_endpoint(head):
            raise AccessRefused(404, "There is nothing at this path")
        health.admit(head)
