"""The three contenders over HTTP, each as a send and a receive function against the same server process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NamedTuple, TypeAlias

import httpcore
import trio

from trioxport import Request, open_transport

TEXT: Final = "x" * 50
META: Final = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
BODY: Final = (
    '{{"jsonrpc":"2.0","id":{},"method":"{}","params":{{"text":"' + TEXT + '","_meta":'
    '{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}'
)
HEADERS: Final = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2026-07-28"),
]


class Talk(NamedTuple):
    """An open pair of ends.

    Args:
        prepare: Makes the message of an id and a method, as the contender takes it; not part of what is timed.
        send: Sends one such message.
        receive: Returns the next message that comes back.
    """

    prepare: Callable[[int, str], Any]
    send: Callable[[Any], Awaitable[object]]
    receive: Callable[[], Awaitable[object]]


Contender: TypeAlias = Callable[[str], AbstractAsyncContextManager[Talk]]


@asynccontextmanager
async def bare_httpcore(url: str) -> AsyncGenerator[Talk]:
    """A task a request around ``httpcore``'s pool, on which ``httpx`` stands; answers are counted, not read."""
    arrived, received = trio.open_memory_channel[bytes](100_000)

    async def post(body: bytes) -> None:
        headers = [*HEADERS, ("content-length", str(len(body)))]
        async with pool.stream("POST", url, headers=headers, content=body) as response:
            async for chunk in response.aiter_stream():
                for _ in range(max(1, chunk.count(b"\n\n"))):
                    arrived.send_nowait(chunk)

    def prepare(number: int, method: str) -> bytes:
        return BODY.format(number, method).encode()

    async with (
        httpcore.AsyncConnectionPool(max_connections=None, max_keepalive_connections=100) as pool,
        trio.open_nursery() as nursery,
    ):

        async def send(body: bytes) -> None:
            nursery.start_soon(post, body)

        yield Talk(prepare, send, received.receive)


@asynccontextmanager
async def official_sdk(url: str) -> AsyncGenerator[Talk]:
    """The Streamable HTTP client of the official SDK, run under Trio."""
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCRequest

    def prepare(number: int, method: str) -> SessionMessage:
        params = {"text": TEXT, "_meta": META}
        return SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params))

    async with streamable_http_client(url) as (read, write, *_):
        yield Talk(prepare, write.send, read.receive)


@asynccontextmanager
async def trioxport(url: str) -> AsyncGenerator[Talk]:
    """This library."""

    def prepare(number: int, method: str) -> Request:
        return Request(number, method, {"text": TEXT, "_meta": META})

    async with open_transport(url) as (tx, rx):
        yield Talk(prepare, tx.send, rx.receive)


HTTP_CONTENDERS: Final[dict[str, Contender]] = {
    "httpcore": bare_httpcore,
    "official SDK": official_sdk,
    "trioxport": trioxport,
}
