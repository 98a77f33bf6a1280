"""A forwarded request at the replica that has it from its client: it sends the request, and writes the response."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from trioxport.errors import TransportError
from trioxport.protocol import INTERNAL_ERROR
from trioxport.transports.http.server.refusals import Refusal
from trioxport.transports.http.server.request import ClientGone, ServerRequest
from trioxport.transports.redis.forward_messages import (
    PART_BYTES,
    Abort,
    Cancel,
    Head,
    Opening,
    RequestFacts,
    RequestPart,
    RequestTaken,
    ResponsePart,
    ResponseTaken,
    SendWindow,
    Takings,
    ToForwarder,
    ToOwner,
)


class Forward:
    """One request on its way to the owner of its session.

    Args:
        number: Its number at this replica.
        sender: The address of this replica.
        request: The request.
        body: Its body.

    Attributes:
        is_stream: Whether it asks for a stream that goes on for ever.
        is_lost: Whether the owner was lost before it had answered.
    """

    def __init__(self, number: int, sender: str, request: ServerRequest, body: bytes) -> None:
        self.number = number
        self.is_stream = request.method == "GET"
        self._sender = sender
        self._request = request
        self._body = body
        self._answers: deque[Head | ResponsePart] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._window = SendWindow()
        self._takings = Takings()
        self.is_lost = self._is_stopped = self._is_over = False

    def opening(self) -> Opening:
        """Return the first message."""
        first = self._body[:PART_BYTES]
        self._window.sent(first)
        facts = RequestFacts.of(self._request)
        return Opening(self.number, self._sender, facts, first, len(self._body) > PART_BYTES)

    async def is_received(self, sent: Awaitable[int], send: Callable[[ToOwner], object]) -> bool:
        """Wait for the number of receivers of the first message, and return whether there is one.

        Raises ``Refusal`` (502) if that remains unknown.
        """
        try:
            return bool(await sent)
        except TransportError as error:
            raise owner_lost() from error
        except trio.Cancelled:
            self._cancel(send)
            raise

    # From the owner.

    def take(self, message: ToForwarder) -> None:
        """Take a message about the response, or the body of the request."""
        if isinstance(message, RequestTaken):
            self._window.taken(message.size)
        elif isinstance(message, Abort):
            self.is_lost = True
        else:
            self._answers.append(message)
        self._changed.unpark_all()

    def end(self, loss: TransportError) -> None:
        """Note that the owner, or the connection to it, is lost."""
        self.is_lost = True
        self._changed.unpark_all()

    def stop(self) -> None:
        """End the response in order, though the owner's goes on."""
        self._is_stopped = True
        self._changed.unpark_all()

    # To the client.

    async def run(
        self, send: Callable[[ToOwner], object], patience: float, is_owner_there: Callable[[], Awaitable[bool]]
    ) -> None:
        """Send the rest of the request, and write the response.

        Args:
            send: Sends a message to the owner. Raises ``TransportError``.
            patience: Seconds of silence after which the owner is looked for.
            is_owner_there: Whether the owner can still be found.

        Raises:
            Refusal: The owner was lost before it answered.
            ClientGone: The client left, or the owner was lost while it answered.
        """
        try:
            await self._send_body(send)
            while (answer := await self._next(patience, is_owner_there)) is not None:
                await self._write(answer)
                self._is_over = not answer.more
                if self._is_over:
                    return
                if size := self._takings.take(answer.data):
                    send(ResponseTaken(self.number, self._sender, size))
            await self._request.write(b"", more=False)
        except TransportError as error:
            raise self._loss() from error
        finally:
            if not (self._is_over or self.is_lost):
                self._cancel(send)

    async def _send_body(self, send: Callable[[ToOwner], object]) -> None:
        for start in range(PART_BYTES, len(self._body), PART_BYTES):
            while not (self._window.is_open or self._answers or self.is_lost):
                await self._changed.park()
            if not self._window.is_open:
                return  # it is answered already
            part = self._body[start : start + PART_BYTES]
            self._window.sent(part)
            send(RequestPart(self.number, self._sender, part, start + PART_BYTES < len(self._body)))
        self._body = b""

    async def _next(self, patience: float, is_owner_there: Callable[[], Awaitable[bool]]) -> Head | ResponsePart | None:
        """Wait for the next part of the response; None if it is to end here. Raises the loss of the owner."""
        while not self._answers:
            if self.is_lost:
                raise self._loss()
            if self._is_stopped and self._request.begun:
                return None
            with trio.move_on_after(patience) as waiting:
                await self._changed.park()
            if waiting.cancelled_caught and not await is_owner_there():
                self.is_lost = True
        return self._answers.popleft()

    async def _write(self, answer: Head | ResponsePart) -> None:
        request = self._request
        if isinstance(answer, ResponsePart):
            await request.write(answer.data, more=answer.more)
        elif answer.more:
            await request.begin(answer.status, [*request.fields, *answer.fields])
            await request.write(answer.data)
        else:
            await request.respond(answer.status, answer.data, *answer.fields)

    def _loss(self) -> Exception:
        """The end of a response whose owner was lost. The owner may have acted on the request."""
        self.is_lost = True
        if self._request.begun:
            return ClientGone()
        return owner_lost()

    def _cancel(self, send: Callable[[ToOwner], object]) -> None:
        try:
            send(Cancel(self.number, self._sender))
        except TransportError:
            return  # the owner finds out by itself that this replica is gone


def owner_lost() -> Refusal:
    """Return the refusal (502) of a request that the owner of its session may have acted on."""
    reason = "The server that has the session was lost before it answered"
    return Refusal(502, reason, code=INTERNAL_ERROR, about="owner lost")
