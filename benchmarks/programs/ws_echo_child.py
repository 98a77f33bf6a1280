"""The server that every WebSocket contender talks to: it turns requests into responses by a look at their bytes.

It reads as much as there is, answers with one write, and knows no more of the protocol than that takes.
"""

import asyncio
import base64
import hashlib

from websockets.speedups import apply_mask

CALL = b'"method":"echo","params":'
ANSWER = b'"result":'
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"sec-websocket-key:"


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.kept = b""
        self.open = False

    def data_received(self, data: bytes) -> None:
        data = self.kept + data
        if not self.open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.kept = head
                return
            self.accept(head)
        self.kept = self.answer(data)

    def accept(self, head: bytes) -> None:
        [key] = [line[len(KEY) :].strip() for line in head.split(b"\r\n") if line.lower().startswith(KEY)]
        digest = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(upgrade + b"Sec-WebSocket-Accept: " + digest + b"\r\n\r\n")
        self.open = True

    def answer(self, data: bytes) -> bytes:
        """Answer the frames in ``data``; return the unfinished rest."""
        answers: list[bytes] = []
        while len(data) >= 14 or (len(data) >= 6 and data[1] & 0x7F < 126):
            size, start = data[1] & 0x7F, 2
            if size > 125:
                start = 4 if size == 126 else 10
                size = int.from_bytes(data[2:start], "big")
            end = start + 4 + size
            if end > len(data):
                break
            if data[0] == 0x88:
                self.transport.write(b"\x88\x02\x03\xe8")
                self.transport.close()
                return b""
            payload = apply_mask(data[start + 4 : end], data[start : start + 4]).replace(CALL, ANSWER, 1)
            answers += header(len(payload)), payload
            data = data[end:]
        self.transport.write(b"".join(answers))
        return data


def header(size: int) -> bytes:
    if size < 126:
        return bytes((0x81, size))
    return b"\x81\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x81\x7f" + size.to_bytes(8, "big")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
