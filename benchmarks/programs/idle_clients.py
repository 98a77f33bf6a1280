"""WebSocket clients that stay silent, on plain sockets: the load that ``idle.py`` puts on its server.

    idle_clients.py PORT COUNT

Writes ``open`` once all are connected, and ends with its standard input.
"""

import socket
import sys

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ADDRESSES = 100
"""Addresses of loopback to connect to: each has its own range of ports."""


def main(port: int, count: int) -> None:
    clients = []
    for number in range(count):
        clients.append(socket.create_connection((f"127.0.0.{1 + number % ADDRESSES}", port)))
        clients[-1].sendall(REQUEST)
        assert clients[-1].recv(1000).startswith(b"HTTP/1.1 101")
    print("open", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
