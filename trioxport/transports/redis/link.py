"""One connection to a Redis server: its commands, and the messages of the channels that it subscribes to.

Commands and messages share the connection (RESP3). Redis says with each published message how many subscribers it
reached, and tells on request how many a channel has: thus each side of an MCP connection learns that the other is gone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import CONNECT_TIMEOUT
from trioxport.errors import ConnectionLost, ConnectTimeout, TransportError
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._sockets import secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.message_wire import CREDIT_TAG
from trioxport.transports.redis.failures import LOST, as_connect_error, loss_of
from trioxport.transports.redis.options import RedisOptions
from trioxport.transports.redis.resp import RespStream

PRESENCE_SECONDS: Final = 1.0
"""Seconds between two checks whether peers are still subscribed."""
HANDSHAKE_SECONDS: Final = 10.0
HANDSHAKE_SHARE: Final = 0.8
"""The TLS handshake may take as many seconds, and this part of the time for connecting."""
PEER_GONE: Final = "the peer is no longer connected to Redis"

_HEARTBEAT: Final = CREDIT_TAG + b"0"
_TELL_OR_NOTE: Final = b"""
if redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] > 0 then
  redis.call('PUBLISH', ARGV[1], ARGV[2])
else
  redis.call('SET', KEYS[1], 1, 'PX', ARGV[3])
