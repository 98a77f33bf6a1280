"""Retry, CircuitBreaker, Timeout and RateLimit around an unreliable server."""

import trio

from trioxport import CircuitOpen, Connection, Request, RequestTimeout, Response, open_transport, serve_transport
from trioxport.abc import Layer
from trioxport.layers import Backoff, CircuitBreaker, Rate, RateLimit, Retry, Timeout
from trioxport.peer import open_peer

CALLS = {"tools/list": 0, "tools/call": 0}


async def moody(connection: Connection) -> None:
    """Answers ``tools/list`` the second time, and ``tools/call`` never."""
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request):
            CALLS[message.method] += 1
            if message.method == "tools/list" and CALLS["tools/list"] > 1:
                await tx.send(Response(message.id, {"tools": []}))


async def main() -> None:
    breaker = CircuitBreaker(
        failures=2, reset_timeout=60.0, on_transition=lambda old, new: print(f"the circuit was {old} and is {new}")
    )
    layers: list[Layer] = [
        breaker,
        Retry(backoff=Backoff(base=0.01, cap=0.1)),
        RateLimit(send=Rate(100, burst=10)),
        Timeout(0.1),
    ]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, moody, "memory://moody")
        async with open_transport("memory://moody", layers=layers) as connection, open_peer(connection) as peer:
            print("tools:", await peer.request("tools/list"))
            print("asked", CALLS["tools/list"], "times, since a list only reads")
            for _ in range(2):
                try:
                    await peer.request("tools/call", {"name": "pay"})
                except RequestTimeout as error:
                    print(f"{error.reason}; outcome: {error.outcome}")
            print("asked", CALLS["tools/call"], "times, since a call may have been acted on")
            try:
                await peer.request("tools/list")
            except CircuitOpen as error:
                print("refused at once, to be tried again in a minute:", error.retry_after is not None)
        nursery.cancel_scope.cancel()


trio.run(main)
