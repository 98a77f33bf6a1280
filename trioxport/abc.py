"""The seams: what a transport, a listener, a layer and a codec have to be. The most stable file of the library.

Nothing here is subclassed to add behaviour: all of these are protocols, and a plain function is a valid transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.errors import TransportError
from trioxport.frames import Frame, Limits
from trioxport.messages import Incoming, Message, Request, RequestId

if TYPE_CHECKING:
    from trioxport.auth import VerifiedToken

Role: TypeAlias = Literal["client", "server"]
Era: TypeAlias = Literal["legacy", "modern"]
Carries: TypeAlias = Literal["text", "bytes", "http", "events"]


class FrameChannels(NamedTuple):
    """The two ends that a transport yields, and that frame layers wrap."""

    send: SendChannel[Frame]
    receive: ReceiveChannel[Frame]


class MessageChannels(NamedTuple):
    """The two ends that the application gets, and that message layers wrap."""

    send: SendChannel[Message]
    receive: ReceiveChannel[Incoming]


@attrs.define
class ConnectionInfo:
    """What is known of a connection. Transports and :meth:`trioxport.peer.Peer.negotiate` fill it in.

    Args:
        target: The target, redacted.
        peer: The peer's address, or its process id, as text.
        session_id: The legacy session, where the wire has one.
        era: ``"modern"`` (2026-07-28 and later) or ``"legacy"``, once known.
        protocol_version: The revision in use, once known.
        headers: What the peer sent along when the connection was made.
        tls: The TLS version in use, or None.
        principal: Who the peer is, where it was authenticated.
        token: What the check of the peer's bearer token established; None where nothing but a principal is known.
        carries: What frame layers may make of a payload: ``"text"`` without line feeds, any ``"bytes"``, over
            ``"http"`` what its headers then say, and nothing where the answers of HTTP are ``"events"``.
    """

    target: str
    peer: str | None = None
    session_id: str | None = None
    era: Era | None = None
    protocol_version: str | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    tls: str | None = None
    principal: str | None = None
    token: VerifiedToken | None = None
    carries: Carries = "text"


class Codec(Protocol):
    """Turns messages into payloads and back.

    Attributes:
        name: For people, as ``"JSON"``.
        content_type: The media type of a payload.
        binary: Whether a payload can contain any byte, so that newlines cannot delimit it.
    """

    @property
    def name(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def binary(self) -> bool: ...

    def encode(self, message: Message) -> bytes:
        """The payload of ``message``. Raises ``UsageError`` for what the codec cannot express."""
        ...

    def decode(self, payload: bytes) -> Message:
        """The message in ``payload``. Raises ``DecodeError`` or ``ProtocolViolation``."""
        ...

    def identify(self, fragment: bytes) -> RequestId | None:
        """The id of the response that ``fragment``, a payload or its two ends, belongs to, as far as it can be read."""
        ...

    def identify_request(self, fragment: bytes) -> RequestId | None:
        """The same of a request: None unless it certainly is one, since nothing else may be answered."""
        ...


class Scope(Protocol):
    """What a transport or a layer may know and use of the connection that it is part of.

    Attributes:
        role: Which side of the wire this is.
        target: The target, redacted, for messages.
        limits: The bounds to keep.
        codec: What the payloads are written in.
        connect_timeout: Seconds that connecting may take.
        close_timeout: Seconds that leaving may take.
        allow_plaintext: Whether unencrypted traffic may leave this machine.
        info: What the application sees as ``connection.info``; a transport fills it in.
        leaving: Whether this side has begun to close the connection: from then on the peer's end is no failure,
            however it comes.
        in_flight: The requests of this side that are not settled yet, by id; those too whose ``send`` is not over.
    """

    @property
    def role(self) -> Role: ...
    @property
    def target(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def connect_timeout(self) -> float: ...
    @property
    def close_timeout(self) -> float: ...
    @property
    def allow_plaintext(self) -> bool: ...
    @property
    def info(self) -> ConnectionInfo: ...
    @property
    def leaving(self) -> bool: ...
    @property
    def in_flight(self) -> Mapping[RequestId, Request]: ...

    def peer_done(self, unanswered: TransportError | None = None) -> None:
        """Say that the peer orderly sends no more while this side still may: then close the receiving channel.

        Requests that the peer has left unanswered settle by the error ``unanswered``, or by one that says just that.
        A transport that closes its receiving channel without this is left, and what leaving raises, or does not
        raise, decides between a loss and an orderly end.
        """
        ...

    def lost(self, error: TransportError) -> None:
        """Say that the connection is lost. The first error counts. Then close the receiving channel."""
        ...

    def tell(self, state: Literal["connecting", "open", "waiting"]) -> None:
        """Say how the connection fares in between, where it was lost and comes back by itself."""
        ...

    def discard(self, error: TransportError) -> None:
        """Log and count something received that is skipped and that no request waits for."""
        ...

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task as long as the connection; its exception ends the connection as lost."""
        ...

    def defer(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once the connection is closed, or its nursery is: then nothing passes any more."""
        ...


class Transport(Protocol):
    """Opens one connection: an async context manager around a pair of memory channels.

    Entering returns once messages can be sent, or raises a :class:`~trioxport.ConnectError`. When the sending channel
    is closed, the transport flushes and tells its peer that no more comes. Leaving it without an exception is a polite
    goodbye: flush, close, reap; it is cancelled when ``close_timeout`` is over. Leaving it by ``trio.Cancelled`` waits
    for nobody. A broken wire is told through :meth:`Scope.lost`, or raised on leaving.

    ``str(transport)`` describes it in messages, without credentials.
    """

    def __call__(self, scope: Scope, /) -> AbstractAsyncContextManager[FrameChannels]: ...


Accept: TypeAlias = Callable[[Transport], Awaitable[None]]
"""Runs the server's handler over one accepted connection, and returns when both are over. It raises no ``Exception``:
a failing connection is logged, and leaves the others alone."""


class Listener(Protocol):
    """The serving side of a binding: calls ``accept`` in a task of its own for each connection, until cancelled.

    It reports the addresses that it listens on, as targets for clients, through ``task_status``. One that has only a
    single connection to serve may say so by ``single_connection = True``: then ``accept`` raises what its handler does.
    One that has to know what holds for its connections before there are any has a method ``under(terms)``, which
    returns the listener to use.
    """

    async def listen(
        self, accept: Accept, *, allow_plaintext: bool = False, task_status: trio.TaskStatus[list[str]]
    ) -> None: ...


class MessageLayer(Protocol):
    """Configuration that wraps the channels of messages; reusable, and shared by connections."""

    level: ClassVar[Literal["message"]]

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels: ...


class FrameLayer(Protocol):
    """Configuration that wraps the channels of frames; reusable, and shared by connections."""

    level: ClassVar[Literal["frame"]]

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels: ...


@runtime_checkable
class RefusalObserver(Protocol):
    """A layer that counts what a server refuses: requests and connections that never reach a handler, or its layers."""

    def note_refusal(self, reason: str) -> None:
        """Count a refusal by its reason: an HTTP status, as ``"403 Forbidden (Origin)"``, or the name of an error."""
        ...


Layer: TypeAlias = MessageLayer | FrameLayer
