"""Metrics: the number of calls, their ends and their times, without anything else installed."""

import sys
from contextlib import suppress
from pathlib import Path

import trio

from trioxport import open_transport
from trioxport.layers import Metrics
from trioxport.peer import JSONRPCError, open_peer
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))])


async def main() -> None:
    metrics = Metrics()  # one for the whole program: every connection with it adds to the same figures
    for name in ("Ada", "Grace"):
        async with open_transport(SERVER, layers=[metrics]) as connection, open_peer(connection) as peer:
            await peer.request("tools/call", {"name": "greet", "arguments": {"name": name}})
            with suppress(JSONRPCError):
                await peer.request("tools/call", {"name": "no such tool"})

    snapshot = metrics.snapshot()
    for method, calls in snapshot.sent.items():
        assert calls.latency is not None
        print(f"{method}: {calls.count} sent, {calls.in_flight} in flight, errors {dict(calls.errors)}")
        print("  p50 <= p90 <= p99:", calls.latency.p50 <= calls.latency.p90 <= calls.latency.p99)
    print("open connections:", snapshot.connections)


trio.run(main)
