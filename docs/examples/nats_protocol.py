"""The part of the NATS client protocol that ``nats_transport.py`` needs."""

import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio


class Message(NamedTuple):
    """A message of a subscription.

    Args:
        payload: The content.
        reply: The subject for an answer, or an empty text.
        status: A status of the NATS server, such as ``"503"`` for a subject without subscribers; or an empty text.
    """

    payload: bytes
    reply: str
    status: str


class NatsConnection:
    """One connection to a NATS server, for one task that publishes and one that receives.

    It raises what Trio's streams raise.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._writing = trio.Lock()
        self.max_payload = 0

    async def handshake(self) -> None:
        """Exchange INFO and CONNECT."""
        info: dict[str, Any] = json.loads((await self._line()).removeprefix("INFO "))
        self.max_payload = info["max_payload"]
        await self._write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')

    async def subscribe(self, subject: str) -> None:
        await self._write(f"SUB {subject} 1\r\n".encode())

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        head = f"PUB {subject} {reply} {len(payload)}" if reply else f"PUB {subject} {len(payload)}"
        await self._write(b"%s\r\n%s\r\n" % (head.encode(), payload))

    async def flush(self) -> None:
        """Wait until the server has processed all commands. It reads, so no other task may receive meanwhile."""
        await self._write(b"PING\r\n")
        while await self._line() != "PONG":
            pass

    async def receive(self) -> Message:
        """Return the next message of a subscription."""
        while True:
            verb, *words = (await self._line()).split(" ")
            if verb == "PING":
                await self._write(b"PONG\r\n")
            elif verb == "-ERR":
                raise trio.BrokenResourceError("NATS: " + " ".join(words))
            elif verb in ("MSG", "HMSG"):
                sizes = 2 if verb == "HMSG" else 1
                head = int(words[-2]) if verb == "HMSG" else 0
                data = bytes(await self._exactly(int(words[-1]) + 2))[:-2]
                status = data[:head].decode().partition("\r\n")[0].partition(" ")[2]
                return Message(data[head:], words[2] if len(words) == 3 + sizes else "", status)

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            await self._stream.send_all(data)

    async def _line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._read()
        return (await self._exactly(end + 2))[:-2].decode()

    async def _exactly(self, size: int) -> bytearray:
        while len(self._buffer) < size:
            await self._read()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _read(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise trio.BrokenResourceError("the NATS server closed the connection")
        self._buffer += data


@asynccontextmanager
async def open_nats(host: str, port: int) -> AsyncGenerator[NatsConnection]:
    """Connect to a NATS server; closed after the block. Raises ``OSError``."""
    async with await trio.open_tcp_stream(host, port) as stream:
        connection = NatsConnection(stream)
        await connection.handshake()
        yield connection


def new_subject() -> str:
    """Return a random subject."""
    return f"_INBOX.{secrets.token_hex(12)}"
