"""A group of named servers: connected, used and closed together, each failing alone.

::

    async with open_servers(load_servers("mcp.json")) as servers:
        for tool in await servers.tools():
            print(tool.server, tool.name)
        result = await servers.call("files/read", {"path": "notes.txt"})
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport._diagnostics.hints import close_to
from trioxport._diagnostics.validators import names_options
from trioxport._version import __version__
from trioxport.abc import CLOSE_TIMEOUT, Codec, Layer
from trioxport.codecs.json import JSON
from trioxport.config import ServerConfig
from trioxport.errors import RequestTimeout, TransportError, UsageError
from trioxport.frames import Limits
from trioxport.messages import NOTHING
from trioxport.opening import DEFAULT_LIMITS, open_transport
from trioxport.peer.client import REQUEST_TIMEOUT, open_client
from trioxport.peer.client_handlers import Handlers
from trioxport.peer.outgoing import ProgressCallback
from trioxport.peer.results import Tool, ToolResult
from trioxport.protocol import METHOD_NOT_FOUND, JSONRPCError
from trioxport.servers.upstream import Upstream
from trioxport.targets import Target
from trioxport.transports.reconnecting import Reconnect

CONNECT_TIMEOUT: Final = 30.0
LIST_SECONDS: Final = 10.0
CLIENT_INFO: Final = {"name": "trioxport", "version": __version__}


@attrs.frozen
class ServerTool:
    """A tool, and the server that offers it.

    Args:
        server: The server's name in the group.
        tool: The tool.
    """

    server: str
    tool: Tool

    @property
    def name(self) -> str:
        """The name by which :meth:`Servers.call` finds it: ``"server/tool"``."""
        return f"{self.server}/{self.tool.name}"


class Servers(Mapping[str, Upstream]):
    """The servers of a group, by name: made by :func:`open_servers`."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams

    def __getitem__(self, name: str) -> Upstream:
        try:
            return self._upstreams[name]
        except KeyError:
            known = ", ".join(self._upstreams)
            close = close_to(name, self._upstreams)
            question = "" if close is None else f"Did you mean {close!r}? "
            raise UsageError(f"there is no server {name!r}", hint=f"{question}The servers: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._upstreams)

    def __len__(self) -> int:
        return len(self._upstreams)

    def __contains__(self, name: object) -> bool:
        return name in self._upstreams

    async def tools(self, *, within: float = LIST_SECONDS) -> Sequence[ServerTool]:
        """List the tools of all servers.

        Args:
            within: Seconds after which a server that has not answered is left out.

        A server that fails, or does not answer, is left out; its ``error`` says why.
        """
        found: dict[str, Sequence[ServerTool]] = {}
        waiting = set(self._upstreams.values())
        with trio.move_on_after(within):
            async with open_bare_nursery() as tasks:
                for upstream in self._upstreams.values():
                    tasks.start_soon(_list_tools, upstream, found, waiting)
        for upstream in waiting:
            _leave_out(upstream, RequestTimeout(f"no answer to tools/list within {within:g} s", target=upstream.name))
        return [tool for name in self._upstreams for tool in found.get(name, ())]

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] = NOTHING,
        *,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> ToolResult:
        """Call a tool by ``"server/tool"``; the other arguments are those of :meth:`Client.call_tool`.

        Raises:
            UsageError: There is no server of that name.
            TransportError: The server cannot be reached, or was lost.
        """
        server, name = self._route(tool)
        return await self[server].call_tool(name, arguments, on_progress=on_progress, timeout=timeout)

    def _route(self, tool: str) -> tuple[str, str]:
        """The name of the server, which may have slashes too, and the name of its tool."""
        slashes = [place for place, character in enumerate(tool) if character == "/"]
        if not slashes:
            raise UsageError(f"{tool!r} names no server", hint="Call a tool by 'server/tool'")
        known = [place for place in slashes if tool[:place] in self._upstreams]
        place = max(known, default=slashes[0])
        return tool[:place], tool[place + 1 :]


