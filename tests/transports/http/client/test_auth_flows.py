"""Authentication by an ``httpx.Auth``: outcomes of requests that it changed, and the limit of what it reads."""

from __future__ import annotations

import gzip
from collections.abc import AsyncGenerator
from random import Random
from typing import Any, Final

import httpx
import httpx2
import pytest
import trio
from trio.testing import MockClock

from tests.support.scripted_http import Reply, serving
from trioxport import AuthenticationError, Request, Response, Undelivered, open_transport
from trioxport.layers import Retry
from trioxport.transports.http import Http

BOUND: Final = 15.0
MOST: Final = 1024 * 1024


async def only_answer(target: Http, *layers: Retry) -> Any:
    with trio.fail_after(BOUND):
        async with open_transport(target, layers=layers) as (tx, rx):
            await tx.send(
                Request(1, "tools/call", {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}})
            )
            return await rx.receive()


class KeyInQuery(httpx.Auth):
    """An ``Auth`` that adds a key to the query, or changes the path, and fails once there is a response."""

    def __init__(self, change: str) -> None:
        self._change = change

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        yield httpx.Request("POST", request.url.copy_with(path="/token"), content=b"grant=x")
        if self._change == "query":
            request.url = request.url.copy_merge_params({"key": "k"})
        elif self._change == "path":
            request.url = request.url.copy_with(path="/elsewhere")
        else:
            request = httpx.Request("POST", request.url, headers=request.headers, content=b" " + await request.aread())
        yield request
        raise ValueError


@pytest.mark.parametrize("change", ["query", "path", "content"])
async def test_a_request_that_an_auth_changed_is_unknown_once_it_was_answered(
    change: str, autojump_clock: MockClock
) -> None:
    calls = 0

    async def script(reply: Reply) -> None:
        nonlocal calls
        if reply.asked.path != "/token":
            calls += 1
        await reply.json({})

    async with serving(script) as server:
        answer = await only_answer(
            Http(server.url, auth=KeyInQuery(change)), Retry(random=Random(1), when=lambda it: it.outcome == "not_sent")
        )
    assert isinstance(answer, Undelivered)
    assert answer.outcome == "unknown"
    assert calls == 1


class OnlyAsks(httpx.Auth):
    """An ``Auth`` that fails with the response to a request of its own."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        yield httpx.Request("POST", request.url.copy_with(path="/token"), content=b"grant=x")
        raise ValueError


async def test_the_request_of_an_auth_to_the_same_origin_is_not_taken_for_the_message() -> None:
    async def script(reply: Reply) -> None:
        await reply.status(200)

    async with serving(script) as server:
        answer = await only_answer(Http(server.url, auth=OnlyAsks()))
    assert answer.outcome == "not_sent"


# Responses of other origins.


class Reading:
    """An ``Auth`` that reads the response of ``url``."""

    def __init__(self, library: Any, url: str) -> None:
        self._library = library
        self._url = url
        self.read = b""

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        response = yield self._library.Request("GET", self._url)
        self.read = await response.aread()
        yield request


class ReadingByHttpx(Reading, httpx.Auth):
    pass


class ReadingByHttpx2(Reading, httpx2.Auth):
    pass


LIBRARIES: Final = pytest.mark.parametrize(
    ("kind", "library"), [(ReadingByHttpx, httpx), (ReadingByHttpx2, httpx2)], ids=["httpx", "httpx2"]
)


async def fine(reply: Reply) -> None:
    await reply.result("fine")


@LIBRARIES
@pytest.mark.parametrize("coded", [False, True])
async def test_what_another_origin_says_is_read_up_to_a_bound(kind: type[Reading], library: Any, coded: bool) -> None:
    said = b"\0" * MOST
    fields = {"content_encoding": "gzip"} if coded else {}

    async def script(reply: Reply) -> None:
        await reply.status(200, gzip.compress(said) if coded else said, **fields)

    async with serving(fine) as server, serving(script) as other:
        auth: Any = kind(library, other.url)
        assert await only_answer(Http(server.url, auth=auth)) == Response(1, "fine")
    assert auth.read == said


@LIBRARIES
@pytest.mark.parametrize(
    ("body", "coding", "told"),
    [
        (b"x" * (MOST + 1), None, f"over the limit of {MOST} bytes"),
        (gzip.compress(b"\0" * (MOST + 1)), "gzip", f"more than the limit of {MOST} bytes"),
        (gzip.compress(b"whole")[:-4], "gzip", "cut short"),
        (b"?", "compress", "coding 'compress'"),
    ],
    ids=["plain", "bomb", "damaged", "unknown"],
)
async def test_what_another_origin_says_beyond_that_fails_the_authentication(
    kind: type[Reading], library: Any, body: bytes, coding: str | None, told: str
) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(200, body, **({"content_encoding": coding} if coding else {}))

    async with serving(fine) as server, serving(script) as other:
        auth: Any = kind(library, other.url)
        answer = await only_answer(Http(server.url, auth=auth))
    assert isinstance(answer.cause, AuthenticationError)
    assert told in str(answer.cause)
    assert (answer.outcome, answer.cause.retryable) == ("not_sent", False)
    assert server.asked == []
    assert auth.read == b""
