"""The bytes of one client's connection, read and written within the server's bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports.http.server.client_connection import ClientConnection
from trioxport.transports.http.server.http1.received_head import BadRequest
from trioxport.transports.http.server.http1.request_parser import RequestParser
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
        expires: The time on the clock of Trio at which the connection ends, whatever it does; infinite at first.
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
        self.expires = math.inf
        self.parser = RequestParser(bounds.head)
        self.has_ended = False
        self.is_broken = False
        self._stream = client.stream
        self._socket = client.stream if isinstance(client.stream, PromptSocket) else None

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

    def write_now(self, data: bytes) -> bytes:
        """Write as much of a response as the system takes at once, and return the rest, for :meth:`write`.

        Nothing else needs a deadline, or a turn of the scheduler: each request waits for its client anyway.
        """
        if self._socket is None or self.is_broken:
            return data
        return data[self._socket.send_now(data) :]

    async def write(self, data: bytes) -> None:
        """Write a part of a response. Raises ``ClientGone``."""
        if rest := self.write_now(data):
            await self.write_rest(rest)

    async def write_rest(self, data: bytes) -> None:
        """Write what :meth:`write_now` has left. Raises ``ClientGone``."""
        if self.is_broken:
            raise ClientGone
        self.is_broken = True
        self.life.deadline = min(self.expires, trio.current_time() + self.bounds.write_timeout)
        try:
            await self._stream.send_all(data)
            self.is_broken = False
        except BROKEN as error:
            raise ClientGone from error
        finally:
            self.life.deadline = self.expires
