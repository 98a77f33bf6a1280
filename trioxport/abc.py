"""The seams: what a transport, a listener, a layer and a codec have to be. The most stable file of the library.

Nothing here is subclassed to add behaviour: all of these are protocols, and a plain function is a valid transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._diagnostics.refusal_log import RefusalLog
from trioxport._diagnostics.validators import FLAG, SECONDS, SECONDS_OR_0, OptionCheck, instance_of
from trioxport.codecs.json import JSON
from trioxport.errors import TransportError
from trioxport.frames import Frame, Limits
from trioxport.messages import Incoming, Message, Request, RequestId

if TYPE_CHECKING:
    from trioxport.auth import VerifiedToken

CONNECT_TIMEOUT: Final = 30.0
CLOSE_TIMEOUT: Final = 5.0

Role: TypeAlias = Literal["client", "server"]
Era: TypeAlias = Literal["legacy", "modern"]
Carries: TypeAlias = Literal["text", "bytes", "http", "events"]


@attrs.frozen
class FrameChannels:
    """The two ends that a transport yields, and that frame layers wrap.

    A layer makes a changed copy with :func:`attrs.evolve`, so that what it does not know is kept.

    Args:
        send: Takes what goes to the peer.
        receive: Yields what comes from the peer.
        carries: The payloads that the wire can carry: ``"text"`` without line feeds, any ``"bytes"``, over ``"http"``
            what the headers of a frame say, and over ``"events"``, the server's side of a stream of events, text only.
            A function where that changes while the connection lasts.
        peer: The peer's address or process id, as text, where the transport made the connection; of an accepted one
            the listener says it (:meth:`Acceptor.serve`).
    """

    send: SendChannel[Frame]
    receive: ReceiveChannel[Frame]
    carries: Carries | Callable[[], Carries] = "text"
    peer: str | None = None

    def carried(self) -> Carries:
        """The payloads that the wire can carry now."""
        return self.carries() if callable(self.carries) else self.carries


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


def _is_codec(value: object) -> bool:
    members = ("name", "content_type", "binary", "encode", "decode", "identify")
    return not isinstance(value, type) and all(hasattr(value, name) for name in members)


_CODEC: Final = OptionCheck("a codec, such as trioxport.codecs.JSON", _is_codec)


def _refusal_log(settings: ConnectionSettings) -> RefusalLog:
    return RefusalLog(settings.target)


@attrs.frozen
class ConnectionSettings:
    """The settings of a connection, or of all connections of a server.

    Args:
        role: The side of the wire.
        target: The target, redacted, for messages.
        codec: The encoding of payloads.
        limits: The bounds to keep.
        connect_timeout: Seconds that connecting may take.
        close_timeout: Seconds that leaving may take.
        allow_plaintext: Whether unencrypted traffic may leave this machine.
        refusals: Counts and logs what a server refuses.
    """

    role: Role
    target: str
    codec: Codec = attrs.field(default=JSON, validator=_CODEC)
    limits: Limits = attrs.field(factory=Limits, validator=instance_of(Limits, "a Limits(...)"))
    connect_timeout: float = attrs.field(default=CONNECT_TIMEOUT, validator=SECONDS)
    close_timeout: float = attrs.field(default=CLOSE_TIMEOUT, validator=SECONDS_OR_0)
    allow_plaintext: bool = attrs.field(default=False, validator=FLAG)
    refusals: RefusalLog = attrs.field(default=attrs.Factory(_refusal_log, takes_self=True))


class Scope(Protocol):
    """What a transport or a layer may know and use of the connection that it is part of.

    Attributes:
        settings: The settings of the connection.
        info: What the application sees as ``connection.info``; a transport fills it in.
        leaving: Whether this side has begun to close the connection: from then on the peer's end is no failure,
            however it comes.
        in_flight: The requests of this side that are not settled yet, by id; those too whose ``send`` is not over.
    """

    @property
    def settings(self) -> ConnectionSettings: ...
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

    def set_state(self, state: Literal["connecting", "open", "waiting"]) -> None:
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


class InlineTransport(Transport, Protocol):
    """A transport that is entered and left without waiting: it has nothing to flush, and no peer to say goodbye to."""

    def enter(self, scope: Scope) -> FrameChannels:
        """Its channels."""
        ...

    def leave(self) -> None:
        """Nothing passes any more. It may be called again."""
        ...


class Acceptor(Protocol):
    """Runs the server's handler over the connections that a listener accepts.

    Each method returns when the connection and its handler are over. ``peer`` is the client's address, as text.
    """

    async def serve(self, transport: Transport, peer: str | None = None) -> None:
        """Run the handler over one connection of many.

        Raises no ``Exception``: a failure is logged, and leaves the other connections alone.
        """
        ...

    async def serve_only(self, transport: Transport, peer: str | None = None) -> None:
        """Run the handler over the only connection that the listener has. Raises what the handler raises."""
        ...

    async def serve_inline(self, transport: InlineTransport, peer: str | None = None) -> None:
        """Run the handler, as :meth:`serve` does, over a connection that needs no tasks of its own."""
        ...


@runtime_checkable
class Listener(Protocol):
    """The serving side of a binding."""

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        """Hand each connection to ``acceptor``, in a task of its own, until cancelled.

        Args:
            acceptor: Runs the handler.
            settings: The settings of the connections; ``allow_plaintext`` says whether to listen beyond this machine
                without encryption.
            task_status: Takes the addresses that it listens on, as targets for clients.

        Raises:
            UsageError: The address cannot be listened on.
        """
        ...


@runtime_checkable
class MessageLayer(Protocol):
    """Configuration that wraps the channels of messages; reusable, and shared by connections."""

    level: ClassVar[Literal["message"]]

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels: ...


@runtime_checkable
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
