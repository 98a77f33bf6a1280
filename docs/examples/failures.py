"""Failures: no connection, a server that dies, a request that was never answered."""

import logging
import sys

import trio

from trioxport import ConnectionLost, Request, SpawnError, Undelivered, open_transport
from trioxport.transports.stdio import Stdio

logging.basicConfig(level=logging.WARNING, format="log: %(message)s", stream=sys.stdout)

DIES = Stdio(sys.executable, ["-c", "import sys; input(); sys.exit('the database is gone')"], stderr=lambda line: None)


async def main() -> None:
    try:
        async with open_transport("stdio:no-such-program --token secret"):
            pass
    except SpawnError as error:
        print(error, "| retryable:", error.retryable, "| outcome:", error.outcome)

    try:
        async with open_transport(DIES) as (tx, rx):
            await tx.send(Request(1, "tools/list"))
            async for message in rx:
                if isinstance(message, Undelivered):
                    print("unanswered:", message.original, "| outcome:", message.outcome)
    except ConnectionLost as error:
        print(f"lost: exit code {error.exit_code}, stderr: {error.stderr_tail}")


trio.run(main)