end
"""
"""The count of receivers that ``PUBLISH`` returns has subscribers of patterns too, such as tools that look on."""


def _telling(channel: str, payload: bytes, note: str, seconds: float) -> tuple[bytes, *tuple[bytes | str | int, ...]]:
    return b"EVAL", _TELL_OR_NOTE, 1, note, channel, payload, round(seconds * 1000)


class Ends(Protocol):
    """A user of the connection who is told when a peer, or the connection itself, is lost."""

    def end(self, loss: TransportError) -> None:
        """Note the loss, after everything that was put before."""
        ...


class ChannelSink(Ends, Protocol):
    """The receiver of the messages of one channel."""

    def put(self, payload: bytes) -> None:
        """Take a message, without waiting."""
        ...


class Inbox:
    """The messages of one channel that wait, up to a number.

    Args:
        room: The number of messages.
        overflow: Called with a message that finds no room.
    """

    def __init__(self, room: int, overflow: Callable[[Inbox], object]) -> None:
        self._arrive, self._arrived = trio.open_memory_channel[bytes](room)
        self._overflow = overflow
        self._loss: TransportError | None = None

    def put(self, payload: bytes) -> None:
        """Add a message. A sign of life behind another message says nothing new, and is dropped."""
        if self._loss is not None or (payload == _HEARTBEAT and not self.is_empty):
            return
        try:
            self._arrive.send_nowait(payload)
        except trio.WouldBlock:
            self._overflow(self)

    @property
    def is_empty(self) -> bool:
        """Whether no message waits."""
        return not self._arrive.statistics().current_buffer_used

    def end(self, loss: TransportError) -> None:
        """Raise ``loss`` behind the messages that wait."""
        if self._loss is None:
            self._loss = loss
            self._arrive.close()

    async def receive(self) -> bytes:
        """Return the next message. Raises the loss."""
        try:
            return await self._arrived.receive()
        except trio.EndOfChannel:
            assert self._loss is not None
            raise self._loss from None


def _refuse_flood(inbox: Inbox) -> None:
    inbox.end(ConnectionLost("the peer sends more messages than it was granted", retryable=False))


class RedisLink:
    """An open connection to Redis; any number of tasks may use it. Its methods raise ``ConnectionLost``."""

    def __init__(self, stream: PromptSocket | TLSStream) -> None:
        self._stream = stream
        self._resp = RespStream(stream, self._take)
        self._sinks: dict[bytes, ChannelSink] = {}
        self._watched: dict[bytes, set[Ends]] = {}
        self._loss: TransportError | None = None
        self._lost = trio.Event()

    @contextmanager
    def subscription(
        self, channel: str, room: int, overflow: Callable[[Inbox], object] = _refuse_flood
    ) -> Generator[Inbox]:
        """Offer an inbox for a channel; :meth:`subscribe` has to follow. The channel is left after the block."""
        inbox = Inbox(room, overflow)
        with self.receiving(channel, inbox):
            yield inbox

    @contextmanager
    def receiving(self, channel: str, sink: ChannelSink) -> Generator[None]:
        """Give ``sink`` the messages of a channel; :meth:`subscribe` has to follow. It is left after the block.

        A channel has one sink at a time: another one is refused by ``ConnectionLost``.
        """
        name = channel.encode()
        if name in self._sinks:
            raise ConnectionLost(f"the channel {channel} is in use", outcome="not_sent")
        self._sinks[name] = sink
        if self._loss is not None:
            sink.end(self._loss)
        try:
            yield
        finally:
            del self._sinks[name]
            if self._loss is None:
                self._resp.tell(b"UNSUBSCRIBE", name)

    async def subscribe(self, channel: str) -> None:
        """Subscribe to a channel, and wait until Redis has done so.

        Redis confirms a subscription by a message, and refuses it by an answer: that to the PING behind it then.
        """
        try:
            if self._loss is None:
                self._resp.tell(b"SUBSCRIBE", channel)
            await self.command(b"PING")
        except TransportError as error:
            self._end(error)
            raise

    @contextmanager
    def presence(self, channel: str, user: Ends) -> Generator[None]:
        """End ``user`` once ``channel``, that of the peer, has no subscriber any more."""
        name = channel.encode()
        users = self._watched.setdefault(name, set())
        users.add(user)
        try:
            yield
        finally:
            users.discard(user)
            if not users and self._watched.get(name) is users:
                del self._watched[name]

    def publish(self, channel: str, payload: bytes) -> Awaitable[int]:
        """Publish a message, in the order of the calls; the number of its receivers can be awaited.

        Tools that look on, by patterns of channels, are among them.
        """
        return self.command(b"PUBLISH", channel, payload)

    async def count_subscribers(self, channel: str) -> int:
        """Return the number of those who have subscribed to a channel by its name."""
        [_, count] = await self.command(b"PUBSUB", b"NUMSUB", channel)
        return int(count)

    def tell(self, channel: str, payload: bytes) -> None:
        """Publish a message, in the order of the calls, and leave open whether it has receivers."""
        if self._loss is not None:
            raise self._loss
        self._resp.tell_silently(b"PUBLISH", channel, payload)

    def tell_or_note(self, channel: str, payload: bytes, note: str, seconds: float) -> None:
        """Publish a message, in the order of the calls; if it has no receiver, set the key ``note`` for so long."""
        if self._loss is not None:
            raise self._loss
        self._resp.tell_silently(*_telling(channel, payload, note, seconds))

    async def silence(self, channel: str) -> None:
        """Let Redis keep the answers to what is told to itself, unless messages would be lost by that.

        Redis 6 drops messages to a client that has asked it to skip an answer, until the next command has arrived. A
        message from this client to itself shows whether this Redis does.

        Args:
            channel: A channel without subscribers that this user may use.
        """
        with self.subscription(channel, 1) as inbox:
            await self.subscribe(channel)

            async def is_heard() -> bool:
                self.tell(channel, b"")
                await self.command(b"PING")
                return not inbox.is_empty

            await self._resp.silence(is_heard)

    async def check_telling(self, channel: str, note: str) -> None:
        """Do so with an empty message, and wait for it. Raises ``TransportError`` if Redis refuses that."""
        await self.command(*_telling(channel, b"", note, 1))

    def command(self, name: bytes, *arguments: str | bytes | int) -> Awaitable[Any]:
        """Send a command, in the order of the calls; its answer can be awaited."""
        if self._loss is not None:
            raise self._loss
        return self._resp.command(name, *arguments)

    async def wait_lost(self) -> None:
        """Wait until the connection is lost, and raise the loss."""
        await self._lost.wait()
        assert self._loss is not None
        raise self._loss

    async def begin(self, tasks: trio.Nursery, options: RedisOptions) -> None:
        """Start the tasks of the connection, and prove who this is. Raises the failure of the greeting."""
        tasks.start_soon(self._run, self._resp.read)
        tasks.start_soon(self._run, self._resp.write)
        password = None if options.password is None else options.password.reveal()
        await self._resp.greet(options.username, password, options.database)

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the connection, whose failure is the loss of it; then all sinks end."""
        try:
            await task()
        except LOST as error:
            self._end(loss_of(error))

    def close(self) -> None:
        """Settle the commands that are not answered, since the connection ends."""
        self._end(ConnectionLost("the connection to Redis is closed"))

    async def watch(self, silence: float) -> None:
        """Check the presence of peers, and of Redis itself, until the connection is lost.

        Args:
            silence: Seconds that Redis may take to answer before the connection is lost.
        """
        while self._loss is None:
            await trio.sleep(PRESENCE_SECONDS)
            try:
                with trio.fail_after(silence):
                    counts = await self.command(b"PUBSUB", b"NUMSUB", *self._watched)
            except trio.TooSlowError:
                self._end(ConnectionLost(f"Redis has been silent for {silence:g} s"))
            except TransportError as error:
                self._end(error)
            else:
                self._end_absent(dict(zip(counts[::2], counts[1::2], strict=True)))

    def _end_absent(self, counts: dict[bytes, int]) -> None:
        for name, count in counts.items():
            if not count:
                for user in list(self._watched.get(name, ())):
                    user.end(ConnectionLost(PEER_GONE))

    def _take(self, push: list[Any]) -> None:
        match push:
            case [b"message", bytes(channel), bytes(payload)] if (sink := self._sinks.get(channel)) is not None:
                sink.put(payload)
            case _:
                pass

    def _end(self, loss: TransportError) -> None:
        self._loss = self._loss or loss
        self._resp.fail(loss)
        self._lost.set()
        for sink in list(self._sinks.values()):
            sink.end(loss)


