"""Requests with the same head on one connection: it is parsed and checked once, and they are treated no differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import modern, modern_fields, talking
from tests.support.recording_handler import serving
from trioxport.auth import InvalidToken
from trioxport.layers import Rate
from trioxport.transports.http.server import HttpServer

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
HELLO: Final = modern("hello")


async def answers(config: HttpServer, fields: Mapping[str, str], bodies: Sequence[Any]) -> list[tuple[int, str | None]]:
    """The status of the response to each body under the same head, and the origin that may read it."""
    found: list[tuple[int, str | None]] = []
    with trio.fail_after(BOUND):
        async with serving(config) as served, talking(served.url) as reply:
            for body in bodies:
                await reply.ask("POST", "/mcp", fields, body)
                await reply.body()
                found.append((reply.status, reply.headers.get("access-control-allow-origin")))
    return found


async def test_the_token_is_checked_each_time() -> None:
    tokens = ["mine"]

    async def verify(token: str) -> str:
        if tokens.pop() != token:
            raise InvalidToken("it was revoked")
        tokens.append("revoked")
        return "me"

    fields = {**modern_fields(HELLO), "authorization": "Bearer mine"}
    assert await answers(HttpServer(ANYWHERE, verify=verify), fields, [HELLO] * 2) == [(200, None), (401, None)]


async def test_each_request_counts_for_the_rate() -> None:
    config = HttpServer(ANYWHERE, rate=Rate(2, per=3600))
    found = await answers(config, modern_fields(HELLO), [HELLO] * 3)
    assert found == [(200, None), (200, None), (429, None)]


async def test_a_page_may_read_each_response() -> None:
    config = HttpServer(ANYWHERE, cors=True, origins=["https://app.example"])
    fields = {**modern_fields(HELLO), "origin": "https://app.example"}
    assert await answers(config, fields, [HELLO] * 2) == [(200, "https://app.example")] * 2


@pytest.mark.parametrize("fields", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"accept": "x/y"}])
async def test_a_head_that_was_refused_is_refused_again(fields: Mapping[str, str]) -> None:
    statuses = {
        status for status, _ in await answers(HttpServer(ANYWHERE), {**modern_fields(HELLO), **fields}, [HELLO] * 3)
    }
    assert len(statuses) == 1 and statuses < {403, 406, 421}


async def test_the_message_is_checked_against_the_head_each_time() -> None:
    fields = modern_fields(modern("hello"))
    bodies = [modern("hello", 1), modern("other", 1), modern("hello", 2)]
    assert [status for status, _ in await answers(HttpServer(ANYWHERE), fields, bodies)] == [200, 400, 200]
