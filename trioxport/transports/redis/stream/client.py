"""The client's side: requests go to the stream of the service, and replies come from a stream of the client's own.

From ``initialize`` on, messages go to the one server that took it, as over ``redis://``.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ClassVar, Final

import trio

from trioxport._core.error_mapping import not_sent
from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectionLost, DeliveryFailed, MessageTooLarge, TransportError
from trioxport.frames import Frame
from trioxport.messages import Request
from trioxport.protocol import INITIALIZE, cancelled_id
from trioxport.transports._frame_wire import Credits
from trioxport.transports._pumps import carry
from trioxport.transports.redis.client import inbox_size, no_server, open_conversation
from trioxport.transports.redis.link import PRESENCE_SECONDS, Inbox, RedisLink, open_link
from trioxport.transports.redis.stream.arrivals import Arrivals
from trioxport.transports.redis.stream.entries import Reply
from trioxport.transports.redis.stream.options import RedisStreamOptions, full_key, room_channel
from trioxport.transports.redis.stream.queue import StreamQueue
from trioxport.transports.redis.stream.reading import BlockingReader
from trioxport.transports.redis.stream.scripts import ADD, TRIM, WITHDRAW, Scripts

READ_ENTRIES: Final = 64
"""The most replies that one read takes."""


@asynccontextmanager
async def open_stream_client(options: RedisStreamOptions, scope: Scope) -> AsyncGenerator[FrameChannels]:
    """Open a connection to the servers of the service."""
    target = scope.settings.target
    client = secrets.token_hex(16)
    channel = options.client_channel(client)
    async with (
        open_link(options, target, connect_timeout=scope.settings.connect_timeout) as link,
        open_link(options, target, watched=False) as blocking,
    ):
        with link.subscription(channel, inbox_size(scope)) as inbox:
            await link.subscribe(channel)
            wire = _StreamWire(options, scope, link, client, inbox)
            await wire.begin()
            async with open_bare_nursery() as tasks:
                tasks.start_soon(wire.run, wire.read, BlockingReader(blocking, options.silence))
                tasks.start_soon(wire.run, wire.queue.confirm)
                tasks.start_soon(wire.run, wire.watch_servers)
                tasks.start_soon(wire.run, wire.converse)
                async with carry(wire, scope, carries="bytes", peer=str(options), await_end=False) as channels:
                    yield channels
                await wire.finish()
                tasks.cancel_scope.cancel()


class _StreamWire:
    """A frame wire from one client to the servers of a service."""

    coalesce_bytes: ClassVar[int] = 0
    credits: Credits | None = None
    pending = 0

    def __init__(self, options: RedisStreamOptions, scope: Scope, link: RedisLink, client: str, inbox: Inbox) -> None:
        self._options = options
        self._scope = scope
        self._link = link
        self._scripts = Scripts(link)
        self._client = client
        self._inbox = inbox
        self.queue = StreamQueue(options, link, self._scripts, client, self._end_if_settled)
        self._arrivals = Arrivals()
        self._is_lost = False
        self._no_more = False
        self._conversation: FrameChannels | None = None
        self._initializing = trio.Event()
        self._decided = trio.Event()
        self._asking = 0
        self._forwarding = trio.CancelScope()
        self._conversation_over = trio.Event()

    async def begin(self) -> None:
        """Prepare the connection. Raises ``ServerUnreachable`` if the service has no server."""
        await self._scripts.load(ADD, TRIM, WITHDRAW)
        if not await self._link.count_subscribers(self._options.presence_channel):
            raise no_server(self._options, self._scope.settings.target)

    async def run(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task of the connection; its failure is the loss of the connection."""
        try:
            await task(*args)
        except TransportError as error:
            self._is_lost = True
            unsent = [Frame(b"", message, error=not_sent(error)) for message in self.queue.unsent()]
            self._arrivals.end(error, unsent)

    # Sending.

    async def send_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            await self._send(frame)

    def send_now(self, frame: Frame) -> bool:
        return False

    async def _send(self, frame: Frame) -> None:
        message = frame.message
        assert message is not None
        cancelled = cancelled_id(message)
        if cancelled is not None and await self.queue.withdraw(cancelled):
            return
        if self._conversation is None and isinstance(message, Request) and message.method == INITIALIZE:
            self._decided = trio.Event()
            self._asking = await self.queue.add("conversation", message, b"")
            self._initializing.set()
            await self._decided.wait()
            if self._conversation is None:
                return  # the request has its error
        if self._conversation is not None:
            await self._conversation.send.send(frame)
        else:
            await self.queue.add("request" if isinstance(message, Request) else "notification", message, frame.payload)

    async def send_eof(self) -> None:
        self._no_more = True
        if self._conversation is not None:
            await self._conversation.send.aclose()
        self._end_if_settled()

    def _end_if_settled(self) -> None:
        """End the replies once no more are to come."""
        if self._no_more and self._conversation is None and self.queue.is_idle:
            self._arrivals.end()

    async def finish(self) -> None:
        """Wait until everything that was sent is on its way to a server. Raises ``ConnectionLost``."""
        if self._is_lost:
            return
        if self._conversation is not None:
            self._forwarding.cancel()
            await self._conversation_over.wait()
        await self.queue.aclose()
        await self._link.command(b"DEL", self._options.replies_key(self._client))

    # Receiving.

    async def receive_frames(self) -> list[Frame] | None:
        return await self._arrivals.take()

    async def read(self, reader: BlockingReader) -> None:
        """Take replies from the stream of the client, and remove them there. Raises ``ConnectionLost``."""
        stream, start = self._options.replies_key(self._client), b"0-0"
        while True:
            entries = await reader.read((b"XREAD",), READ_ENTRIES, stream, start)
            if entries:
                await self._arrivals.put([frame for each in entries if (frame := self._frame(Reply.of(*each)))])
                ids = [entry_id for entry_id, _ in entries]
                start = ids[-1]
                self._scripts.run(TRIM, [stream, full_key(stream)], room_channel(stream), *ids)
                self._end_if_settled()

    def _frame(self, reply: Reply | None) -> Frame | None:
        """The frame of a reply; None for one to a request that is settled."""
        message = None if reply is None else self.queue.message_of(reply.number)
        if reply is None or message is None:
            return None
        if reply.kind == "message":
            return Frame(reply.payload)
        self.queue.settle(reply.number)
        if reply.number == self._asking:
            self._decided.set()
        if reply.kind != "answer":
            reason = reply.payload.decode("utf-8", "replace")
            error = DeliveryFailed(reason, outcome="not_sent" if reply.kind == "expired" else "unknown")
            return Frame(b"", message, error=error)
        if len(reply.payload) > self._scope.settings.limits.max_message_size:
            return Frame(b"", message, error=MessageTooLarge("the answer is over the limit", outcome="unknown"))
        return Frame(reply.payload)

    # Servers.

    async def watch_servers(self) -> None:
        """Check the service, and keep the replies, which a client that is gone leaves to expire.

        Raises ``ConnectionLost`` once the service has had no server for ``silence`` seconds.
        """
        seen, silence = trio.current_time(), self._options.silence
        replies, expiry_ms = self._options.replies_key(self._client), self._options.expiry_ms
        while trio.current_time() - seen < silence:
            await trio.sleep(min(PRESENCE_SECONDS, silence))
            self._link.command(b"PEXPIRE", replies, expiry_ms)
            if await self._link.count_subscribers(self._options.presence_channel):
                seen = trio.current_time()
        raise ConnectionLost(f"no server of the service has been connected to Redis for {silence:g} s")

    async def converse(self) -> None:
        """Exchange messages with the server that accepts the client. Raises ``TransportError``."""
        await self._initializing.wait()
        try:
            welcome = await self._inbox.receive()
            async with open_conversation(
                self._options, self._link, self._client, self._inbox, welcome, self._scope
            ) as channels:
                self._conversation = channels
                self.queue.settle(self._asking)
                self._decided.set()
                with self._forwarding:
                    async for frame in channels.receive:
                        await self._arrivals.put([frame])
                    self._arrivals.end()
                    await trio.sleep_forever()
        finally:
            self._conversation_over.set()
