"""Bridges: any transport exposed as any other, for clients and servers of either era.

::

    await serve_bridge("http://127.0.0.1:8000/mcp", "stdio:npx -y @modelcontextprotocol/server-everything")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import trio

from trioxport._core.nursery import open_bare_nursery, require_trio
from trioxport._diagnostics.validators import SECONDS, WORDS, names_options, one_of
from trioxport.abc import CLOSE_TIMEOUT, CONNECT_TIMEOUT, Codec, Era, Layer
from trioxport.codecs.forwarding import Forwarding
from trioxport.codecs.json import JSON
from trioxport.config.server import ServerConfig
from trioxport.connection import Connection
from trioxport.errors import TransportError, UsageError
from trioxport.frames import Limits
from trioxport.messages import ErrorResponse, Message, Notification, Request, Undelivered
from trioxport.opening import open_transport, serve_transport
from trioxport.protocol import DISCOVER, INITIALIZE, META, METHOD_NOT_FOUND, meta_of
from trioxport.servers.bridge.failures import error_response
from trioxport.servers.bridge.gathered_mode import GatheredMode
from trioxport.servers.bridge.headers import ClientMetadata, HeaderAllowList
from trioxport.servers.bridge.members import SharingMode
from trioxport.servers.bridge.per_session import PerSessionMode
from trioxport.servers.bridge.relay import Relay
from trioxport.servers.bridge.shared_server import OpenConnection
from trioxport.servers.bridge.sharing import SharedMode
from trioxport.servers.failure_log import CONNECTION
from trioxport.targets import Target
from trioxport.transports.reconnecting import Reconnect

DEFAULT_LIMITS: Final = Limits()
LIST_TIMEOUT: Final = 10.0
"""Seconds that a list waits for each of several servers."""

Sharing: TypeAlias = Literal["shared", "per-session"]
_SHARING: Final = one_of("shared", "per-session")


class Bridge:
    """The handler of a bridge: made by :func:`open_bridge`, and run by :func:`trioxport.serve_transport`.

    It can be mounted wherever a handler can, and serve several listeners at once.
    """

    def __init__(self, mode: SharingMode, headers: HeaderAllowList) -> None:
        self._mode = mode
        self._headers = headers

    async def handler(self, connection: Connection) -> None:
        """Relay one connection of a client to its end.

        A server that cannot be reached is the error of the client's request, and the next request tries again.

        Raises:
            ConnectionLost: The client was lost, or the server that it had for itself.
        """
        metadata = ClientMetadata(connection.info, self._headers)
        async for message in connection.rx:
            begin: Message | None = None if isinstance(message, Undelivered) else message
            while begin is not None and (isinstance(begin, Request) or connection.info.era is not None):
                is_over, begin = await self._relay(connection, metadata, begin)
                if is_over:
                    return

    async def _relay(
        self, connection: Connection, metadata: ClientMetadata, first: Message
    ) -> tuple[bool, Message | None]:
        """Relay a connection from a message on.

        Returns:
            Whether that is over, and the message to begin anew with if there is one.
        """
        if connection.info.era == "modern" and isinstance(first, Request) and first.method == INITIALIZE:
            await connection.tx.send(ErrorResponse(first.id, METHOD_NOT_FOUND, "Method not found"))
            return False, None
        async with AsyncExitStack() as stack:
            try:
                channels = self._mode.channels(era_of(connection, first), metadata.exchanged(first))
                session = await stack.enter_async_context(channels)
            except TransportError as error:
                await self._refuse(connection, first, error)
                return False, None
            self._mode.failures.works(CONNECTION)
            relay = Relay(connection, session.channels, self._mode.name, metadata)
            restart = await relay.run(first, is_sent=session.is_sent)
            return restart is None, restart

    async def _refuse(self, connection: Connection, message: Message, error: TransportError) -> None:
        self._mode.failures.failed(CONNECTION, str(error))
        if isinstance(message, Request):
            await connection.tx.send(error_response(message.id, self._mode.name, error))


def era_of(connection: Connection, message: Message) -> Era:
    """The era of a client, from what HTTP knows or from its first message."""
    if connection.info.era is not None:
        return connection.info.era
    params = message.params if isinstance(message, Request | Notification) else None
    is_modern = isinstance(message, Request) and message.method == DISCOVER
    return "modern" if is_modern or META + "protocolVersion" in meta_of(params) else "legacy"


@asynccontextmanager
async def open_bridge(
    target: Target | Mapping[str, Target],
    *,
    name: str = "server",
    sharing: Sharing = "shared",
    forward_headers: Sequence[str] = (),
    layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    reconnect: Reconnect | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    list_timeout: float = LIST_TIMEOUT,
    **options: Any,
) -> AsyncGenerator[Bridge]:
    """Run a bridge to ``target`` for the time of a block; its ``handler`` is served by the caller.

    Args:
        target: The server; or several by name, such as ``load_servers`` returns. Their tools and prompts get the name
            as a prefix, ``name__tool``; disabled ones are left out.
        name: The name of a single server in the errors that clients get, in place of its address.
        sharing: ``"shared"``: one connection to the server for all clients. ``"per-session"``: one for each connection
            of a client; over HTTP that is a session, and in the modern era, which has none, a request.
        forward_headers: The names of headers of clients that the server gets, if it is one over HTTP.
        layers: The layers of the connections to the server.
        codec: The encoding of messages at the server.
        reconnect: The policy by which a lost connection to the server is opened again. Without it a shared server is
            connected again when it is used next, and the loss of another one ends its client's connection.
        connect_timeout: Seconds until the server has to be connected, and a shared one to have negotiated.
        list_timeout: Seconds that a list waits for each of several servers. One that has not answered is left out, and
            lists do not wait for it again until it is connected.
        options: More options of :func:`trioxport.open_transport` for the connections to the server.

    Raises:
        UsageError: A header cannot be forwarded; there is no server, or two of them have the same prefix.
    """
    require_trio("open_bridge")
    _SHARING.option("sharing", sharing)
    WORDS.option("forward_headers", forward_headers)
    SECONDS.option("list_timeout", list_timeout)
    headers = HeaderAllowList(forward_headers)
    options |= {"layers": layers, "codec": Forwarding(codec), "reconnect": reconnect}

    def opened(server: Target) -> AbstractAsyncContextManager[Connection]:
        return open_transport(server, connect_timeout=connect_timeout, **options)

    targets = _usable(target) if isinstance(target, Mapping) else {name: target}
    for each in targets.values():
        opened(each)  # raises what is wrong with the arguments
    async with open_bare_nursery() as tasks:
        modes = {
            each: _mode(each, partial(opened, server), sharing, connect_timeout, tasks)
            for each, server in targets.items()
        }
        if isinstance(target, Mapping):
            yield Bridge(GatheredMode(name, modes, connect_timeout, list_timeout), headers)
        else:
            yield Bridge(modes[name], headers)
        for mode in modes.values():
            mode.close()


def _usable(targets: Mapping[str, Target]) -> Mapping[str, Target]:
    """The servers that are not disabled. Raises ``UsageError`` if there is none."""
    usable = {
        name: target for name, target in targets.items() if not (isinstance(target, ServerConfig) and target.disabled)
    }
    if not usable:
        raise UsageError("there is no server to bridge to", hint="Name one that is not disabled")
    return usable


def _mode(
    name: str, opened: OpenConnection, sharing: Sharing, connect_timeout: float, tasks: trio.Nursery
) -> SharedMode | PerSessionMode:
    if sharing == "per-session":
        return PerSessionMode(name, opened, tasks)
    return SharedMode(name, opened, connect_timeout, tasks)


@names_options
async def serve_bridge(
    listen: Target,
    target: Target | Mapping[str, Target],
    *,
    name: str = "server",
    sharing: Sharing = "shared",
    forward_headers: Sequence[str] = (),
    layers: Sequence[Layer] = (),
    upstream_layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    reconnect: Reconnect | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    list_timeout: float = LIST_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    limits: Limits = DEFAULT_LIMITS,
    allow_plaintext: bool = False,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``target``, one server or several by name, at ``listen``, until cancelled; that may be a ``Dial(...)``.

    Args:
        listen: The target that clients use.
        layers: The layers of the connections of clients.
        upstream_layers: The layers of the connections to the server.
        task_status: Takes the addresses that it listens on, as targets for clients.

    The other arguments are those of :func:`open_bridge` and, for both sides, of :func:`trioxport.open_transport`.

    Raises:
        UsageError: The target cannot be served, or a header cannot be forwarded.
        TransportError: The listener ended for another reason.
    """
    both: dict[str, Any] = {"close_timeout": close_timeout, "limits": limits, "allow_plaintext": allow_plaintext}
    async with open_bridge(
        target,
        name=name,
        sharing=sharing,
        forward_headers=forward_headers,
        layers=upstream_layers,
        codec=codec,
        reconnect=reconnect,
        connect_timeout=connect_timeout,
        list_timeout=list_timeout,
        **both,
    ) as bridge:
        await serve_transport(
            bridge.handler, listen, layers=layers, codec=Forwarding(codec), task_status=task_status, **both
        )
