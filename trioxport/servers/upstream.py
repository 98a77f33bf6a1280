"""One named server of a group: connected when it is used, and again after it was lost."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, TypeAlias

import trio

from trioxport._core.nursery import failure_in
from trioxport._diagnostics import logger
from trioxport.connection import Connection
from trioxport.errors import ConnectionLost, RequestTimeout, TransportError
from trioxport.messages import NOTHING
from trioxport.peer.client import REQUEST_TIMEOUT, Client
from trioxport.peer.outgoing import ProgressCallback
from trioxport.peer.results import PromptResult, ResourceContents, Tool, ToolResult

UpstreamState: TypeAlias = Literal["idle", "connecting", "open", "failed", "closed"]
"""``"idle"`` before the first use, ``"failed"`` after an error until the next use."""

OpenClient: TypeAlias = Callable[[Connection], AbstractAsyncContextManager[Client]]
"""Negotiates over a connection that was opened."""


class Upstream:
    """A server of a group, usable from any task while the block of the group lasts.

    Its methods connect first where there is no connection, and raise what that raises; an error of one server is
    raised where that server is used, and nowhere else. Those of the requests are those of :class:`Client`.

    Attributes:
        name: Its name in the group.
        state: The state of its connection.
        error: The latest failure; None while it is open.
    """

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], AbstractAsyncContextManager[Connection]],
        open_client: OpenClient,
        connect_timeout: float,
    ) -> None:
        self.name = name
        self.state: UpstreamState = "idle"
        self.error: Exception | None = None
        self._open_connection = open_connection
        self._open_client = open_client
        self._connect_timeout = connect_timeout
        self._client: Client | None = None
        self._is_wanted = False
        self._is_closing = False
        self._connecting = trio.CancelScope()
        self._in_use = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()

    def begin(self) -> None:
        """Begin to connect, unless there is a connection or an attempt."""
        if self.state in ("idle", "failed"):
            self._is_wanted = True
            self._set("connecting", None)

    async def connected(self) -> Client:
        """The client of the server, which is connected first if it is not. Raises its failure to connect."""
        await trio.lowlevel.checkpoint()
        self.begin()
        while self.state == "connecting":
            await self._changed.park()
        if self._client is not None:
            return self._client
        raise self.error or ConnectionLost("the group of servers is closed", target=self.name, outcome="not_sent")

    async def request(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send any request; arguments and errors are those of :meth:`Peer.request`."""
        return await (await self.connected()).peer.request(method, params, **options)

    async def list_tools(self) -> Sequence[Tool]:
        """List the tools, of all pages."""
        return await (await self.connected()).list_tools()

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] = NOTHING,
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = REQUEST_TIMEOUT,  # noqa: ASYNC109 (silence is measured, which fail_after cannot)
    ) -> ToolResult:
        """Call a tool."""
        client = await self.connected()
        return await client.call_tool(name, arguments, on_progress=on_progress, timeout=timeout)

    async def read_resource(self, uri: str) -> Sequence[ResourceContents]:
        """Read a resource."""
        return await (await self.connected()).read_resource(uri)

    async def get_prompt(self, name: str, arguments: Mapping[str, str] = NOTHING) -> PromptResult:
        """Fill in a prompt."""
        return await (await self.connected()).get_prompt(name, arguments)

    async def run(self) -> None:
        """Connect whenever the server is wanted, until :meth:`close`. Raises no ``Exception``: a failure is a state."""
        try:
            while not self._is_closing:
                if self._is_wanted:
                    self._is_wanted = False
                    await self._serve_one_connection()
                else:
                    await self._changed.park()
        finally:
            self._set("closed", self.error)

    def close(self) -> None:
        """Close the connection in order, and connect no more; :meth:`run` returns when that is done."""
        self._is_closing = True
        if self.state == "connecting":
            self._connecting.cancel()
        self._in_use.cancel()
        self._changed.unpark_all()

    async def _serve_one_connection(self) -> None:
        self._connecting = trio.CancelScope(deadline=trio.current_time() + self._connect_timeout)
        error: Exception = ConnectionLost("the server ended the connection", target=self.name)
        try:
            with self._connecting:
                async with self._open_connection() as connection, self._open_client(connection) as client:
                    await self._use(client)
        except BaseException as raised:
            error = failure_in(raised)
        if self._connecting.cancelled_caught:
            seconds = f"{self._connect_timeout:g} s"
            error = RequestTimeout(f"the server did not open the conversation within {seconds}", target=self.name)
        if not self._is_closing:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        level = logging.WARNING if isinstance(error, TransportError) else logging.ERROR
        logger.log(level, "server %s: %s", self.name, error)
        self._set("failed", error)

    async def _use(self, client: Client) -> None:
        """Offer the client until the connection is over, or is to be closed."""
        self._connecting.deadline = math.inf
        with trio.CancelScope() as self._in_use:
            self._client = client
            self._set("open", None)
            await client.peer.wait_finished(0)

    def _set(self, state: UpstreamState, error: Exception | None) -> None:
        self.state, self.error = state, error
        if state != "open":
            self._client = None
        self._changed.unpark_all()
