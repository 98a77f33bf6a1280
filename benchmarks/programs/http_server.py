"""The server that every HTTP contender talks to: by hand on Trio, so that the client is what the time is spent in.

It works on bytes. A request is answered by what its JSON-RPC method says: ``echo`` with JSON, ``stream`` with a stream
of events, a notification each, in a chunk each as servers write them, and then the response. It listens on TCP, and on
the Unix socket that its argument names.
"""

import re
import sys

import trio

HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ID = re.compile(rb'"id": *(\d+)')
STREAM = re.compile(rb'"method": *"stream"')
NOTIFICATIONS = 1000
EVENT = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":%d}}\n\n'
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
NO_STREAM = b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


NOTES = EVENTS + b"".join(chunk(EVENT % number) for number in range(NOTIFICATIONS))


def answer(head: bytes, body: bytes) -> bytes:
    if not head.startswith(b"POST"):
        return NO_STREAM
    found = ID.search(body)
    if found is None:
        return ACCEPTED
    result = b'{"jsonrpc":"2.0","id":%s,"result":{"text":"fine"}}' % found[1]
    if STREAM.search(body):
        return NOTES + chunk(b"data: %s\n\n" % result) + b"0\r\n\r\n"
    return JSON % (len(result), result)


async def serve(stream: trio.SocketStream) -> None:
    data = b""
    try:
        while True:
            while HEAD not in data:
                more = await stream.receive_some()
                if not more:
                    return
                data += more
            head, _, data = data.partition(HEAD)
            found = LENGTH.search(head)
            size = int(found[1]) if found else 0
            while len(data) < size:
                data += await stream.receive_some()
            await stream.send_all(answer(head, data[:size]))
            data = data[size:]
    except trio.BrokenResourceError:
        return
    finally:
        await stream.aclose()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        for path in sys.argv[1:]:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(path)
            sock.listen()
            listeners.append(trio.SocketListener(sock))
        print(listeners[0].socket.getsockname()[1], flush=True)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        await trio.lowlevel.wait_readable(sys.stdin)  # the benchmark is gone
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
