"""The interfaces of transports, listeners, layers and codecs. The most stable module of the library.

All of them are protocols: nothing is subclassed to add behaviour, and a plain function can be a transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
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
from trioxport.messages import ErrorResponse, Incoming, Message, Request, RequestId

if TYPE_CHECKING:
    from trioxport.auth import VerifiedToken

CONNECT_TIMEOUT: Final = 30.0
"""Seconds that connecting may take, by default."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing may take, by default."""

Role: TypeAlias = Literal["client", "server"]
Era: TypeAlias = Literal["legacy", "modern"]
Carries: TypeAlias = Literal["text", "bytes", "http", "events"]
MessageCheck: TypeAlias = Callable[[Message], ErrorResponse | None]


@attrs.frozen
class FrameChannels:
    """The channels of frames that a transport yields and that frame layers wrap.

    A layer makes a changed copy with :func:`attrs.evolve`, which keeps the fields that it does not know.

    Args:
        send: The channel of frames to the peer.
        receive: The channel of frames from the peer.
        carries: The payloads that the wire can carry: ``"text"`` without line feeds; any ``"bytes"``; over ``"http"``
            those that the headers of a frame describe; over ``"events"``, the server's side of an event stream, text.
            A function where this changes while the connection lasts.
        peer: The peer's address or process id, as text, if the transport made the connection. For an accepted one the
            listener passes it to the :class:`Acceptor`.
        check: The check of messages that the peer may not send: returns the answer to one that is refused, or None.
        ordered: Whether messages come in the order in which they were sent, each once, as they do not out of a queue.
    """

    send: SendChannel[Frame]
    receive: ReceiveChannel[Frame]
    carries: Carries | Callable[[], Carries] = "text"
    peer: str | None = None
    check: MessageCheck | None = None
    ordered: bool = True

    def carried(self) -> Carries:
        """The payloads that the wire can carry now."""
        return self.carries() if callable(self.carries) else self.carries


class MessageChannels(NamedTuple):
    """The channels of messages that the application uses and that message layers wrap."""

    send: SendChannel[Message]
    receive: ReceiveChannel[Incoming]


@attrs.define
class ConnectionInfo:
    """The known facts about a connection and its peer; the transport and :meth:`trioxport.peer.Peer.negotiate` add to
    them while it lasts.

    Args:
        target: The target, redacted.
        peer: The peer's address, or its process id, as text.
        session_id: The id of the legacy session, on a wire that has sessions.
        era: ``"modern"`` (2026-07-28 and later) or ``"legacy"``, once known.
        protocol_version: The revision in use, once known.
        headers: The headers that the peer sent when the connection was made, by name; never in the ``repr``.
        tls: The TLS version in use, or None.
        principal: The authenticated identity of the peer, or None.
        token: The verified bearer token of the peer; None if there is none, or only its principal is known.
        pid: The process id of the peer, where it is a child of this process.
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
    pid: int | None = None


class Codec(Protocol):
    """The encoding of messages as payloads.

    Attributes:
        name: The name to show, such as ``"JSON"``.
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
        """The payload of ``message``. Raises ``UsageError`` for values that the codec cannot express."""
        ...

    def decode(self, payload: bytes) -> Message:
        """The message in ``payload``. Raises ``DecodeError`` or ``ProtocolViolation``."""
        ...

    def identify(self, fragment: bytes) -> RequestId | None:
        """The id of the request that ``fragment`` answers, or None if it cannot be read.

        Args:
            fragment: The payload of a response, or its two ends.
        """
        ...

    def identify_request(self, fragment: bytes) -> RequestId | None:
        """The id of the request in ``fragment``; None unless it certainly is one, since nothing else is answered."""
        ...


def _is_codec(value: object) -> bool:
    members = ("name", "content_type", "binary", "encode", "decode", "identify")
    return not isinstance(value, type) and all(hasattr(value, name) for name in members)


_CODEC: Final = OptionCheck("a codec, such as trioxport.codecs.JSON", _is_codec)


def _refusal_log(settings: ConnectionSettings) -> RefusalLog:
    return RefusalLog(settings.target)


def _count_nothing(_event: str) -> None:
    """Ignore an event, where no layer counts events."""


@attrs.frozen
class ConnectionSettings:
    """The settings of a connection, or of all connections of a server.

    Args:
        role: The side of this program.
        target: The target, redacted, for messages.
        codec: The encoding of payloads.
        limits: The limits of sizes and buffers.
        connect_timeout: Seconds that connecting may take.
        close_timeout: Seconds that closing may take.
        allow_plaintext: Whether unencrypted traffic may leave this machine.
        refusals: The log and the counts of refusals, on a server.
        count_event: Counts an event of a server by its name, as ``"forwarded"``.
    """

    role: Role
    target: str
    codec: Codec = attrs.field(default=JSON, validator=_CODEC)
    limits: Limits = attrs.field(factory=Limits, validator=instance_of(Limits, "a Limits(...)"))
    connect_timeout: float = attrs.field(default=CONNECT_TIMEOUT, validator=SECONDS)
    close_timeout: float = attrs.field(default=CLOSE_TIMEOUT, validator=SECONDS_OR_0)
    allow_plaintext: bool = attrs.field(default=False, validator=FLAG)
    refusals: RefusalLog = attrs.field(default=attrs.Factory(_refusal_log, takes_self=True))
    count_event: Callable[[str], None] = attrs.field(default=_count_nothing, repr=False)


