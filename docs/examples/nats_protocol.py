"""As much of the NATS client protocol as the transport of ``nats_transport.py`` needs."""

import json
import secrets
from typing import Any, NamedTuple, Self

import trio


class Message(NamedTuple):
    """A message of a subscription.

    Args:
        payload: Its bytes.
        reply: The subject for an answer, or an empty text.
        status: What the server itself says, as ``"503"`` when nobody is subscribed; else an empty text.
    """

    payload: bytes
    reply: str
    status: str


class NatsConnection:
    """One connection to a NATS server: one task publishes, another one reads. Errors are those of Trio's streams."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._writing = trio.Lock()
        self.max_payload = 0

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect. Raises ``OSError``."""
        connection = cls(await trio.open_tcp_stream(host, port))
        try:
            info: dict[str, Any] = json.loads((await connection._line()).removeprefix("INFO "))
            connection.max_payload = info["max_payload"]
            await connection._write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        except BaseException:
            await connection.aclose()
            raise
        return connection

    async def subscribe(self, subject: str) -> None:
        await self._write(f"SUB {subject} 1\r\n".encode())

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        head = f"PUB {subject} {reply} {len(payload)}" if reply else f"PUB {subject} {len(payload)}"
        await self._write(b"%s\r\n%s\r\n" % (head.encode(), payload))

    async def flush(self) -> None:
        """Wait until the server has taken all that was written. Reads, so that no other task may."""
        await self._write(b"PING\r\n")
        while await self._line() != "PONG":
            pass

    async def receive(self) -> Message:
        """The next message of a subscription."""
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

    async def aclose(self) -> None:
        await self._stream.aclose()

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


def new_subject() -> str:
    """A subject of which no other program knows."""
    return f"_INBOX.{secrets.token_hex(12)}"
