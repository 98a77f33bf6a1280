"""Connections to legacy servers that outlast the request of a modern client, which the server has asked for input.

Over HTTP each request of the modern era is a connection of its own. The request that brings the input is another, and
needs the server that has asked.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

import attrs
import trio
from trio.abc import ReceiveChannel

from trioxport._core.nursery import failure_in
from trioxport._diagnostics import logger
from trioxport.abc import MessageChannels
from trioxport.messages import Incoming, Message, Request, Response
from trioxport.metadata import metadata_of
from trioxport.protocol import members_of
from trioxport.servers.translation.as_modern import ANSWER_SECONDS

MAX_OUTLASTING: Final = 256
"""Connections that may wait for the input of clients at the same time; at more, the oldest is closed."""

OpenChannels: TypeAlias = Callable[[], AbstractAsyncContextManager[MessageChannels]]
Key: TypeAlias = tuple[str, str | None]
"""The ``requestState`` that a client was given, and its principal."""


class OutlastingConnections:
    """The connections of modern clients to a legacy server, each in a task of its own.

    Args:
        name: The name of the server, for messages.
        open_channels: Opens a connection, and translates.
        tasks: The nursery of the connections.

    Attributes:
        are_needed: Whether connections outlast requests; those to a modern server need not.
    """

    def __init__(self, name: str, open_channels: OpenChannels, tasks: trio.Nursery) -> None:
        self.are_needed = True
        self._name = name
        self._open_channels = open_channels
        self._tasks = tasks
        self._waiting: dict[Key, _Outlasting] = {}

    @asynccontextmanager
    async def channels(self, first: Message) -> AsyncGenerator[MessageChannels]:
        """The channels for one request, for the time of a block. Raises the failure to connect."""
        principal = metadata_of(first).get("principal")
        state = members_of(first.params).get("requestState") if isinstance(first, Request) else None
        found = self._waiting.pop((state, principal), None) if isinstance(state, str) else None
        if found is None or found.is_over:
            found = _Outlasting(self._name, self._open_channels)
            await self._tasks.start(found.run)
        found.resume()
        try:
            yield MessageChannels(found.channels.send, _Watched(found))
        finally:
            if found.state is not None and self.are_needed:
                self._keep((found.state, principal), found)
            else:
                found.end()

    def close(self) -> None:
        """Close the connections."""
        for each in self._waiting.values():
            each.end()
        self._waiting.clear()

    def _keep(self, key: Key, connection: _Outlasting) -> None:
        self._waiting = {known: each for known, each in self._waiting.items() if not each.is_over}
        self._waiting[key] = connection
        connection.wait_for_input()
        if len(self._waiting) > MAX_OUTLASTING:
            self._waiting.pop(next(iter(self._waiting))).end()


class _Outlasting:
    """One connection.

    Attributes:
        channels: Its channels, once it is open.
        state: The ``requestState`` of the latest answer, if that asked for input.
    """

    channels: MessageChannels

    def __init__(self, name: str, open_channels: OpenChannels) -> None:
        self.state: str | None = None
        self._name = name
        self._open_channels = open_channels
        self._open = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Open the connection, and close it when it is over. Raises the failure to open it."""
        is_open = False
        try:
            async with self._open_channels() as self.channels:
                is_open = True
                task_status.started()
                with self._open:
                    await trio.sleep_forever()
        except BaseException as raised:
            if not is_open:
                raise
            logger.warning("%s: %s", self._name, failure_in(raised))

    @property
    def is_over(self) -> bool:
        """Whether it has been closed, or waited for too long."""
        return self._open.cancel_called

    def resume(self) -> None:
        """Wait for no input any more: a client uses the connection."""
        self.state = None
        self._open.deadline = math.inf

    def wait_for_input(self) -> None:
        """Close the connection unless it is used in time."""
        self._open.deadline = trio.current_time() + ANSWER_SECONDS

    def end(self) -> None:
        """Close the connection."""
        self._open.cancel()

    def note(self, message: Incoming) -> None:
        """Note whether an answer asks for input."""
        if isinstance(message, Response):
            state = members_of(message.result).get("requestState")
            self.state = state if isinstance(state, str) else None


@attrs.frozen
class _Watched(ReceiveChannel[Incoming]):
    _connection: _Outlasting

    async def receive(self) -> Incoming:
        message = await self._connection.channels.receive.receive()
        self._connection.note(message)
        return message

    async def aclose(self) -> None:
        await self._connection.channels.receive.aclose()
