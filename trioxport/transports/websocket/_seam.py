"""Between the connections and whatever speaks WebSocket for them: what an engine has to do, and which ones there are.

All else (sockets, TLS, credentials, who is let in, how many, what close codes mean) is the same over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, get_args

import attrs
import trio

from trioxport.abc import Scope
from trioxport.errors import TransportError, UsageError
from trioxport.transports._pumps import FrameWire
from trioxport.transports.bytestream import ByteStream

if TYPE_CHECKING:
    from trioxport.transports.websocket._handshake import Knock

EngineName: TypeAlias = Literal["trio-websocket", "native"]
DEFAULT_ENGINE: Final = "trio-websocket"


@attrs.frozen
class Heartbeat:
    """When to ask a silent peer for a sign of life, and how long to wait for one, in seconds."""

    interval: float | None
    timeout: float


@attrs.frozen
class Link:
    """What a WebSocket is to be spoken over.

    Args:
        stream: What carries its bytes.
        socket: What is under that, to close when the peer is dead.
        scope: The connection.
        heartbeat: How the peer is watched.
    """

    stream: ByteStream
    socket: trio.SocketStream
    scope: Scope
    heartbeat: Heartbeat


@attrs.frozen
class Wish:
    """What a client asks for.

    Args:
        url: The endpoint, redacted, for messages.
        host: The ``Host`` header.
        path: The path, with the query.
        subprotocols: What it offers.
        headers: What else the request carries.
    """

    url: str
    host: str
    path: str
    subprotocols: Sequence[str]
    headers: Mapping[str, str] = attrs.field(repr=False)


class OpenWebSocket(FrameWire, Protocol):
    """A WebSocket after its handshake, for the pumps of a connection and for what looks after its peer."""

    @property
    def socket(self) -> trio.SocketStream: ...

    async def explain(self, error: Exception | None) -> TransportError | None:
        """Why the connection ended, for the pumps."""
        ...

    async def say_goodbye(self) -> None:
        """Tell the peer that this side was cut off, if that can be told at once."""
        ...

    def next_look(self) -> float:
        """When the peer is to be looked after, by the clock of Trio."""
        ...

    def attend_soon(self) -> None:
        """Look after the peer, in a task that neither reading nor writing waits for."""
        ...


class Engine(Protocol):
    """Does the handshake of either side, and carries frames."""

    async def ask(self, link: Link, wish: Wish) -> tuple[OpenWebSocket, Mapping[str, str]]:
        """Open a WebSocket as a client; also returns the response's headers. Raises ``TransportError``."""
        ...

    async def admit(self, link: Link, knock: Knock, subprotocol: str | None) -> OpenWebSocket:
        """Open one for a client that is let in. Raises ``ConnectError`` if it went away."""
        ...


def check_engine(name: str) -> None:
    """Raise ``UsageError`` for the name of no engine."""
    if name not in get_args(EngineName):
        raise UsageError(f"the engine is {name!r}, and has to be one of {', '.join(get_args(EngineName))}")


def engine_of(name: EngineName) -> Engine:
    """The engine of that name, which is imported now."""
    if name == "native":
        from trioxport.transports.websocket._native import Native

        return Native()
    from trioxport.transports.websocket._library import TrioWebSocket

    return TrioWebSocket()
