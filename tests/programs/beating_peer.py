"""The check peer behind a transport with timers, in a process of its own; writes its port."""

import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.heartbeat_transport import Beating
from trioxport._core.nursery import open_bare_nursery
from trioxport.testing import serve_check_peer


async def main() -> None:
    async with open_bare_nursery() as tasks:
        [address] = await tasks.start(serve_check_peer, Beating.at(0))
        sys.stdout.write(address.rpartition(":")[2])
        sys.stdout.flush()


trio.run(main)
