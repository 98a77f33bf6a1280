"""The server that every HTTP/2 client talks to: by hand on Trio, so that the client is what the time is spent in.

It looks at frames, and at nothing in a header: a stream with a body gets a JSON-RPC response with the id that is in it,
or 202 without one; a stream without a body gets 405. Its own header blocks are made in advance, without compression.
"""

import re
import sys

import trio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEAD_BYTES = 9
ID = re.compile(rb'"id": *(\d+)')
ACCEPTED = b"\x08\x03202"
NO_STREAM = b"\x08\x03405"
JSON = b"\x88\x0f\x10\x10application/json"
MOST_STREAMS = b"\0\3\0\0\x40\0"
ROOM = (2**31 - 1 - 65535).to_bytes(4)
"""The largest window, for all bodies of a connection."""


def frame(kind: int, flags: int, stream: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream + payload


HELLO = frame(SETTINGS, 0, b"\0\0\0\0", MOST_STREAMS) + frame(WINDOW_UPDATE, 0, b"\0\0\0\0", ROOM)


def answer(stream: bytes, body: bytes) -> bytes:
    found = ID.search(body)
    if found is None:
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, ACCEPTED if body else NO_STREAM)
    result = b'{"jsonrpc":"2.0","id":%s,"result":{"text":"fine"}}' % found[1]
    return frame(HEADERS, END_HEADERS, stream, JSON) + frame(DATA, END_STREAM, stream, result)


class Client:
    """The frames of one client, and the answers to them."""

    def __init__(self) -> None:
        self.rest = b""
        self.bodies: dict[bytes, bytes] = {}

    def answers(self, data: bytes) -> bytes:
        data = self.rest + data
        start = 0
        found: list[bytes] = []
        while len(data) - start >= HEAD_BYTES:
            end = start + HEAD_BYTES + int.from_bytes(data[start : start + 3])
            if end > len(data):
                break
            kind, flags, stream = data[start + 3], data[start + 4], data[start + 5 : start + 9]
            found.append(self.answer(kind, flags, stream, data[start + 9 : end]))
            start = end
        self.rest = data[start:]
        return b"".join(found)

    def answer(self, kind: int, flags: int, stream: bytes, payload: bytes) -> bytes:
        if kind in (DATA, HEADERS):
            body = self.bodies.pop(stream, b"") + (payload if kind == DATA else b"")
            if flags & END_STREAM:
                return answer(stream, body)
            self.bodies[stream] = body
        elif kind in (SETTINGS, PING) and not flags & ACK:
            return frame(kind, ACK, stream, payload if kind == PING else b"")
        return b""


async def serve(stream: trio.SocketStream) -> None:
    client = Client()
    data = b""
    async with stream:
        try:
            while len(data) < len(PREFACE):
                data += await stream.receive_some(len(PREFACE) - len(data)) or PREFACE
            await stream.send_all(HELLO)
            async for part in stream:
                answers = client.answers(part)
                if answers:
                    await stream.send_all(answers)
        except trio.BrokenResourceError:
            return


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listeners[0].socket.getsockname()[1], flush=True)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        await trio.lowlevel.wait_readable(sys.stdin)  # the benchmark is gone
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
