"""The messages of a client in the stream of its service: added, confirmed by Redis, withdrawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Final

import attrs
import trio

from trioxport.messages import Message, Request, RequestId
from trioxport.transports.redis.link import RedisLink
from trioxport.transports.redis.stream.entries import RequestKind, request_fields
from trioxport.transports.redis.stream.options import GROUP, RedisStreamOptions, full_key, room_channel
from trioxport.transports.redis.stream.reading import until_room
from trioxport.transports.redis.stream.scripts import ADD, WITHDRAW, Scripts

MAX_UNCONFIRMED: Final = 32
"""Entries that are sent before Redis has confirmed the first of them."""


@attrs.define(eq=False)
class QueuedMessage:
    """A message in the stream of a service, or on its way there.

    Args:
        message: The message.
        fields: The fields of its entry.
        adding: The id of its entry, which can be awaited.
        id: The id of its entry, once Redis has confirmed it.
        is_withdrawn: Whether the client has cancelled it.
    """

    message: Message
    fields: tuple[str | bytes | int, ...]
    adding: Awaitable[Any]
    id: bytes | None = None
    is_withdrawn: bool = False


class StreamQueue:
    """The messages of one client on their way through the stream of a service.

    Args:
        options: The service.
        link: The connection to Redis.
        scripts: The scripts ``ADD`` and ``WITHDRAW``, loaded.
        client: The client.
        settled: Called when :attr:`is_idle` may have become true.
    """

    def __init__(
        self,
        options: RedisStreamOptions,
        link: RedisLink,
        scripts: Scripts,
        client: str,
        settled: Callable[[], object],
    ) -> None:
        self._options = options
        self._link = link
        self._scripts = scripts
        self._client = client
        self._settled = settled
        self._numbers = count(1)
        self._unanswered: dict[int, QueuedMessage] = {}
        self._to_confirm, self._confirming = trio.open_memory_channel[QueuedMessage](MAX_UNCONFIRMED)
        self._unconfirmed = 0
        self._waiting_for_room: QueuedMessage | None = None
        self._confirming_over = trio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether each message is in the stream, and each request answered."""
        return not (self._unanswered or self._unconfirmed)

    async def add(self, kind: RequestKind, message: Message, payload: bytes) -> int:
        """Add an entry, and return its number. Waits while many are unconfirmed."""
        number = next(self._numbers)
        fields = request_fields(self._client, number, kind, payload)
        queued = QueuedMessage(message, fields, self._run_add(fields))
        if kind != "notification":
            self._unanswered[number] = queued
        self._unconfirmed += 1
        await self._to_confirm.send(queued)
        return number

    def _run_add(self, fields: tuple[str | bytes | int, ...]) -> Awaitable[Any]:
        options, stream = self._options, self._options.requests_key
        return self._scripts.run(ADD, [stream, full_key(stream)], options.max_length, options.expiry_ms, *fields)

    def message_of(self, number: int) -> Message | None:
        """The request with this number, if it is not answered."""
        queued = self._unanswered.get(number)
        return None if queued is None else queued.message

    def settle(self, number: int) -> None:
        """Note that a request is answered, or that a server has accepted the client."""
        self._unanswered.pop(number, None)

    async def withdraw(self, request_id: RequestId) -> bool:
        """Remove a request that is not answered, or have its server cancel it; return whether there is one."""
        for number, queued in self._unanswered.items():
            if isinstance(queued.message, Request) and queued.message.id == request_id:
                del self._unanswered[number]
                queued.is_withdrawn = True
                await self._to_confirm.send(queued)
                return True
        return False

    async def confirm(self) -> None:
        """Wait for each entry to be in the stream, in order, and withdraw cancelled ones. Raises ``ConnectionLost``.

        An entry comes twice if it is withdrawn.
        """
        try:
            with self._confirming:
                async for queued in self._confirming:
                    if queued.id is None:
                        queued.id = await queued.adding or await self._add_when_there_is_room(queued)
                        self._unconfirmed -= 1
                        self._settled()
                    elif queued.is_withdrawn:
                        self._run_withdraw(queued.id)
        finally:
            self._confirming_over.set()

    async def _add_when_there_is_room(self, queued: QueuedMessage) -> bytes:
        async def attempt() -> object:
            self._waiting_for_room = None  # while this is on its way, Redis may have taken it
            added = await self._run_add(queued.fields)
            self._waiting_for_room = None if added else queued
            return added

        return bytes(await until_room(self._link, self._options.requests_key, attempt, self._options.expiry))

    def unsent(self) -> list[Message]:
        """The messages that Redis has not taken, since the stream was full."""
        return [] if self._waiting_for_room is None else [self._waiting_for_room.message]

    async def aclose(self) -> None:
        """Wait until everything is in the stream; withdraw the requests that are not answered, since none waits.

        Raises ``ConnectionLost``.
        """
        self._to_confirm.close()
        await self._confirming_over.wait()
        withdrawn = [self._run_withdraw(queued.id) for queued in self._unanswered.values() if queued.id is not None]
        if withdrawn:
            await withdrawn[-1]

    def _run_withdraw(self, entry_id: bytes) -> Awaitable[Any]:
        options, stream = self._options, self._options.requests_key
        return self._scripts.run(
            WITHDRAW, [stream, full_key(stream)], GROUP, entry_id, room_channel(stream), options.servers_channel
        )
