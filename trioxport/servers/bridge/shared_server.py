"""A server that all clients of a bridge share: connected when it is used, and again after it was lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any, Final, TypeAlias

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._version import __version__
from trioxport.abc import Era, MessageChannels
from trioxport.connection import Connection
from trioxport.errors import ConnectError, RequestTimeout
from trioxport.messages import ErrorResponse, Notification, Request, Response, Undelivered
from trioxport.peer.negotiation import ClientIdentity, negotiate
from trioxport.protocol import INITIALIZE, JSONRPCError, cancellation_of, members_of
from trioxport.servers.bridge.failures import SendInTime
from trioxport.servers.bridge.multiplexer import Multiplexer
from trioxport.servers.bridge.port import Port
from trioxport.servers.failure_log import FailureLog
from trioxport.servers.on_demand import OnDemand

PROBE_SECONDS: Final = 5.0
"""Seconds without an answer to ``server/discover`` after which a server counts as legacy."""

IDENTITY: Final = ClientIdentity(
    {"name": "trioxport bridge", "version": __version__},
    {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": True}},
)
"""The bridge as the client of a shared server: a client is asked for what it can do when the server needs it."""

OpenConnection: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]


class SharedServer(OnDemand[Connection]):
    """One connection to a server for any number of clients.

    Args:
        name: The name of the server, for messages.
        multiplexer: Passes the messages of the clients.
        open_connection: Opens a connection to the server.
        prefers: The era to try first.
        connect_timeout: Seconds until the server has to be connected and to have negotiated.
        on_connected: Called after each negotiation, before clients send anything.
        failures: The log of the server.

    Attributes:
        era: The era of the latest connection; None before the first.
        initialized: The result of ``initialize`` of a legacy server.
    """

    def __init__(
        self,
        name: str,
        multiplexer: Multiplexer,
        open_connection: OpenConnection,
        *,
        prefers: Era,
        connect_timeout: float,
        on_connected: Callable[[], object],
        failures: FailureLog,
    ) -> None:
        super().__init__(name, self._converse, self._wait_for_end, connect_timeout, failures)
        self.era: Era | None = None
        self.initialized: Mapping[str, Any] = {}
        self._multiplexer = multiplexer
        self._open_connection = open_connection
        self._prefers: Era = prefers
        self._on_connected = on_connected
        self._over = trio.Event()

    @asynccontextmanager
    async def _converse(self) -> AsyncGenerator[Connection]:
        """Connect and negotiate, and pass the messages of the clients meanwhile."""
        self._over = trio.Event()
        async with self._open_connection() as connection, open_bare_nursery() as tasks:
            await tasks.start(self._pass_messages, connection)
            if connection.info.era is None and self._prefers == "legacy":
                connection.info.era = "legacy"
            with_server = _Negotiation(connection, self._multiplexer)
            try:
                negotiated = await negotiate(with_server, IDENTITY, None, PROBE_SECONDS)
            except JSONRPCError as error:
                raise ConnectError(f"the server refuses to initialize: {error}", target=self.name) from error
            finally:
                with_server.close()
            self.era, self.initialized = negotiated.era, with_server.initialized
            self._on_connected()
            yield connection
            tasks.cancel_scope.cancel()

    async def _pass_messages(self, connection: Connection, *, task_status: trio.TaskStatus[None]) -> None:
        channels = MessageChannels(SendInTime(connection.tx, self.name), connection.rx)
        await self._multiplexer.serve(channels, task_status=task_status)
        self._over.set()

    async def _wait_for_end(self, connection: Connection) -> None:
        await self._over.wait()


class _Negotiation:
    """The requests of a negotiation, which go through a port of their own beside those of the clients.

    Attributes:
        initialized: The result of ``initialize``, if it was sent.
    """

    def __init__(self, connection: Connection, multiplexer: Multiplexer) -> None:
        self.connection = connection
        self.target = multiplexer.name
        self.initialized: Mapping[str, Any] = {}
        self._port: Port = multiplexer.open_inner_port()
        self._ids = count(1)

    def close(self) -> None:
        self._port.close()

    async def notify(self, method: str) -> None:
        await self._port.send(Notification(method))

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None,
    ) -> Any:
        request = Request(next(self._ids), method, None if params is None else dict(params))
        await self._port.send(request)
        with trio.move_on_after(timeout if timeout is not None else float("inf")):
            answer = await self._answer_to(request)
            if method == INITIALIZE:
                self.initialized = members_of(answer)
            return answer
        if method != INITIALIZE:
            await self._port.send(cancellation_of(request))
        raise RequestTimeout(f"no answer to {method} within {timeout:g} s", target=self.target, outcome="unknown")

    async def _answer_to(self, request: Request) -> Any:
        while True:
            message = await self._port.receive()
            if isinstance(message, Undelivered) and message.id == request.id:
                raise message.cause
            if isinstance(message, ErrorResponse) and message.id == request.id:
                raise JSONRPCError(message.code, message.message, message.data)
            if isinstance(message, Response) and message.id == request.id:
                return message.result
