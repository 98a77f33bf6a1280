"""The server's side: a consumer of the group of a service takes requests, and runs the handler for each."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.transports.message_wire import HEARTBEATS_PER_SILENCE
from trioxport.transports.redis.link import Inbox, RedisLink, open_link
from trioxport.transports.redis.relinking import serve_linked
from trioxport.transports.redis.server import AcceptedClient
from trioxport.transports.redis.stream.clients import ClientTable
from trioxport.transports.redis.stream.entries import RequestEntry
from trioxport.transports.redis.stream.group import ConsumerGroup, release
from trioxport.transports.redis.stream.options import GROUP, RedisStreamOptions
from trioxport.transports.redis.stream.reading import BlockingReader
from trioxport.transports.redis.stream.request import StreamRequest

MAX_WAITING_CANCELLATIONS: Final = 1024
RELEASE_SECONDS: Final = 2.0
"""Seconds that a server which stops may take to hand its requests on."""


@attrs.define(eq=False)
class _Work:
    """A request that a handler acts on.

    Args:
        entry: The request.
        scope: Cancels the handler.
        is_ours: Whether it is still this server's to answer.
    """

    entry: RequestEntry
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    is_ours: bool = True

    def take_away(self) -> None:
        """Cancel the handler: the request was withdrawn, or another server has claimed it."""
        self.is_ours = False
        self.scope.cancel()


class StreamConsumer:
    """One server of a service, over one connection to Redis.

    Args:
        options: The service.
        acceptor: Runs the handler.
        settings: The settings of connections.
        link: The connection to Redis.
        blocking: Another one, for reads that wait.
    """

    def __init__(
        self,
        options: RedisStreamOptions,
        acceptor: Acceptor,
        settings: ConnectionSettings,
        link: RedisLink,
        blocking: RedisLink,
    ) -> None:
        self._options = options
        self._acceptor = acceptor
        self._settings = settings
        self._link = link
        self._reader = BlockingReader(blocking, options.silence)
        self._name = secrets.token_hex(8)
        self._group = ConsumerGroup(options, link, self._name, max(1, settings.limits.max_buffered_messages))
        self._clients = ClientTable(options, link)
        self._working: dict[bytes, _Work] = {}
        self._left: list[bytes] = []
        self._finished = trio.lowlevel.ParkingLot()

    async def run(self, started: Callable[[], None]) -> None:
        """Take requests until cancelled, or until the connection to Redis is lost. Raises the loss."""
        channel = self._options.servers_channel
        await self._group.open()
        with self._link.subscription(channel, MAX_WAITING_CANCELLATIONS, self._drop) as cancellations:
            await self._link.subscribe(channel)
            started()
            try:
                async with open_bare_nursery() as self._tasks:
                    self._tasks.start_soon(self._take)
                    self._tasks.start_soon(self._keep)
                    self._tasks.start_soon(self._clients.watch, self._in_use, self._client_gone)
                    await self._cancel(cancellations)
            finally:
                if self._left:
                    await self._release()

    async def _release(self) -> None:
        """Hand the requests at work on, over a connection of its own: the other one ends with the server."""
        deadline = trio.current_time() + RELEASE_SECONDS
        with trio.CancelScope(shield=True, deadline=deadline), suppress(TransportError):
            async with open_link(self._options, self._settings.target, watched=False) as link:
                await release(self._options, link, self._name, self._left)

    def _drop(self, _cancellations: Inbox) -> None:
        logger.warning("%s: too many requests are cancelled; one goes on", self._settings.target)

    # Taking.

    @property
    def _free(self) -> int:
        """The number of further requests that this server takes."""
        return max(0, self._options.prefetch - len(self._working))

    async def _take(self) -> None:
        command = (b"XREADGROUP", b"GROUP", GROUP, self._name.encode())
        while True:
            while not self._free:
                await self._finished.park()
            asked = trio.current_time()
            entries = await self._reader.read(command, self._free, self._options.requests_key, b">")
            await self._begin_all([(each, RequestEntry.of(each, fields)) for each, fields in entries], asked)

    async def _keep(self) -> None:
        """Keep the requests of this server from being claimed, and claim those of servers that have died."""
        while True:
            for entry_id in await self._group.refresh(self._working):
                if (work := self._working.get(entry_id)) is not None and work.is_ours:
                    work.take_away()
            if self._free:
                await self._claim()
            await trio.sleep(self._options.silence / HEARTBEATS_PER_SILENCE)

    async def _claim(self) -> None:
        asked = trio.current_time()
        claimed = [each for each in await self._group.claim(self._free) if each[0] not in self._working]
        if claimed:
            logger.warning("%s: claimed %d requests of servers that are gone", self._settings.target, len(claimed))
        await self._begin_all(claimed, asked)

    async def _begin_all(self, entries: list[tuple[bytes, RequestEntry | None]], asked: float) -> None:
        """Begin with entries that Redis was asked for at the time ``asked``, unless they are at work."""
        lost: list[bytes] = []
        if entries and trio.current_time() - asked >= self._options.silence:  # this process was held up
            lost = await self._group.refresh([entry_id for entry_id, _ in entries])
        for entry_id, entry in entries:
            if entry_id not in self._working and entry_id not in lost:
                await self._begin(entry_id, entry)

    async def _begin(self, entry_id: bytes, entry: RequestEntry | None) -> None:
        if entry is None:
            logger.warning("%s: removed an entry that is no request: %s", self._settings.target, entry_id.decode())
            await self._group.end(entry_id)
            return
        work = self._working[entry_id] = _Work(entry)
        self._tasks.start_soon(self._work, work)

    # Working.

    async def _work(self, work: _Work) -> None:
        is_over = False
        try:
            with work.scope:
                await self._act(work.entry)
            if work.scope.cancelled_caught and work.is_ours:
                await self._group.end(work.entry.id)
            is_over = True
        except TransportError as error:
            logger.debug("%s: a request goes to another server: %s", self._settings.target, error)
        finally:
            del self._working[work.entry.id]
            self._finished.unpark_all()
            if not is_over:
                self._left.append(work.entry.id)

    async def _act(self, entry: RequestEntry) -> None:
        options = self._options
        if entry.deliveries > options.max_deliveries:
            await self._give_up(entry)
        elif self._group.age_of(entry) > options.max_age:
            reason = f"the request has waited for longer than {options.max_age:g} s"
            await self._group.answer(entry, "expired", reason.encode())
        elif (lock := await self._clients.find(entry.client)) is None:
            await self._group.end(entry.id)
        elif entry.kind == "conversation":
            await self._tasks.start(self._converse, entry)
        else:
            request = StreamRequest(entry, self._group, lock)
            await self._acceptor.serve_inline(request, _peer(entry))
            await request.conclude()

    async def _give_up(self, entry: RequestEntry) -> None:
        """Answer with an error, and keep the request as a dead letter."""
        servers = entry.deliveries - 1
        reason = f"the request was given up: none of {servers} servers that it was delivered to has answered"
        if await self._group.answer(entry, "failed", reason.encode()):
            await self._group.bury(entry)
            self._settings.refusals.note("DeliveryFailed", _peer(entry), reason)

    async def _converse(self, entry: RequestEntry, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve a client of the legacy era; started once it has accepted, or has gone."""
        is_acknowledged = False

        async def acknowledge() -> bool:
            nonlocal is_acknowledged
            is_ours = await self._group.end(entry.id)
            is_acknowledged = True
            task_status.started()
            return is_ours

        client = AcceptedClient(self._options, self._link, entry.client)
        await self._acceptor.serve(_AcceptedConversation(client, acknowledge), _peer(entry))
        if not is_acknowledged:
            await acknowledge()

    # Cancelling.

    async def _cancel(self, cancellations: Inbox) -> None:
        """Cancel the requests that clients withdraw. Raises ``ConnectionLost``."""
        while True:
            if (work := self._working.get(await cancellations.receive())) is not None:
                work.take_away()

    def _in_use(self) -> set[str]:
        return {work.entry.client for work in self._working.values()}

    def _client_gone(self, client: str) -> None:
        for work in self._working.values():
            if work.entry.client == client:
                work.scope.cancel()


async def serve_stream(
    options: RedisStreamOptions,
    acceptor: Acceptor,
    settings: ConnectionSettings,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    """Be a server of the service until cancelled. Raises the failure of the first connection to Redis.

    A lost connection is replaced with exponential backoff; the requests at work are delivered again then.
    """

    async def serve(link: RedisLink, started: Callable[[], None]) -> None:
        async with open_link(options, settings.target, watched=False) as blocking:
            await StreamConsumer(options, acceptor, settings, link, blocking).run(started)

    await serve_linked(options, settings, serve, task_status)


def _peer(entry: RequestEntry) -> str:
    return f"redis client {entry.client[:8]}"


@attrs.frozen
class _AcceptedConversation:
    """The transport to a client of the legacy era, whose request for a server is acknowledged once it has one."""

    client: AcceptedClient
    acknowledge: Callable[[], Awaitable[bool]]

    def __str__(self) -> str:
        return str(self.client)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with self.client(scope) as channels:
            if not await self.acknowledge():
                raise ConnectionLost("another server of the service has the client, or it has left")
            yield channels
