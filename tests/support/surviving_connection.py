"""A connection that has to work on after a scripted server's misbehaviour."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

from tests.support.scripted_http import Reply, Script, serving
from trioxport import Connection, Limits, Request, Response, open_transport
from trioxport.transports.http import Http

META: Final = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}


def call(number: int | str = 1, method: str = "tools/call") -> Request:
    return Request(number, method, {"_meta": META})


@asynccontextmanager
async def conversing(script: Script, **options: Any) -> AsyncGenerator[Connection]:
    """Open a connection to a server that runs ``script``, and answers ``ping``."""

    async def scripted(reply: Reply) -> None:
        await (reply.result("fine") if reply.asked.rpc == "ping" else script(reply))

    limits = Limits(max_message_size=1000)
    async with serving(scripted) as server, open_transport(Http(server.url, **options), limits=limits) as connection:
        yield connection
        await goes_on(connection)


async def goes_on(connection: Connection) -> None:
    """Check that settled requests get nothing more, and that the connection works until its orderly end."""
    await connection.tx.send(call("after", "ping"))
    assert await connection.rx.receive() == Response("after", "fine")
    await connection.tx.aclose()
    with pytest.raises(trio.EndOfChannel):
        await connection.rx.receive()


async def answer_of(connection: Connection, request: Request | None = None) -> Any:
    await connection.tx.send(request or call())
    return await connection.rx.receive()
