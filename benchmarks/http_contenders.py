"""The contenders over HTTP, each as a send and a receive function against the same server process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NamedTuple, TypeAlias

import aiohttp
import httpcore
import httpx
import httpx2
import trio

from trioxport import Request, open_transport
from trioxport.transports.http import Http

TEXT: Final = "x" * 50
META: Final = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
BODY: Final = (
    '{{"jsonrpc":"2.0","id":{},"method":"{}","params":{{"text":"' + TEXT + '","_meta":'
    '{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}'
)
MAX_WAITING: Final = 100_000
"""Answers that may wait to be counted: more than a round has."""
HEADERS: Final = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2026-07-28"),
]


Timed: TypeAlias = Callable[[], Coroutine[Any, Any, float]]


async def _run_here(timed: Timed) -> float:
    return await timed()


class Talk(NamedTuple):
    """An open pair of ends.

    Args:
        prepare: Makes the message of an id and a method, as the contender takes it; not part of what is timed.
        send: Sends one such message.
        receive: Returns the next message that comes back.
        run: Runs an exchange, which uses both, on the contender's event loop.
    """

    prepare: Callable[[int, str], Any]
    send: Callable[[Any], Awaitable[object]]
    receive: Callable[[], Awaitable[object]]
    run: Callable[[Timed], Awaitable[float]] = _run_here


Contender: TypeAlias = Callable[[str], AbstractAsyncContextManager[Talk]]


@asynccontextmanager
async def bare_httpcore(url: str) -> AsyncGenerator[Talk]:
    """A task a request around ``httpcore``'s pool, on which ``httpx`` stands; answers are counted, not read."""
    arrived, received = trio.open_memory_channel[bytes](MAX_WAITING)

    async def post(body: bytes) -> None:
        headers = [*HEADERS, ("content-length", str(len(body)))]
        async with pool.stream("POST", url, headers=headers, content=body) as response:
            async for chunk in response.aiter_stream():
                for _ in range(_answers_in(chunk)):
                    arrived.send_nowait(chunk)

    async with (
        httpcore.AsyncConnectionPool(max_connections=None, max_keepalive_connections=100) as pool,
        trio.open_nursery() as nursery,
    ):

        async def send(body: bytes) -> None:
            nursery.start_soon(post, body)

        yield Talk(_body, send, received.receive)


@asynccontextmanager
async def httpx2_client(url: str) -> AsyncGenerator[Talk]:
    """A task a request around one ``httpx2.AsyncClient``, as its documentation advises; answers are counted."""
    async with httpx2.AsyncClient() as client, _posting(client, url) as talk:
        yield talk


@asynccontextmanager
async def httpx_over_http2(url: str) -> AsyncGenerator[Talk]:
    """A task a request around one ``httpx.AsyncClient`` that speaks HTTP/2 alone; answers are counted."""
    async with httpx.AsyncClient(http1=False, http2=True) as client, _posting(client, url) as talk:
        yield talk


@asynccontextmanager
async def _posting(client: httpx.AsyncClient | httpx2.AsyncClient, url: str) -> AsyncGenerator[Talk]:
    arrived, received = trio.open_memory_channel[bytes](MAX_WAITING)

    async def post(body: bytes) -> None:
        async with client.stream("POST", url, headers=HEADERS, content=body) as response:
            async for chunk in response.aiter_bytes():
                for _ in range(_answers_in(chunk)):
                    arrived.send_nowait(chunk)

    async with trio.open_nursery() as nursery:

        async def send(body: bytes) -> None:
            nursery.start_soon(post, body)

        yield Talk(_body, send, received.receive)


@asynccontextmanager
async def aiohttp_client(url: str) -> AsyncGenerator[Talk]:
    """A task a request around one ``aiohttp.ClientSession``, as its documentation advises, on an asyncio loop."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    async def post(body: bytes) -> None:
        async with session.post(url, headers=HEADERS, data=body) as response:
            async for chunk in response.content.iter_any():
                for _ in range(_answers_in(chunk)):
                    arrived.put_nowait(chunk)

    async def send(body: bytes) -> None:
        task = asyncio.create_task(post(body))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def run(timed: Timed) -> float:
        return await trio.to_thread.run_sync(lambda: runner.run(timed()))

    with asyncio.Runner() as runner:
        session = await trio.to_thread.run_sync(lambda: runner.run(open_session()))
        try:
            yield Talk(_body, send, arrived.get, run)
        finally:
            await trio.to_thread.run_sync(lambda: runner.run(session.close()))


def _body(number: int, method: str) -> bytes:
    return BODY.format(number, method).encode()


def _answers_in(chunk: bytes) -> int:
    """The events in a part of a stream; 1 for the JSON of an answer."""
    return max(1, chunk.count(b"\n\n"))


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
async def trioxport(url: str, *, http2: bool = False) -> AsyncGenerator[Talk]:
    """This library."""

    def prepare(number: int, method: str) -> Request:
        return Request(number, method, {"text": TEXT, "_meta": META})

    async with open_transport(Http(url, http2=http2)) as (tx, rx):
        yield Talk(prepare, tx.send, rx.receive)


HTTP_CONTENDERS: Final[dict[str, Contender]] = {
    "httpcore": bare_httpcore,
    "httpx2": httpx2_client,
    "aiohttp": aiohttp_client,
    "official SDK": official_sdk,
    "trioxport": trioxport,
}
