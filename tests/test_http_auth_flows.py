"""Authentication by an ``httpx.Auth``: what a request that it changed came to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from random import Random
from typing import Any, Final

import httpx
import pytest
import trio
from scripted_http import Reply, serving
from trio.testing import MockClock

from trioxport import Request, Undelivered, open_transport
from trioxport.layers import Retry
from trioxport.transports.http import Http

BOUND: Final = 15.0


async def only_answer(target: Http, *layers: Retry) -> Any:
    with trio.fail_after(BOUND):
        async with open_transport(target, layers=layers) as (tx, rx):
            await tx.send(
                Request(1, "tools/call", {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}})
            )
            return await rx.receive()


class KeyInQuery(httpx.Auth):
    """Shows a key in the query, or sends the message to another path, and fails once there is an answer."""

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
    """Fails with the answer to a request of its own."""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        yield httpx.Request("POST", request.url.copy_with(path="/token"), content=b"grant=x")
        raise ValueError


async def test_the_request_of_an_auth_to_the_same_origin_is_not_taken_for_the_message() -> None:
    async def script(reply: Reply) -> None:
        await reply.status(200)

    async with serving(script) as server:
        answer = await only_answer(Http(server.url, auth=OnlyAsks()))
    assert answer.outcome == "not_sent"
