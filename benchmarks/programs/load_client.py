"""Clients of an HTTP server, many in one process, on plain sockets: the load that ``load.py`` puts on its servers.

    load_client.py requests PORT PID ERA SECONDS CONNECTIONS SIZE STEPS
    load_client.py streams  PORT PID COUNT SECONDS
    load_client.py sessions PORT PID COUNT

Prints JSON. ``PID`` is the server's, whose resident memory is looked at.
"""

from __future__ import annotations

import json
import os
import re
import resource
import selectors
import socket
import statistics
import sys
from select import select
from time import monotonic, sleep
from typing import Any

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
CALL = {"name": "answer", "arguments": {"size": 100, "steps": 0}}
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SESSION = re.compile(rb"mcp-session-id: *(\S+)", re.IGNORECASE)
TICK = re.compile(rb'"at": ?([0-9.]+)')


def post(message: dict[str, Any], *fields: str) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    head = [
        "POST /mcp HTTP/1.1",
        "host: 127.0.0.1:80",  # the official SDK wants a port, any port
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        f"content-length: {len(body)}",
        *fields,
        "\r\n",
    ]
    return "\r\n".join(head).encode() + body


def modern(method: str, params: dict[str, Any], *fields: str) -> bytes:
    message = {"id": 1, "method": method, "params": {**params, "_meta": {**META, **params.get("_meta", {})}}}
    return post(message, "mcp-protocol-version: 2026-07-28", f"mcp-method: {method}", *fields)


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def is_whole(data: bytes) -> bool:
    """Whether a response has arrived as a whole, with nothing behind it."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    length = LENGTH.search(head)
    return len(body) >= int(length[1]) if length else b" 202 " in head[:16] or body.endswith(b"0\r\n\r\n")


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    answer = b""
    while not is_whole(answer):
        more = client.recv(65536)
        assert more, answer
        answer += more
    assert answer[9:10] == b"2", answer
    return answer


def in_session(client: socket.socket) -> list[str]:
    """The headers of a new session."""
    found = SESSION.search(ask(client, post({"id": 0, "method": "initialize", "params": OPENING})))
    assert found is not None
    fields = [f"mcp-session-id: {found[1].decode()}", "mcp-protocol-version: 2025-11-25"]
    ask(client, post({"method": "notifications/initialized"}, *fields))
    return fields


def call_of(client: socket.socket, era: str, size: int, steps: int) -> bytes:
    """The request that calls the tool; in the legacy era in a new session."""
    meta = {"progressToken": 1} if steps else {}
    params = {"name": "answer", "arguments": {"size": size, "steps": steps}, "_meta": meta}
    if era == "legacy":
        return post({"id": 1, "method": "tools/call", "params": params}, *in_session(client))
    return modern("tools/call", params, "mcp-name: answer")


def requests(
    port: int, pid: int, era: str, connections: int, size: int, steps: int, seconds: float
) -> dict[str, float]:
    """Responses a second and their latency, each connection with one request on the way at any time."""
    clients: list[tuple[socket.socket, bytes]] = []
    for _ in range(connections):
        client = connect(port)
        data = call_of(client, era, size, steps)
        assert b"x" * size in ask(client, data)
        clients.append((client, data))
    selector = selectors.DefaultSelector()
    used, began = cpu_seconds(pid), monotonic()
    for client, data in clients:
        if select([client], [], [], 0)[0]:  # the server has closed a connection that waited for the others
            client.close()
            client = connect(port)
        selector.register(client, selectors.EVENT_READ, [data, b"", monotonic()])
        client.sendall(data)
    took: list[float] = []
    while (now := monotonic()) - began < seconds or len(took) < 2:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            more = key.fileobj.recv(262144)
            assert more, key.data[1]
            key.data[1] += more
            if is_whole(key.data[1]):
                assert key.data[1].startswith(b"HTTP/1.1 200"), key.data[1]
                now = monotonic()
                took.append(now - key.data[2])
                key.data[1:] = b"", now
                key.fileobj.sendall(key.data[0])
    hundredths = statistics.quantiles(took, n=100)
    return {
        "per_second": len(took) / (now - began),
        "p50": hundredths[49] * 1e3,
        "p99": hundredths[98] * 1e3,
        "cpu": (cpu_seconds(pid) - used) / len(took) * 1e6,
        "memory": resident(pid) / 2**20,
    }


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process, in user mode and in the system."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def streams(port: int, pid: int, count: int, seconds: float) -> dict[str, float]:
    """The delay of ticks on streams, in milliseconds, and the bytes of the server's memory that a stream takes."""
    with connect(port) as client:  # so that imports and first allocations are done
        ask(client, modern("tools/call", CALL, "mcp-name: answer"))
    before = resident(pid)
    selector = selectors.DefaultSelector()
    for _ in range(count):
        client = connect(port)
        client.sendall(modern("ticks", {}))
        selector.register(client, selectors.EVENT_READ)
    late: list[float] = []
    began = monotonic()
    while monotonic() - began < seconds + 2:
        for key, _ in selector.select(0.1):
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(65536)
            now = monotonic()
            if now - began > 2:  # they are all open
                late += [(now - float(at)) * 1000 for at in TICK.findall(data)]
    after = resident(pid)
    quantiles = statistics.quantiles(late, n=1000)
    return {
        "ticks_a_second": len(late) / seconds,
        "median": quantiles[499],
        "p99": quantiles[989],
        "most": max(late),
        "bytes_each": (after - before) / count,
    }


def sessions(port: int, pid: int, count: int) -> dict[str, float]:
    """Bytes of the server's memory that a session takes whose client has no connection open."""

    def opened(number: int) -> None:
        for _ in range(number):
            with connect(port) as client:
                in_session(client)
        sleep(0.5)

    opened(100)
    before = resident(pid)
    opened(count)
    return {"bytes_each": (resident(pid) - before) / count}


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    match sys.argv[1:]:
        case ["requests", port, pid, era, seconds, *numbers]:
            connections, size, steps = map(int, numbers)
            print(json.dumps(requests(int(port), int(pid), era, connections, size, steps, float(seconds))))
        case ["streams", port, pid, count, seconds]:
            print(json.dumps(streams(int(port), int(pid), int(count), float(seconds))))
        case ["sessions", port, pid, count]:
            print(json.dumps(sessions(int(port), int(pid), int(count))))
