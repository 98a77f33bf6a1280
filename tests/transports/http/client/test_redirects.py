"""Redirects: credentials and bodies never leave the origin, and the method stays the same."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio

from tests.support.scripted_http import Reply, serving
from trioxport import HTTPStatusError, Notification, Request, Response, open_transport
from trioxport.auth import Bearer
from trioxport.transports.http import Http

BOUND: Final = 15.0
SECRET: Final = "hunter2"


def call(number: int | str = 1, method: str = "tools/call", **metadata: Any) -> Request:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    return Request(number, method, {"_meta": meta}, metadata=metadata)


async def only_answer(url: str, request: Request | None = None, **options: Any) -> Any:
    with trio.fail_after(BOUND):
        async with open_transport(Http(url, **options)) as (tx, rx):
            await tx.send(request or call())
            return await rx.receive()


@pytest.mark.parametrize(
    "location", ["/other?x=1", "other?x=1", "http://127.0.0.1:{port}/other?x=1", "//127.0.0.1:{port}/other?x=1"]
)
@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_origin_is_followed(status: int, location: str) -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.path == "/mcp":
            await reply.status(status, location=location.format(port=server.port))
        else:
            await reply.result("fine")

    async with serving(script) as server:
        assert await only_answer(server.url, auth=Bearer("t")) == Response(1, "fine")
    first, second = server.asked
    assert (second.method, second.path) == ("POST", "/other?x=1")
    assert (second.body, second.headers) == (first.body, first.headers)


REFUSED: Final = [
    (307, "http://localhost:{port}/mcp"),
    (307, "http://127.0.0.1:1/mcp"),
    (308, "https://127.0.0.1:{port}/mcp"),
    (307, "http://me:hunter2@127.0.0.1:{port}/other"),
    (307, "/mcp"),
    (301, "/other"),
    (302, "/other"),
    (303, "/other"),
    (307, "http://[::1/"),
    (307, ""),
    (300, "/other"),
]


@pytest.mark.parametrize(("status", "location"), REFUSED)
async def test_any_other_redirect_is_told(status: int, location: str) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(status, location=location.format(port=server.port))

    async with serving(script) as server:
        refused = await only_answer(server.url, auth=Bearer("t"))
    assert isinstance(refused.cause, HTTPStatusError)
    assert refused.cause.status == status
    assert "a redirect to " in str(refused.cause)
    assert SECRET not in str(refused.cause)
    assert len(server.asked) == (6 if location == "/mcp" else 1)


async def test_a_get_may_be_redirected_by_any_status() -> None:
    """The only GET is that of a legacy server's own stream."""

    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "initialize":
            await reply.result({"protocolVersion": "2025-11-25"}, mcp_session_id="s")
        elif reply.asked.path == "/mcp" and reply.asked.method == "GET":
            await reply.status(302, location="/stream")
        elif reply.asked.path == "/stream":
            await reply.begin_events()
            await reply.event({"jsonrpc": "2.0", "method": "notifications/message"})
            await reply.gone()
        else:
            await reply.status(202)

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(Request(1, "initialize", {"protocolVersion": "2025-11-25"}))
            await rx.receive()
            await tx.send(Notification("notifications/initialized"))
            assert await rx.receive() == Notification("notifications/message")