async def _list_tools(upstream: Upstream, found: dict[str, Sequence[ServerTool]], waiting: set[Upstream]) -> None:
    try:
        tools = await upstream.list_tools()
    except JSONRPCError as error:
        if error.code != METHOD_NOT_FOUND:  # a server need not have tools
            _leave_out(upstream, error)
    except Exception as error:
        _leave_out(upstream, error)
    else:
        found[upstream.name] = [ServerTool(upstream.name, tool) for tool in tools]
    waiting.discard(upstream)


def _leave_out(upstream: Upstream, error: Exception) -> None:
    if upstream.error is None:  # the failure of the connection is logged already
        upstream.error = error
        logger.warning("server %s: its tools cannot be listed: %s", upstream.name, error)


def _is_usable(target: Target, options: Mapping[str, Any]) -> bool:
    """Whether a target can be opened at all; one that is wrong or disabled raises its error where it is used."""
    try:
        open_transport(target, **options)
    except TransportError:
        return False
    return True


def _seconds_to_connect(target: Target, seconds: float) -> float:
    configured = target.connect_timeout if isinstance(target, ServerConfig) else None
    return configured if configured is not None and seconds == CONNECT_TIMEOUT else seconds


@names_options
@asynccontextmanager
async def open_servers(
    config: Mapping[str, Target],
    *,
    client_info: Mapping[str, Any] = CLIENT_INFO,
    handlers: Handlers | Callable[[str], Handlers] = Handlers(),
    capabilities: Mapping[str, Any] = NOTHING,
    lazy: bool = False,
    connect_timeout: float = CONNECT_TIMEOUT,
    layers: Sequence[Layer] | Callable[[str], Sequence[Layer]] = (),
    codec: Codec = JSON,
    limits: Limits = DEFAULT_LIMITS,
    close_timeout: float = CLOSE_TIMEOUT,
    allow_plaintext: bool = False,
    reconnect: Reconnect | None = None,
) -> AsyncGenerator[Servers]:
    """Open a group of servers for the time of a block. It does not wait for them: each is waited for where it is used.

    Args:
        config: The targets by name, such as ``load_servers`` returns.
        client_info: This program's ``name`` and ``version``, which servers show and log.
        handlers: The answers to what servers ask of clients, for all of them; or a function that returns those for the
            server of a name, so that a user can be shown the server that asks.
        capabilities: More than those that ``handlers`` stand for.
        lazy: Whether a server is connected when it is first used; by default all are at once.
        connect_timeout: Seconds until a server has to be connected and to have negotiated. A time in the server's
            configuration takes the place of the default.
        layers: The layers of each connection; or a function that returns those for the server of a name. A layer with a
            state, such as ``CircuitBreaker``, is shared by all servers unless a function makes it.
        codec: As for :func:`trioxport.open_transport`, for each connection, and so are the others.
        limits: The limits of sizes and buffers.
        close_timeout: Seconds that closing a connection may take.
        allow_plaintext: Whether unencrypted connections may leave this machine.
        reconnect: The policy by which a lost connection is opened again. Once it gives up, the server fails, and its
            next use begins anew.

    A server that fails is a ``warning`` on the log ``trioxport``, its ``state`` and ``error``, and the error of those
    who use it; each use tries to connect it anew. Leaving closes all of them, at the same time.
    """
    options: dict[str, Any] = {
        "codec": codec,
        "limits": limits,
        "close_timeout": close_timeout,
        "allow_plaintext": allow_plaintext,
        "reconnect": reconnect,
    }
    upstreams: dict[str, Upstream] = {}
    usable: list[Upstream] = []
    for name, target in config.items():
        own = {**options, "layers": layers(name) if callable(layers) else layers}
        answers = handlers(name) if callable(handlers) else handlers
        converse = partial(open_client, client_info=client_info, handlers=answers, capabilities=capabilities)
        seconds = _seconds_to_connect(target, connect_timeout)
        upstreams[name] = Upstream(name, partial(open_transport, target, **own), converse, seconds)
        if _is_usable(target, own):
            usable.append(upstreams[name])
    async with open_bare_nursery() as tasks:
        for upstream in upstreams.values():
            tasks.start_soon(upstream.run)
        for upstream in [] if lazy else usable:
            upstream.begin()
        yield Servers(upstreams)
        for upstream in upstreams.values():
            upstream.close()
