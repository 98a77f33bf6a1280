"""RESP3 over one stream: commands and their answers in order, and the messages that Redis pushes in between.

The client library parses, and knows the errors of Redis; what is written and who is woken is decided here. A command
that finds no other under way is written at once, without waking a task. Those behind it are written together.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from io import BytesIO
from typing import Any, Final, cast

import trio
from coredis.constants.resp import DataType
from coredis.exceptions import AuthorizationError, InvalidResponse, ResponseError
from coredis.parser import NotEnoughData, Parser, UnpackedResponse

from trioxport._core.states import LazyEvent
from trioxport.errors import TransportError
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._tls import TLSStream
from trioxport.transports.redis.failures import TLSAnswer, loss_of

CLIENT_NAME: Final = b"trioxport"
"""The name of each connection in Redis's ``CLIENT LIST``."""

MAX_PARSED_BYTES: Final = 1024 * 1024
"""Bytes that the parser has taken in, beyond which they are freed."""

_MESSAGE: Final = re.compile(rb">3\r\n\$7\r\nmessage\r\n\$([0-9]{1,9})\r\n")
_NEXT_WORD: Final = re.compile(rb"\r\n\$([0-9]{1,9})\r\n")
"""The beginning of a pushed message up to its channel, and what is between that and its payload."""


class Answer:
    """The answer to a command, which can be awaited; it raises ``TransportError`` if Redis refuses or is lost."""

    __slots__ = ("_arrived", "_value")

    def __init__(self) -> None:
        self._arrived = LazyEvent()
        self._value: Any = None

    def settle(self, value: Any) -> None:
        """Note the answer, or the exception in its place."""
        self._value = value
        self._arrived.set()

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self._arrived.is_set():
            yield from self._arrived.wait().__await__()
        if isinstance(self._value, Exception):
            raise loss_of(self._value) from self._value
        return self._value


class RespStream:
    """The commands and answers on one stream. :meth:`read` and :meth:`write` are run by a task each.

    Args:
        stream: The stream, which stays the caller's to close.
        take: Takes each pushed message, as a list.
    """

    def __init__(self, stream: PromptSocket | TLSStream, take: Callable[[list[Any]], object]) -> None:
        self._stream = stream
        self._take = take
        self._parser = Parser()
        self._unanswered: deque[Answer] = deque()
        self._waiting: list[bytes] = []
        self._is_idle = False
        self._is_silenced = False
        self._wake = trio.lowlevel.ParkingLot()

    def command(self, *words: str | bytes | int) -> Answer:
        """Send a command, in the order of the calls; its answer can be awaited."""
        data, answer = pack(words), Answer()
        self._send(data)
        self._unanswered.append(answer)
        return answer

    def tell(self, *words: str | bytes | int) -> None:
        """Send a command that Redis answers by a pushed message, if at all."""
        self._send(pack(words))

    def tell_silently(self, *words: str | bytes | int) -> None:
        """Send a command whose answer is of no interest.

        After :meth:`silence` Redis keeps the answer to itself, and this process is not woken for it.
        """
        if self._is_silenced:
            self._send(_NO_ANSWER + pack(words))
        else:
            self.command(*words)

    async def silence(self, is_harmless: Callable[[], Awaitable[bool]]) -> None:
        """Let Redis keep the answers to :meth:`tell_silently` to itself, if it accepts that, and it is harmless."""
        if await self._is_accepted(b"CLIENT", b"REPLY", b"ON"):
            self._is_silenced = True
            self._is_silenced = await is_harmless()

    def _send(self, data: bytes) -> None:
        """Write ``data`` at once, if nothing is under way, or else with all that the writing task finds then."""
        if self._is_idle and not self._unanswered and isinstance(self._stream, PromptSocket):
            data = data[self._stream.send_now(data) :]
        if data:
            self._is_idle = False
            self._waiting.append(data)
            self._wake.unpark_all()

    async def write(self) -> None:
        """Write what waits, until cancelled. Raises ``trio.BrokenResourceError``."""
        while True:
            while not self._waiting:
                self._is_idle = True
                await self._wake.park()
            data, self._waiting = b"".join(self._waiting), []
            await self._stream.send_all(data)

    async def read(self) -> None:
        """Take answers and messages, until cancelled. Raises the loss of the stream."""
        data = await self._stream.receive_some()
        if data.startswith(_TLS_ALERT):
            raise TLSAnswer("an alert of TLS")
        while data:
            self._parser.feed(self._take_messages(data))
            self._free_parsed()
            while not isinstance(parsed := self._parse(), NotEnoughData):
                if parsed[0] == DataType.PUSH:
                    self._take(cast("list[Any]", parsed[1]))
                elif self._unanswered:
                    self._unanswered.popleft().settle(parsed[1])
            data = await self._stream.receive_some()
        raise trio.BrokenResourceError("Redis has closed the connection")

    def _take_messages(self, data: bytes) -> bytes:
        """Take whole messages at the beginning of what arrived, and return the rest, which is for the parser."""
        place = 0
        if self._parser.can_read() or self._parser.nodes:  # it has the beginning
            return data
        while channel := _MESSAGE.match(data, place):
            end_of_channel = channel.end() + int(channel[1])
            payload = _NEXT_WORD.match(data, end_of_channel)
            if payload is None or len(data) < payload.end() + int(payload[1]) + 2:
                break
            place = payload.end() + int(payload[1])
            self._take([b"message", data[channel.end() : end_of_channel], data[payload.end() : place]])
            place += 2
        return data[place:]

    def _free_parsed(self) -> None:
        """Free what the parser has taken in; by itself it does so only when nothing is left over."""
        parser = self._parser
        if parser.bytes_read > MAX_PARSED_BYTES:
            rest = parser.localbuffer.getvalue()[parser.bytes_read :]
            parser.localbuffer = BytesIO()
            parser.bytes_read = parser.bytes_written = 0
            parser.feed(rest)

    def _parse(self) -> UnpackedResponse | NotEnoughData:
        try:
            return self._parser.parse()
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InvalidResponse("this is not the protocol of Redis") from error

    def fail(self, error: Exception) -> None:
        """Settle all answers with an exception."""
        while self._unanswered:
            self._unanswered.popleft().settle(error)

    async def greet(self, username: str | None, password: str | None, database: int) -> None:
        """Begin the connection: protocol, credentials and database. Raises an error of the client library."""
        credentials = () if username is None and password is None else (b"AUTH", username or "default", password or "")
        await self.command(b"HELLO", 3, *credentials, b"SETNAME", CLIENT_NAME)
        if database:
            await self.command(b"SELECT", database)

    async def _is_accepted(self, *words: bytes) -> bool:
        """Whether Redis accepts a command that it may refuse to this user. Raises the loss of the connection."""
        try:
            await self.command(*words)
        except TransportError as error:
            if isinstance(error.__cause__, AuthorizationError | ResponseError):
                return False
            raise
        return True


def pack(words: tuple[str | bytes | int, ...]) -> bytes:
    """Encode a command."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        if not isinstance(word, bytes):
            word = word.encode() if isinstance(word, str) else b"%d" % word
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


_TLS_ALERT: Final = b"\x15"
"""The first byte of an alert (RFC 8446, section 5.1)."""
_NO_ANSWER: Final = pack((b"CLIENT", b"REPLY", b"SKIP"))
