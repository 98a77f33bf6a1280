"""MCP's requests as methods with typed results, for programs that bring no SDK of their own.

::

    async with open_transport(target) as connection, open_client(connection, client_info=INFO) as client:
        for tool in await client.list_tools():
            print(tool.name, tool.description)
        result = await client.call_tool("add", {"a": 1, "b": 2})
        print(result.text)
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Final, TypeVar

import attrs
import trio

from trioxport._core.backoff import Backoff
from trioxport.abc import Era
from trioxport.connection import Connection
from trioxport.errors import ProtocolViolation, RequestTimeout
from trioxport.messages import NOTHING
from trioxport.peer.client_handlers import Handlers
from trioxport.peer.endpoint import Peer, open_peer
from trioxport.peer.negotiation import Negotiated
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
    contents_of,
    structure,
)
from trioxport.peer.subscriptions import CHANGES, Subscription, Subscriptions
from trioxport.protocol import items_of, members_of

Listed = TypeVar("Listed", bound=attrs.AttrsInstance)

REQUEST_TIMEOUT: Final = 60.0
"""Seconds without a sign of life after which a request has failed."""
PROBE_SECONDS: Final = 5.0
"""Seconds without an answer to ``server/discover`` after which a server counts as legacy."""
MAX_PAGES: Final = 1000
MAX_ROUNDS: Final = 32
"""Rounds in which a server may ask for more input before it answers."""

_INPUT_REQUIRED: Final = "input_required"
_BACKOFF: Final = Backoff()
_RANDOM: Final = Random()


class Client:
    """A client of one server: made by :func:`open_client`, and usable from any task while its block lasts.

    Every method raises what :meth:`Peer.request` raises, and ``ProtocolViolation`` for an answer of the wrong shape.
    ``timeout`` is in seconds without a sign of life. A cancelled request is cancelled at the server.

    Attributes:
        peer: The peer, for requests that have no method here.
        server: The revision in use, and the server's description of itself.
    """

    def __init__(self, peer: Peer, server: Negotiated, handlers: Handlers, subscriptions: Subscriptions) -> None:
        self.peer = peer
        self.server = server
        self._handlers = handlers
        self._subscriptions = subscriptions

    async def list_tools(self, *, timeout: float | None = REQUEST_TIMEOUT) -> Sequence[Tool]:
        """List the tools, of all pages (2026-07-28, server/tools)."""
        return await self._list("tools/list", "tools", Tool, timeout)

    async def list_resources(self, *, timeout: float | None = REQUEST_TIMEOUT) -> Sequence[Resource]:
        """List the resources, of all pages (2026-07-28, server/resources)."""
        return await self._list("resources/list", "resources", Resource, timeout)

    async def list_resource_templates(self, *, timeout: float | None = REQUEST_TIMEOUT) -> Sequence[ResourceTemplate]:
        """List the templates of resources, of all pages."""
        return await self._list("resources/templates/list", "resourceTemplates", ResourceTemplate, timeout)

    async def list_prompts(self, *, timeout: float | None = REQUEST_TIMEOUT) -> Sequence[Prompt]:
        """List the prompts, of all pages (2026-07-28, server/prompts)."""
        return await self._list("prompts/list", "prompts", Prompt, timeout)

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] = NOTHING,
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> ToolResult:
        """Call a tool. A tool that fails is a result with ``is_error``; a tool that does not exist a ``JSONRPCError``.

        Args:
            name: The tool's name.
            arguments: Its arguments.
            on_progress: A plain function, called with ``(progress, total, message)``.
            timeout: Seconds without an answer or, with ``on_progress``, without progress; None waits for ever.
        """
        params = {"name": name, "arguments": dict(arguments)}
        result = await self.request("tools/call", params, on_progress=on_progress, timeout=timeout)
        return structure(ToolResult, result, "tools/call")

    async def read_resource(self, uri: str) -> Sequence[ResourceContents]:
        """Read a resource: one may have several contents, as a folder has."""
        return contents_of(await self.request("resources/read", {"uri": uri}))

    async def get_prompt(self, name: str, arguments: Mapping[str, str] = NOTHING) -> PromptResult:
        """Fill in a prompt."""
        result = await self.request("prompts/get", {"name": name, "arguments": dict(arguments)})
        return structure(PromptResult, result, "prompts/get")

    async def complete(
        self, reference: Prompt | ResourceTemplate, argument: str, value: str, context: Mapping[str, str] = NOTHING
    ) -> Completion:
        """Complete the beginning of an argument's value (2026-07-28, server/utilities/completion).

        Args:
            reference: The prompt or the template that the argument is of.
            argument: Its name.
            value: What is there of its value.
            context: The values of other arguments.
        """
        if isinstance(reference, Prompt):
            named = {"type": "ref/prompt", "name": reference.name}
        else:
            named = {"type": "ref/resource", "uri": reference.uri_template}
        params: dict[str, Any] = {"ref": named, "argument": {"name": argument, "value": value}}
        if context:
            params["context"] = {"arguments": dict(context)}
        result = members_of(await self.peer.request("completion/complete", params))
        return structure(Completion, result.get("completion"), "completion/complete: completion")

    def subscribe(
        self, *, tools: bool = False, prompts: bool = False, resources: bool = False, uris: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[Subscription]:
        """Hear of changes for the time of a block, in which ``async for notification in subscription`` yields them.

        Changes that are not taken in time are one change: what counts is that there was one.

        Args:
            tools: Whether to hear of changes of the list of tools.
            prompts: The same of prompts.
            resources: The same of resources.
            uris: Resources whose contents are watched.

        Raises:
            RequestTimeout: On entering, the server does not acknowledge the subscription.

        The iteration ends when the server ends the subscription, and raises the loss of the connection. In the legacy
        era servers announce changes of lists unasked. Specification 2026-07-28, basic/patterns/subscriptions.
        """
        wanted = {"toolsListChanged": tools, "promptsListChanged": prompts, "resourcesListChanged": resources}
        return self._subscriptions.open(self.peer, [name for name, is_wanted in wanted.items() if is_wanted], uris)

    async def _list(
        self,
        method: str,
        member: str,
        kind: type[Listed],
        timeout: float | None,
    ) -> Sequence[Listed]:
        found: list[Listed] = []
        params: dict[str, Any] = {}
        cursors: set[str] = set()
        while len(cursors) < MAX_PAGES:
            page = members_of(await self.peer.request(method, params, timeout=timeout))
            items = items_of(page.get(member))
            if not isinstance(page.get(member), list):
                raise ProtocolViolation(f"the answer to {method} has no array {member!r}", target=self.peer.target)
            found += [structure(kind, item, f"{method}: {member}[{at}]") for at, item in enumerate(items)]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return found
            if cursor in cursors:
                raise ProtocolViolation(f"{method} gives the cursor of a page again", target=self.peer.target)
            cursors.add(cursor)
            params = {"cursor": cursor}
        raise ProtocolViolation(f"{method} has more than {MAX_PAGES} pages", target=self.peer.target)

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> Any:
        """Send a request that has no method here; the handlers answer what the server asks meanwhile, in either era.

        Args:
            method: Such as ``"tools/call"``.
            params: Its parameters.
            on_progress: A plain function, called with ``(progress, total, message)``.
            timeout: Seconds without an answer or, with ``on_progress``, without progress; None waits for ever.

        Returns the result as it came. Specification 2026-07-28, basic/patterns/mrtr.
        """
        answers: dict[str, Any] = {}
        for number in range(MAX_ROUNDS):
            given = {**(params or {}), **answers} if params is not None or answers else None
            result = await self.peer.request(method, given, timeout=timeout, on_progress=on_progress)
            members = members_of(result)
            if members.get("resultType") != _INPUT_REQUIRED:
                return result
            requests = members_of(members.get("inputRequests"))
            answers = {"inputResponses": await self._handlers.answer_all(requests)} if requests else {}
            if "requestState" in members:
                answers["requestState"] = members["requestState"]
            if not requests:
                await trio.sleep(_BACKOFF.delay(number, _RANDOM))
        raise ProtocolViolation(f"{method} needs more input after {MAX_ROUNDS} rounds", target=self.peer.target)


@asynccontextmanager
async def open_client(
    connection: Connection,
    *,
    client_info: Mapping[str, Any],
    handlers: Handlers = Handlers(),
    capabilities: Mapping[str, Any] = NOTHING,
    era: Era | None = None,
    timeout: float | None = None,
) -> AsyncGenerator[Client]:
    """Converse with a server over ``connection`` for the time of a block: negotiates, and yields a :class:`Client`.

    Args:
        connection: What :func:`trioxport.open_transport` yields; its ``tx`` and ``rx`` belong to the client meanwhile.
        client_info: This program's ``name`` and ``version``.
        handlers: The answers to what servers ask of clients, in either era.
        capabilities: More than those that ``handlers`` stand for.
        era: As for :meth:`Peer.negotiate`.
        timeout: Seconds that the negotiation may take; by default each of its requests has its own limit.

    Raises what :meth:`Peer.negotiate` raises, ``RequestTimeout`` when the negotiation takes longer than ``timeout``,
    and on leaving what :func:`open_peer` raises.
    """
    offered = {**handlers.capabilities(), **capabilities}
    subscriptions = Subscriptions()
    notifications = {**handlers.notifications(), **dict.fromkeys(CHANGES, subscriptions.take)}
    async with open_peer(connection, requests=handlers.requests(), notifications=notifications) as peer:
        server = await _negotiated(peer, client_info, offered, era, timeout)
        yield Client(peer, server, handlers, subscriptions)


async def _negotiated(
    peer: Peer,
    client_info: Mapping[str, Any],
    capabilities: Mapping[str, Any],
    era: Era | None,
    timeout: float | None,
) -> Negotiated:
    """Negotiate within ``timeout`` seconds, of which half at most are for the probe of the modern era."""
    seconds = math.inf if timeout is None else timeout
    with trio.move_on_after(seconds):
        probe = min(PROBE_SECONDS, seconds / 2)
        return await peer.negotiate(client_info=client_info, capabilities=capabilities, era=era, probe_timeout=probe)
    raise RequestTimeout(
        f"the server did not open the conversation within {seconds:g} s",
        target=peer.target,
        hint="Check that it is an MCP server, or raise the timeout",
    )
