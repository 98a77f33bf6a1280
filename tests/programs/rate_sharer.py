"""A client that sends ten notifications, under a rate that it shares through Redis; prints how many passed.

python -m tests.programs.rate_sharer PORT
"""

import os
import sys

import trio

from trioxport import Connection, Notification, RateLimited, open_transport, serve_transport
from trioxport.layers import Rate, RateLimit
from trioxport.transports.redis import RedisRates


async def handle(connection: Connection) -> None:
    async for _message in connection.rx:
        pass


async def main(port: int) -> None:
    rates = RedisRates(f"redis://127.0.0.1:{port}", Rate(1, per=3600, burst=7), name="shared", timeout=10)
    layer = RateLimit(rates.bucket("notes"), on_limit="raise")
    passed = 0
    async with rates.connected(), trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handle, "memory://shared")
        async with open_transport("memory://shared", layers=[layer]) as (tx, _):
            for _number in range(10):
                try:
                    await tx.send(Notification("note"))
                except RateLimited:
                    continue
                passed += 1
        nursery.cancel_scope.cancel()
    os.write(1, b"%d\n" % passed)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
