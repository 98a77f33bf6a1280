"""A connection under check: each send and each receive on it is a step with a time limit."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from trioxport.connection import Connection
from trioxport.messages import Incoming, Message, Notification, Request, Response, Undelivered
from trioxport.testing.peer import RAW, RAW_MESSAGE
from trioxport.testing.progress import CheckProgress, Finding, expect, shown

BALLAST: Final = random.Random(0).randbytes(16 * 1024).hex()
"""Text that makes a message large; compression saves half of it at best."""
BLOCKED_SECONDS: Final = 0.1
"""Seconds that a send has to wait to count as blocked."""
MAX_UNREAD_MESSAGES: Final = 2000
"""Messages of 32 KiB that no wire takes while its other side reads nothing."""

_ids: Final = itertools.count(1000)


@attrs.frozen
class CheckedConnection:
    """One side's connection, and the exchanges with the check peer at the other side."""

    connection: Connection
    progress: CheckProgress

    async def send(self, message: Message) -> None:
        """Send a message."""
        name = getattr(message, "method", type(message).__name__)
        with self.progress.awaiting(f"tx.send() to accept {name}"):
            await self.connection.tx.send(message)

    async def send_raw(self, payload: bytes) -> None:
        """Send a payload that is no message."""
        with self.progress.awaiting("tx.send() to accept a payload that is no message"):
            await RAW.send(self.connection, payload)

    async def receive(self, what: str, seconds: float | None = None) -> Incoming:
        """Receive the next message."""
        with self.progress.awaiting(what, seconds):
            return await self.connection.rx.receive()

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Send a request and wait for its result. Only the refusal of a bad message may come before it."""
        request = Request(next(_ids), method, params or {})
        await self.send(request)
        answer = await self.receive(f"the response to {method}")
        while isinstance(answer, Undelivered) and answer.original == RAW_MESSAGE:
            answer = await self.receive(f"the response to {method}")
        if not isinstance(answer, Response) or answer.id != request.id:
            raise Finding(f"in place of the response to {method}, request {request.id}, came {shown(answer)}")
        return answer.result

    async def note(self, number: int, ballast: str = "") -> None:
        """Send a numbered notification, which the peer records."""
        await self.send(numbered(number, ballast))

    async def noted(self) -> list[int]:
        """The numbers that the peer recorded."""
        return list((await self.ask("check/noted"))["noted"])

    async def fill(
        self, message: Callable[[int, str], Message], *, first: int = 0, until: float = math.inf
    ) -> tuple[int, bool]:
        """Send messages of 32 KiB to a peer that does not read, until one has to wait, or until a point in time.

        Args:
            message: Makes the message with a number, and a text that makes it large.
            first: The number of the first message.
            until: The time when the peer reads again.

        Returns:
            The number of the message after the last one that was accepted, and whether one had to wait.
        """
        number = first
        while trio.current_time() < until:
            if number == MAX_UNREAD_MESSAGES:
                raise Finding(f"{MAX_UNREAD_MESSAGES} messages of 32 KiB were accepted while the peer read none")
            with trio.move_on_after(BLOCKED_SECONDS) as patience:
                await self.connection.tx.send(message(number, BALLAST))
            if patience.cancelled_caught:
                return number, True
            number += 1
        return number, False

    async def close_sending(self) -> None:
        """Half-close."""
        with self.progress.awaiting("tx.aclose() to return"):
            await self.connection.tx.aclose()

    async def receive_unanswered(self, ids: set[Any], what: str) -> dict[Any, Undelivered]:
        """Receive an ``Undelivered`` for each of the requests, in any order; notifications may come back, too."""
        left: dict[Any, Undelivered] = {}
        while missing := sorted(ids - left.keys(), key=str):
            message = await self.receive(f"the Undelivered of the requests {shown(missing)} after {what}")
            if not isinstance(message, Undelivered):
                raise Finding(f"after {what}, with requests {shown(missing)} unanswered, came {shown(message)}")
            if isinstance(message.original, Notification):
                continue
            expect(message.id in missing, f"after {what}, Undelivered was due for {shown(missing)}, not {message.id!r}")
            left[message.id] = message
        return left

    async def expect_end(self, after: str) -> None:
        """Expect the orderly end of the peer."""
        try:
            message = await self.receive(f"EndOfChannel from rx.receive() after {after}")
        except trio.EndOfChannel:
            return
        raise Finding(f"in place of the end after {after} came {shown(message)}")


def numbered(number: int, ballast: str = "") -> Notification:
    """A notification that the check peer records."""
    return Notification("check/note", {"number": number, "ballast": ballast})


def number_of(message: Incoming) -> int:
    """The number in a notification of the check peer."""
    if not isinstance(message, Notification) or not isinstance(message.params, dict):
        raise Finding(f"in place of a notification came {shown(message)}")
    return int(message.params["number"])
