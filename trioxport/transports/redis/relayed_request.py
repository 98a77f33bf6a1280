"""A request at the owner of its session: another replica has it from the client, and writes the response."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

import trio

from trioxport.errors import TransportError
from trioxport.transports.http.server.request import Application, ClientGone, Field, ServerRequest
from trioxport.transports.redis.forward_messages import (
    PART_BYTES,
    Abort,
    Cancel,
    Head,
    Opening,
    RequestPart,
    RequestTaken,
    ResponsePart,
    ResponseTaken,
    SendWindow,
    Takings,
    ToForwarder,
)

WRITE_SECONDS: Final = 30.0
"""Seconds that the other replica may take to make room for a response."""


class RelayedRequest(ServerRequest):
    """A request that another replica has checked and forwarded.

    Args:
        opening: Its first message.
        send: Sends a message to the replica that forwards. Raises ``TransportError``.
    """

    __slots__ = ("_changed", "_head", "_is_done", "_is_left", "_more", "_number", "_parts", "_send",
                 "_takings", "_window")  # fmt: skip

    is_forwarded: ClassVar[bool] = True

    def __init__(self, opening: Opening, send: Callable[[ToForwarder], object]) -> None:
        facts = opening.facts
        super().__init__(
            facts.method,
            facts.full_path,
            facts.query,
            facts.headers,
            peer=facts.peer,
            secure=facts.secure,
            tls=facts.tls,
        )
        self.path = facts.path
        self.principal = facts.principal
        self.token = facts.verified_token()
        self.begun = False
        self.scope = trio.CancelScope()
        self._number = opening.number
        self._send = send
        self._parts = deque([opening.data])
        self._more = opening.more
        self._takings = Takings()
        self._window = SendWindow()
        self._head: tuple[int, list[Field]] | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._is_left = self._is_done = False

    # From the other replica.

    def take(self, message: RequestPart | ResponseTaken | Cancel) -> None:
        """Take a message about the request."""
        if isinstance(message, RequestPart):
            self._parts.append(message.data)
            self._more = message.more
        elif isinstance(message, ResponseTaken):
            self._window.taken(message.size)
        else:
            self._is_left = True
        self._changed.unpark_all()

    def end(self, loss: TransportError) -> None:
        """Note that the other replica, or the connection to it, is lost, and the client with it."""
        self._is_left = True
        self._changed.unpark_all()

    # From the endpoint.

    async def receive_part(self) -> tuple[bytes, bool]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._parts:
            if self._is_left:
                raise ClientGone
            await self._changed.park()
        data = self._parts.popleft()
        if size := self._takings.take(data):
            self._say(RequestTaken(self._number, size))
        return data, bool(self._parts) or self._more

    async def gone(self) -> None:
        while not self._is_left:
            await self._changed.park()

    async def respond(self, status: int, body: bytes = b"", *fields: Field) -> None:
        all_fields = self.response_fields(body, fields)
        await self.begin(status, all_fields)
        if len(body) > PART_BYTES or self._is_left:
            await self.write(body, more=False)
            return
        self.sent += len(body)
        self._is_done = True
        self._say(Head(self._number, status, all_fields, body, False))

    async def begin(self, status: int, fields: list[Field]) -> None:
        self.begun = True
        self.status = status
        self._head = status, fields

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.sent += len(data)
        for start in range(0, len(data), PART_BYTES) or (0,):
            part = data[start : start + PART_BYTES]
            await self._write(part, more=more or start + PART_BYTES < len(data))
        await trio.lowlevel.cancel_shielded_checkpoint()  # others run after the last part, not before the first

    async def _write(self, part: bytes, *, more: bool) -> None:
        with trio.move_on_after(WRITE_SECONDS):
            while not (self._window.is_open or self._is_left):
                await self._changed.park()
        if self._is_left or not self._window.is_open:
            raise ClientGone
        self._window.sent(part)
        head, self._head = self._head, None
        if head is not None:
            status, fields = head
            self._say(Head(self._number, status, fields, part, more))
        else:
            self._say(ResponsePart(self._number, part, more))
        self._is_done = not more

    async def delegate(self, application: Application, limit: int) -> None:
        raise NotImplementedError("a request for another application is not forwarded")

    def conclude(self) -> None:
        """Tell the other replica that no more of an unfinished response comes."""
        if not (self._is_done or self._is_left):
            self._say(Abort(self._number))

    def _say(self, message: ToForwarder) -> None:
        """Send a message. Raises ``ClientGone``."""
        try:
            self._send(message)
        except TransportError as error:
            self.end(error)
            raise ClientGone from error
