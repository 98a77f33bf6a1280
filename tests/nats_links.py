"""A real NATS server, and the documentation's binding to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from links import CuttingProxy

from trioxport.testing import Link, MakeLink

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "examples"))

import nats_transport

NATS_SERVER = str(Path(sys.executable).with_name("nats-server"))


@asynccontextmanager
async def nats_server(port: int = -1) -> AsyncGenerator[int]:
    """The port of a NATS server of this test's own."""
    command = [NATS_SERVER, "--addr", "127.0.0.1", "--port", str(port)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stderr=-1, check=False))
        try:
            yield await _port_in(process.stderr)
        finally:
            process.kill()


async def _port_in(log: trio.abc.ReceiveStream) -> int:
    """The port that the server's log names, once it is ready."""
    text = b""
    while b"Server is ready" not in text:
        text += await log.receive_some()
    found: Any = text.partition(b"client connections on 127.0.0.1:")[2].partition(b"\n")[0]
    return int(found)


def nats_link(silence: float = 600.0) -> MakeLink:
    """A link through a proxy that can break the client's connection to the NATS server."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        async with nats_server() as port, trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            proxy = CuttingProxy(listener, nursery)
            proxy.forward_to(partial(trio.open_tcp_stream, "127.0.0.1", port))
            near = listener.socket.getsockname()[1]

            def nats(port: int, service: str = "checked") -> Any:
                return nats_transport.Nats("127.0.0.1", port, service, silence)

            yield Link(server=nats(port), client=nats(near), cut=proxy.cut, unreachable=nats(near, "nobody"))
            nursery.cancel_scope.cancel()

    return make
