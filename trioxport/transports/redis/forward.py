"""A forwarded request at the replica that has it from its client: it sends the request, and writes the response."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

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
    Query,
    RequestFacts,
    RequestPart,
    RequestTaken,
    ResponsePart,
    ResponseTaken,
    SendWindow,
    Takings,
    ToForwarder,
)
from trioxport.transports.redis.owner import SessionOwner

RECEIVED_SECONDS: Final = 0.02
"""Seconds of silence after which Redis is asked whether the owner has received the request."""


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
        is_unreached: Whether no replica has received it.
    """

    def __init__(self, number: int, sender: str, request: ServerRequest, body: bytes) -> None:
        self.number = number
        self.is_stream = request.method == "GET"
        self._sender = sender
        self._request = request
        self._body = body
        self._answers: deque[Head | ResponsePart] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._takings = Takings()
        self._rest: bytes | None = None
        self.is_lost = self.is_unreached = self._is_received = self._is_begun = self._is_stopped = self._is_over = False

    def opening(self) -> Opening:
        """Return the first message, with which the request begins, or begins again."""
        self.is_lost = self.is_unreached = False
        self._window = SendWindow()
        first = self._body[:PART_BYTES]
        self._window.sent(first)
        facts = RequestFacts.of(self._request)
        return Opening(self.number, self._sender, facts, first, len(self._body) > PART_BYTES)

    # From the owner.

    def take(self, message: ToForwarder) -> None:
        """Take a message about the response, or the body of the request."""
        self._is_received = True
        if isinstance(message, RequestTaken):
            self._window.taken(message.size)
        elif isinstance(message, Abort) or not (isinstance(message, Head) or self._is_begun):
            self.is_lost = True
        else:
            if isinstance(message, Head) and not message.more and self._changed:
                self._rest = self._request.respond_now(message.status, message.data, *message.fields)
            self._is_begun = True
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

    async def run(self, owner: SessionOwner) -> bool:
        """Send the rest of the request, and write the response. Returns False if the owner has not received it.

        Args:
            owner: The owner, to which the first message was sent.

        Raises:
            Refusal: The owner was lost before it answered.
            ClientGone: The client left, or the owner was lost while it answered.
        """
        try:
            await self._send_body(owner)
            while (answer := await self._next(owner)) is not None:
                await self._write(answer)
                self._is_over = not answer.more
                if self._is_over:
                    self.is_lost = False
                    return True
                if size := self._takings.take(answer.data):
                    owner.send(ResponseTaken(self.number, self._sender, size))
            if not self.is_unreached:
                await self._request.write(b"", more=False)
            return not self.is_unreached
        except TransportError as error:
            raise self._loss() from error
        finally:
            if not (self._is_over or self.is_lost or self.is_unreached):
                with suppress(TransportError):  # then the owner finds out by itself that this replica is gone
                    owner.send(Cancel(self.number, self._sender))

    async def _send_body(self, owner: SessionOwner) -> None:
        for start in range(PART_BYTES, len(self._body), PART_BYTES):
            while not (self._window.is_open or self._answers or self.is_lost or self.is_unreached):
                await self._wait(owner)
            if not self._window.is_open:
                return  # it is answered already
            part = self._body[start : start + PART_BYTES]
            self._window.sent(part)
            owner.send(RequestPart(self.number, self._sender, part, start + PART_BYTES < len(self._body)))

    async def _next(self, owner: SessionOwner) -> Head | ResponsePart | None:
        """Wait for the next part of the response; None if it is to end here, or not to begin. Raises the loss."""
        while not self._answers:
            if self.is_lost and await self._has_received(owner):
                raise self._loss()
            if self.is_unreached or (self._is_stopped and self._request.begun):
                return None
            await self._wait(owner)
        self._body = b""
        return self._answers.popleft()

    async def _wait(self, owner: SessionOwner) -> None:
        """Wait for a message, and look for the owner if none comes in time."""
        with trio.move_on_after(owner.patience if self._is_received else RECEIVED_SECONDS) as waiting:
            await self._changed.park()
        if not waiting.cancelled_caught:
            return
        if self._is_received:
            owner.send(Query(self.number, self._sender))
            if not await owner.is_there():
                self.is_lost = True
        else:
            await self._has_received(owner)

    async def _has_received(self, owner: SessionOwner) -> bool:
        """Find out whether the owner has received the request."""
        self._is_received = self._is_received or await owner.has_received()
        self.is_unreached = not self._is_received
        self.is_lost = self.is_lost and self._is_received
        return self._is_received

    async def _write(self, answer: Head | ResponsePart) -> None:
        request = self._request
        if self._rest is not None:  # it was written as it arrived
            await request.write_rest(self._rest)
        elif isinstance(answer, ResponsePart):
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


def owner_lost() -> Refusal:
    """Return the refusal (502) of a request that the owner of its session may have acted on."""
    reason = "The server that has the session was lost before it answered"
    return Refusal(502, reason, code=INTERNAL_ERROR, about="owner lost")
