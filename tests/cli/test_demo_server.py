"""The demo server in both eras: over ``memory://``, and over stdio as a child process."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

from trioxport import ErrorResponse, Notification, Request, Response, open_transport, serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.demo import serve_demo
from trioxport.peer import JSONRPCError, Peer, open_peer
from trioxport.transports.stdio import Stdio

CLIENT: Final = {"name": "test", "version": "1"}
VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
SERVER: Final = "io.modelcontextprotocol/serverInfo"
CHILD: Final = Stdio(sys.executable, ["-m", "trioxport", "serve-demo", "stdio:"])

both_eras = pytest.mark.parametrize("era", ["modern", "legacy"])
_names = itertools.count()


@asynccontextmanager
async def served() -> AsyncGenerator[str]:
    async with open_bare_nursery() as tasks:
        (target,) = await tasks.start(serve_transport, serve_demo, f"memory://demo-{next(_names)}")
        yield target
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def client(era: Any) -> AsyncGenerator[Peer]:
    async with served() as target, open_transport(target) as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info=CLIENT, era=era)
        yield peer


async def call(peer: Peer, tool: str, **arguments: Any) -> Any:
    return await peer.request("tools/call", {"name": tool, "arguments": arguments})


@both_eras
async def test_its_description(era: Any) -> None:
    async with served() as target, open_transport(target) as connection, open_peer(connection) as peer:
        negotiated = await peer.negotiate(client_info=CLIENT, era=era)
        assert negotiated.protocol_version == {"modern": "2026-07-28", "legacy": "2025-11-25"}[era]
        assert negotiated.server_info["name"] == "trioxport-demo"
        assert negotiated.capabilities == {"tools": {}}
        assert negotiated.instructions


@both_eras
async def test_results_have_the_form_of_their_era(era: Any) -> None:
    async with client(era) as peer:
        listed = await peer.request("tools/list")
        called = await call(peer, "add", a=20, b=22.5)
    assert [tool["name"] for tool in listed["tools"]] == ["echo", "add", "sleep", "fail", "payload"]
    assert called["structuredContent"] == {"sum": 42.5}
    assert called["content"] == [{"type": "text", "text": "sum: 42.5"}]
    assert called["isError"] is False
    if era == "modern":
        assert listed["resultType"] == called["resultType"] == "complete"
        assert listed["_meta"][SERVER]["name"] == called["_meta"][SERVER]["name"] == "trioxport-demo"
        assert (listed["ttlMs"], listed["cacheScope"]) == (3_600_000, "public")
    else:
        assert set(listed) == {"tools"}
        assert set(called) == {"content", "structuredContent", "isError"}


@both_eras
async def test_the_tools(era: Any) -> None:
    async with client(era) as peer:
        assert (await call(peer, "echo", text="\ud800 ✓"))["content"][0]["text"] == "\ud800 ✓"
        assert len((await call(peer, "payload", size=1_000_003))["content"][0]["text"]) == 1_000_003
        failed = await call(peer, "fail", message="as told")
        assert (failed["content"][0]["text"], failed["isError"]) == ("as told", True)
        assert (await call(peer, "fail"))["isError"] is True
        assert await peer.request("ping") == {}


async def test_sleep_takes_its_time_and_reports_progress(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[object] = []
    async with client("modern") as peer:
        params = {"name": "sleep", "arguments": {"seconds": 3600, "steps": 120}}
        result = await peer.request(
            "tools/call", params, timeout=31, on_progress=lambda *progress: seen.append(progress)
        )
        assert result["content"][0]["text"] == "slept for 3600 s in 120 steps"
    assert trio.current_time() == pytest.approx(3600)
    assert seen[0] == (1, 120, "step 1 of 120")
    assert len(seen) == 120


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("echo", {}, "the argument 'text' is missing"),
        ("echo", {"text": 1}, "the argument 'text' has to be a string"),
        ("echo", {"text": "x", "more": 1}, "there is no argument 'more'"),
        ("add", {"a": True, "b": 1}, "the argument 'a' has to be a number"),
        ("payload", {"size": 1.5}, "the argument 'size' has to be an integer"),
        ("payload", {"size": -1}, "the argument 'size' has to be from 0 to 268435456"),
        ("sleep", {"seconds": 1, "steps": 0}, "the argument 'steps' has to be from 1 to 10000"),
    ],
)
async def test_arguments_that_do_not_fit_are_the_tools_error(tool: str, arguments: Any, text: str) -> None:
    async with client("modern") as peer:
        result = await call(peer, tool, **arguments)
        assert (result["content"][0]["text"], result["isError"]) == (text, True)


@both_eras
@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"name": "juggle"}, "Unknown tool: juggle"),
        ({}, "name has to be a string, and arguments an object"),
        ({"name": "echo", "arguments": [1]}, "name has to be a string, and arguments an object"),
    ],
)
async def test_calls_that_are_malformed_are_protocol_errors(era: Any, params: Any, text: str) -> None:
    async with client(era) as peer:
        with pytest.raises(JSONRPCError, match=text) as caught:
            await peer.request("tools/call", params)
        assert caught.value.code == -32602


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call"])
@pytest.mark.parametrize(
    ("meta", "code"),
    [
        pytest.param(None, -32602, id="no meta"),
        pytest.param({CAPABILITIES: {}}, -32602, id="no version"),
        pytest.param({VERSION: 2026, CAPABILITIES: {}}, -32602, id="a version that is none"),
        pytest.param({VERSION: "2026-07-28"}, -32602, id="no capabilities"),
        pytest.param({VERSION: "2025-11-25", CAPABILITIES: {}}, -32022, id="a legacy version"),
        pytest.param({VERSION: "1900-01-01", CAPABILITIES: {}}, -32022, id="an unknown version"),
    ],
)
async def test_requests_that_are_of_neither_era(method: str, meta: Any, code: int) -> None:
    async with served() as target, open_transport(target) as (tx, rx):
        await tx.send(Request(1, method, None if meta is None else {"_meta": meta}))
        error = await rx.receive()
        assert isinstance(error, ErrorResponse)
        assert error.code == code
        if code == -32022:
            assert error.data == {"supported": ["2026-07-28"], "requested": meta[VERSION]}


@pytest.mark.parametrize(("asked", "answered"), [("2024-11-05", "2024-11-05"), ("1.0", "2025-11-25")])
async def test_the_handshake_answers_with_a_version_it_has(asked: str, answered: str) -> None:
    async with served() as target, open_transport(target) as (tx, rx):
        await tx.send(Request(1, "initialize", {"protocolVersion": asked, "capabilities": {}, "clientInfo": CLIENT}))
        message = await rx.receive()
        assert isinstance(message, Response)
        assert message.result["protocolVersion"] == answered


async def test_a_handshake_without_a_version_is_refused() -> None:
    async with served() as target, open_transport(target) as (tx, rx):
        await tx.send(Request(1, "initialize", {}))
        assert await rx.receive() == ErrorResponse(1, -32602, "protocolVersion is missing")


async def test_both_eras_on_one_connection() -> None:
    async with client("legacy") as peer:
        meta = {"_meta": {VERSION: "2026-07-28", CAPABILITIES: {}}}
        assert "resultType" in await peer.request("tools/list", meta)
        assert "resultType" not in await peer.request("tools/list")


@both_eras
async def test_over_stdio_as_a_child_process(era: Any) -> None:
    with trio.fail_after(20):
        async with open_transport(CHILD) as connection, open_peer(connection) as peer:
            negotiated = await peer.negotiate(client_info=CLIENT, era=era)
            assert negotiated.era == era
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(_echoes, peer, f"text {number}")
            started = trio.Event()
            with trio.CancelScope() as scope:

                def stop(progress: float, total: float | None, message: str | None) -> None:
                    started.set()
                    scope.cancel()

                params = {"name": "sleep", "arguments": {"seconds": 1000, "steps": 10_000}}
                await peer.request("tools/call", params, on_progress=stop)
            assert started.is_set()
            await _echoes(peer, "after the cancellation")


async def _echoes(peer: Peer, text: str) -> None:
    assert (await call(peer, "echo", text=text))["content"] == [{"type": "text", "text": text}]


async def test_a_cancelled_call_is_not_answered() -> None:
    async with served() as target, open_transport(target) as (tx, rx):
        meta = {VERSION: "2026-07-28", CAPABILITIES: {}, "progressToken": "t"}
        arguments = {"name": "sleep", "arguments": {"seconds": 0, "steps": 10_000}, "_meta": meta}
        await tx.send(Request(1, "tools/call", arguments))
        progress = await rx.receive()
        assert isinstance(progress, Notification)
        assert progress.method == "notifications/progress"
        await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
        await tx.send(Request(2, "ping"))
        await tx.aclose()
        rest = [message async for message in rx]
    assert [message for message in rest if not isinstance(message, Notification)] == [Response(2, {})]