class Scope(Protocol):
    """The part of a connection that its transport and its layers see.

    Attributes:
        settings: The settings of the connection.
        info: The facts that the application reads as ``connection.info``; a transport fills them in.
        leaving: Whether this side has begun to close the connection. From then on the end of the peer is no failure,
            not even an abrupt one.
        in_flight: The requests of this side that are not settled, by id. A request is in it as soon as its ``send``
            begins.
    """

    @property
    def settings(self) -> ConnectionSettings: ...
    @property
    def info(self) -> ConnectionInfo: ...
    @property
    def leaving(self) -> bool: ...
    @property
    def in_flight(self) -> Mapping[RequestId, Request]: ...

    def hide(self, texts: Collection[str]) -> None:
        """Hide texts, such as a secret that is a part of the target, in the errors of the connection from now on."""
        ...

    def peer_done(self, unanswered: TransportError | None = None) -> None:
        """Report that the peer has ended in order, while this side may still send. Close the receiving channel next.

        A transport that closes its receiving channel without this call is left at once; an exception on leaving it
        makes that a loss, and no exception an orderly end.

        Args:
            unanswered: The error of the requests that the peer has left unanswered. The default says just that.
        """
        ...

    def lost(self, error: TransportError) -> None:
        """Report that the connection is lost; the first error counts. Close the receiving channel next."""
        ...

    def set_state(self, state: Literal["connecting", "open", "waiting"]) -> None:
        """Set ``connection.state``, in a transport that replaces lost connections by itself."""
        ...

    def discard(self, error: TransportError) -> None:
        """Log and count something received that is skipped, and that no request waits for."""
        ...

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task that is cancelled at the end of the connection. Its exception ends the connection as lost."""
        ...

    def defer(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once when the connection is closed, or its nursery cancelled, and no message passes."""
        ...


class Transport(Protocol):
    """A function that opens one connection: an async context manager around a pair of memory channels.

    Entering returns once messages can be sent, or raises :class:`~trioxport.ConnectError`. When its sending channel is
    closed, the transport sends what it has accepted, and then half-closes the wire.

    Leaving it without an exception closes in order: flush, close, wait for what has to end, such as a child process. It
    is cancelled when ``close_timeout`` is over. Leaving it by ``trio.Cancelled`` closes at once.

    A broken connection is reported by :meth:`Scope.lost`, or raised on leaving.

    ``str(transport)`` describes it in messages, without credentials. Over a :class:`ClientFirstTransport` only the
    client may begin to speak.
    """

    def __call__(self, scope: Scope, /) -> AbstractAsyncContextManager[FrameChannels]: ...


@runtime_checkable
class ClientFirstTransport(Transport, Protocol):
    """A transport on which only the client may begin to speak, so that a server cannot dial out over it.

    Attributes:
        client_begins: Whether that is so, with the options that it has.
    """

    @property
    def client_begins(self) -> bool: ...


class InlineTransport(Transport, Protocol):
    """A transport that opens and closes without waiting: it has nothing to flush, and needs no task."""

    def enter(self, scope: Scope) -> FrameChannels:
        """Open the connection and return its channels."""
        ...

    def leave(self) -> None:
        """Close the connection; its channels pass nothing from now on. May be called more than once."""
        ...


class Acceptor(Protocol):
    """The server's side of :meth:`Listener.listen`: it runs the handler over the connections that are accepted.

    Each method returns when the connection and its handler are over. ``peer`` is the client's address, as text.
    """

    async def serve(self, transport: Transport, peer: str | None = None) -> None:
        """Run the handler over one connection of many.

        Raises no ``Exception``: a failure is logged, and other connections go on.
        """
        ...

    async def serve_only(self, transport: Transport, peer: str | None = None) -> None:
        """Run the handler over the only connection of the listener. Raises the handler's exception."""
        ...

    async def serve_inline(self, transport: InlineTransport, peer: str | None = None) -> None:
        """Run the handler, as :meth:`serve` does, over a connection that needs no task of its own."""
        ...


@runtime_checkable
class Listener(Protocol):
    """The serving side of a binding."""

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        """Accept connections until cancelled, and give each to ``acceptor`` in a task of its own.

        Args:
            acceptor: Runs the handler over a connection.
            settings: The settings of each connection. ``allow_plaintext`` says whether to listen beyond this machine
                without encryption.
            task_status: Takes the addresses that the listener has bound, as targets for clients.

        Raises:
            UsageError: The address cannot be bound.
        """
        ...


@runtime_checkable
class MessageLayer(Protocol):
    """A layer between the application and the codec: frozen configuration that any number of connections share."""

    level: ClassVar[Literal["message"]]

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        """Return the channels to use in place of ``channels``."""
        ...


@runtime_checkable
class FrameLayer(Protocol):
    """A layer between the codec and the transport: frozen configuration that any number of connections share."""

    level: ClassVar[Literal["frame"]]

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        """Return the channels to use in place of ``channels``, best made by :func:`attrs.evolve`."""
        ...


@runtime_checkable
class RefusalObserver(Protocol):
    """A layer that counts the refusals of a server: requests and connections that do not reach a handler."""

    def note_refusal(self, reason: str) -> None:
        """Count a refusal by its reason: an HTTP status, as ``"403 Forbidden (Origin)"``, or the name of an error."""
        ...


@runtime_checkable
class EventObserver(Protocol):
    """A layer that counts the events of a server that concern none of its connections."""

    def note_event(self, event: str) -> None:
        """Count an event by its name, as ``"lease lost"``."""
        ...


Layer: TypeAlias = MessageLayer | FrameLayer
