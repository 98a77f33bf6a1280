"""A translation between a client and a server that are both the test."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from trioxport import Connection, ErrorResponse, Incoming, Message, Notification, Request, Response, TransportError
from trioxport.abc import Layer


class TranslatedClient:
    """The client above a translation; a task receives for it.

    Attributes:
        server: The server below.
        end: The loss of the connection, once it was received.
    """

    def __init__(self, connection: Connection, server: ScriptedPeer) -> None:
        self.connection = connection
        self.server = server
        self.end: TransportError | None = None
        self._arrived, self._received = trio.open_memory_channel[Incoming](math.inf)

    async def read(self) -> None:
        with self._arrived:
            try:
                async for message in self.connection.rx:
                    self._arrived.send_nowait(message)
            except TransportError as error:
                self.end = error

    async def send(self, message: Message) -> None:
        await self.connection.tx.send(message)

    async def received(self) -> Incoming:
        with trio.fail_after(5):
            return await self._received.receive()

    async def response(self) -> Response:
        message = await self.received()
        assert isinstance(message, Response), message
        return message

    async def error(self) -> ErrorResponse:
        message = await self.received()
        assert isinstance(message, ErrorResponse), message
        return message

    async def request(self) -> Request:
        message = await self.received()
        assert isinstance(message, Request), message
        return message

    async def notification(self) -> Notification:
        message = await self.received()
        assert isinstance(message, Notification), message
        return message

    async def nothing_received(self) -> bool:
        await trio.testing.wait_all_tasks_blocked()
        return not self._received.statistics().current_buffer_used

    async def asked(self, message: Request) -> Request:
        """Send a request, and return it as the server gets it."""
        await self.send(message)
        return await self.server.request()

    async def exchange(self, message: Request, result: Any) -> Response:
        """Send a request that the server answers, and return the response."""
        self.server.answer(await self.asked(message), result)
        return await self.response()


@asynccontextmanager
async def translated(layer: Layer) -> AsyncGenerator[TranslatedClient]:
    async with accepted_peer(layer) as (connection, server), trio.open_nursery() as nursery:
        client = TranslatedClient(connection, server)
        nursery.start_soon(client.read)
        yield client
        nursery.cancel_scope.cancel()


def params_of(message: Message | Incoming) -> Mapping[str, Any]:
    assert isinstance(message, Request | Notification)
    assert isinstance(message.params, dict)
    return message.params
