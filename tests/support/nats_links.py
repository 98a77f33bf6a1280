"""A real NATS server, and the documentation's binding to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from trioxport.testing import MakePair, TransportPair, open_cuttable_proxy
from trioxport.transports.stdio.guard import open_guard

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "examples"))

import nats_transport

NATS_SERVER = str(Path(sys.executable).with_name("nats-server"))


@asynccontextmanager
async def nats_server(port: int = -1) -> AsyncGenerator[int]:
    """Run a NATS server for one test, and yield its port. It ends with this process, be it by SIGKILL."""
    command = [NATS_SERVER, "--addr", "127.0.0.1", "--port", str(port)]
    run = partial(trio.run_process, command, stderr=subprocess.PIPE, check=False, start_new_session=True)
    async with open_guard() as guard, trio.open_nursery() as nursery:
        process = await nursery.start(run)
        try:
            await guard.watch(process.pid)
            yield await _port_in(process.stderr)
        finally:
            process.kill()


async def _port_in(log: trio.abc.ReceiveStream) -> int:
    """Return the port that the server's log names, once it is ready."""
    text = b""
    while b"Server is ready" not in text:
        text += await log.receive_some()
    found: Any = text.partition(b"client connections on 127.0.0.1:")[2].partition(b"\n")[0]
    return int(found)


def nats_link(silence: float = 15.0) -> MakePair:
    """Make a pair whose client reaches the NATS server through a proxy that can be cut."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        async with nats_server() as port, open_cuttable_proxy() as proxy:
            proxy.forward_to(partial(trio.open_tcp_stream, "127.0.0.1", port))

            def nats(port: int, service: str = "checked") -> Any:
                return nats_transport.Nats("127.0.0.1", port, service, silence)

            yield TransportPair(
                nats(port), nats(proxy.port), cut=proxy.cut, unreachable=nats(proxy.port, "nobody"), heartbeat=silence
            )

    return make
