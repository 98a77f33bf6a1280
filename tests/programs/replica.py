"""A replica of a server of the official SDK: replica.py REDIS LOG LEASE. Prints its address.

It has the tools of ``sdk_programs.py``; ``act``, which appends its number to the log before it answers; and
``process``, which returns the id of its process.
"""

from __future__ import annotations

import os
import sys
import warnings
from functools import partial

import trio
from mcp.server.mcpserver import Context
from mcp.server.request_state import RequestStateSecurity
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.support.sdk_programs import build_server
from trioxport.running import run_server
from trioxport.transports.http.server import HttpServer, Sessions
from trioxport.transports.redis import RedisEvents, RedisSessions

REDIS, LOG, LEASE = sys.argv[1:]


def main() -> None:
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    server = build_server(request_state_security=RequestStateSecurity(keys=["a key that all replicas share, of 32 B"]))

    @server.tool()
    async def act(number: int, seconds: float, ctx: Context) -> int:
        os.write(log, b"%d\n" % number)
        await ctx.report_progress(1, 2)
        await trio.sleep(seconds)
        return number

    @server.tool()
    def process() -> int:
        return os.getpid()

    target = HttpServer(
        "http://127.0.0.1:0/mcp",
        sessions=Sessions(directory=RedisSessions(REDIS, lease=float(LEASE)), retry=0.05, most_each=1000),
        events=RedisEvents(REDIS),
        ready="/ready",
    )
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # what only the legacy era has is tried as well
    trio.run(partial(run_server, server, target, on_listening=lambda found: os.write(1, f"{found[0]}\n".encode())))


if __name__ == "__main__":
    main()