async def _secure(stream: TLSStream, options: RedisOptions, target: str, connect_timeout: float) -> None:
    """Do the TLS handshake, which a Redis without TLS leaves unanswered."""
    patience = min(HANDSHAKE_SECONDS, HANDSHAKE_SHARE * connect_timeout)
    with trio.move_on_after(patience):
        await secure(stream, target)
        return
    raise ConnectTimeout(
        f"the server has not answered the TLS handshake in {patience:g} s",
        target=target,
        hint=f"Check the port; Redis without TLS is {options.schemes[False]}://",
    )


@asynccontextmanager
async def open_link(
    options: RedisOptions, target: str, *, watched: bool = True, connect_timeout: float = CONNECT_TIMEOUT
) -> AsyncGenerator[RedisLink]:
    """Connect to Redis for the time of a block. Raises ``TransportError``, about ``target``.

    Args:
        options: Where Redis is.
        target: The target, redacted.
        watched: Whether to check peers and Redis itself; commands that block would hold the checks up.
        connect_timeout: Seconds that the caller gives it to connect, of which the TLS handshake may take a part.
    """
    context = options.tls_context()
    try:
        socket = await trio.open_tcp_stream(options.host, options.port)
    except OSError as error:
        raise as_connect_error(error, options, target) from error
    async with socket, open_bare_nursery() as tasks:
        if context is None:
            link = RedisLink(PromptSocket(socket))
        else:
            encrypted = TLSStream(socket, context, options.host)
            await _secure(encrypted, options, target, connect_timeout)
            link = RedisLink(encrypted)
        try:
            await link.begin(tasks, options)
        except (TransportError, OSError, trio.BrokenResourceError) as error:
            raise as_connect_error(error, options, target) from error
        if watched:
            tasks.start_soon(link.watch, options.silence)
        try:
            yield link
        finally:
            link.close()
        tasks.cancel_scope.cancel()
