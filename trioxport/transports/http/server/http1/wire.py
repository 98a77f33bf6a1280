"""The bytes of one client's connection, read and written within the server's bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports.http.server.http1.connection import ClientConnection
from trioxport.transports.http.server.http1.request_parser import BadRequest, RequestParser
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import ClientGone

BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class HttpWire:
    """One connection, as far as its requests share it.

    Args:
        client: The connection.
        bounds: The bounds of clients.
        life: Its cancel scope: a response that the client does not read ends it.
        is_closing: Whether the connection ends with the next response.

    Attributes:
        parser: The requests that arrive.
        has_ended: Whether the client has sent its end.
        is_broken: Whether nothing can be written any more.
    """

    def __init__(
        self, client: ClientConnection, bounds: Bounds, life: trio.CancelScope, is_closing: Callable[[], bool]
    ) -> None:
        self.client = client
        self.peer = client.peer
        self.tls = client.tls
        self.bounds = bounds
        self.life = life
        self.is_closing = is_closing
        self.parser = RequestParser(bounds.head)
        self.has_ended = False
        self.is_broken = False
        self._stream = client.stream

    async def read(self) -> bool:
        """Read the next bytes into the parser; False at the client's end."""
        data = await self._stream.receive_some()
        self.has_ended = not data
        self.parser.receive(data)
        return not self.has_ended

    async def read_more(self) -> None:
        """Read bytes of a request that has begun. Raises ``BadRequest`` if it ends here."""
        if not await self.read():
            raise BadRequest(400)

    async def write(self, data: bytes) -> None:
        """Write a part of a response. Raises ``ClientGone``.

        A part that the system takes at once needs neither a deadline nor a turn of the scheduler; each request waits
        for its client anyway.
        """
        if self.is_broken:
            raise ClientGone
        sent = self._stream.send_now(data) if isinstance(self._stream, PromptSocket) else 0
        if sent < len(data):
            await self._write_slowly(data[sent:])

    async def _write_slowly(self, data: bytes) -> None:
        self.is_broken = True
        self.life.deadline = trio.current_time() + self.bounds.write_timeout
        try:
            await self._stream.send_all(data)
            self.is_broken = False
        except BROKEN as error:
            raise ClientGone from error
        finally:
            self.life.deadline = math.inf
