"""One named server of a group: connected when it is used, and again after it was lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from trioxport.connection import Connection
from trioxport.messages import NOTHING
from trioxport.peer.client import REQUEST_TIMEOUT, Client
from trioxport.peer.outgoing import ProgressCallback
from trioxport.peer.results import (
    Completion,
    Prompt,
    PromptResult,
    Resource,
    ResourceContents,
    ResourceTemplate,
    Tool,
    ToolResult,
)
from trioxport.peer.subscriptions import Subscription
from trioxport.servers.on_demand import DemandState, OnDemand

UpstreamState: TypeAlias = DemandState
"""``"idle"`` before the first use, ``"failed"`` after an error until the next use."""

OpenClient: TypeAlias = Callable[[Connection], AbstractAsyncContextManager[Client]]
"""Negotiates over a connection that was opened."""


class Upstream(OnDemand[Client]):
    """A server of a group, usable from any task while the block of the group lasts.

    Its methods connect first where there is no connection, and raise what that raises; an error of one server is
    raised where that server is used, and nowhere else. Those of the requests are those of :class:`Client`.

    Attributes:
        name: Its name in the group.
        state: The state of its conversation.
        error: The latest failure since it was opened; None if there was none.
    """

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], AbstractAsyncContextManager[Connection]],
        open_client: OpenClient,
        connect_timeout: float,
    ) -> None:
        super().__init__(name, self._converse, self._wait_for_end, connect_timeout)
        self._open_connection = open_connection
        self._open_client = open_client

    @asynccontextmanager
    async def _converse(self) -> AsyncGenerator[Client]:
        async with self._open_connection() as connection, self._open_client(connection) as client:
            yield client

    async def _wait_for_end(self, client: Client) -> None:
        await client.peer.wait_finished(0)

    @property
    def connection(self) -> Connection | None:
        """The connection, with its ``info``, ``state`` and ``statistics``; None while there is none."""
        return None if self.opened is None else self.opened.peer.connection

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
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> ToolResult:
        """Call a tool."""
        client = await self.connected()
        return await client.call_tool(name, arguments, on_progress=on_progress, timeout=timeout)

    async def list_resources(self) -> Sequence[Resource]:
        """List the resources, of all pages."""
        return await (await self.connected()).list_resources()

    async def list_resource_templates(self) -> Sequence[ResourceTemplate]:
        """List the templates of resources, of all pages."""
        return await (await self.connected()).list_resource_templates()

    async def read_resource(self, uri: str) -> Sequence[ResourceContents]:
        """Read a resource."""
        return await (await self.connected()).read_resource(uri)

    async def list_prompts(self) -> Sequence[Prompt]:
        """List the prompts, of all pages."""
        return await (await self.connected()).list_prompts()

    async def get_prompt(self, name: str, arguments: Mapping[str, str] = NOTHING) -> PromptResult:
        """Fill in a prompt."""
        return await (await self.connected()).get_prompt(name, arguments)

    async def complete(
        self, reference: Prompt | ResourceTemplate, argument: str, value: str, context: Mapping[str, str] = NOTHING
    ) -> Completion:
        """Complete the beginning of an argument's value."""
        return await (await self.connected()).complete(reference, argument, value, context)

    @asynccontextmanager
    async def subscribe(
        self, *, tools: bool = False, prompts: bool = False, resources: bool = False, uris: Sequence[str] = ()
    ) -> AsyncGenerator[Subscription]:
        """Hear of changes for the time of a block. The loss of the connection ends the subscription."""
        client = await self.connected()
        async with client.subscribe(tools=tools, prompts=prompts, resources=resources, uris=uris) as subscription:
            yield subscription
