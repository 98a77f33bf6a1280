"""Servers made with the official TypeScript SDK on the web, of both its generations, and the one it is shown with."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from trioxport import Connection, open_transport
from trioxport.peer import IncomingRequest, JSONRPCError, Peer, open_peer
from trioxport.transports.http.client.tool_cache import ToolListRefresh

BOUND: Final = 25.0
CLIENT: Final = {"name": "test", "version": "1"}
SERVER: Final = Path(__file__).parents[1] / "peers/ts_http_server.mjs"


@asynccontextmanager
async def running(command: list[str], environment: Mapping[str, str]) -> AsyncGenerator[trio.abc.ReceiveStream]:
    """The lines that a program of Node prints, on either output, for the time of a block."""
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=environment
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        yield process.stdout
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def ts_server(node: str, mode: str) -> AsyncGenerator[str]:
    async with running([node, str(SERVER), mode], os.environ) as output:
        yield f"http://127.0.0.1:{int((await output.receive_some()).decode())}/mcp"


@asynccontextmanager
async def everything(command: list[str], mode: str) -> AsyncGenerator[str]:
    """The origin of the server that is to show everything; it cannot be asked which port it chose."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running([*command[:2], mode], {**os.environ, "PORT": str(port)}) as output:
        said = b""
        while f"port {port}".encode() not in said:
            more = await output.receive_some()
            assert more, said
            said += more
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, output)
            yield f"http://127.0.0.1:{port}"
            nursery.cancel_scope.cancel()


async def drain(output: trio.abc.ReceiveStream) -> None:
    while await output.receive_some():
        pass


async def text_of(peer: Peer, name: str, **arguments: Any) -> str:
    result = await peer.request("tools/call", {"name": name, "arguments": arguments})
    return str(result["content"][0]["text"])


@pytest.mark.deadline(60)
@pytest.mark.parametrize(
    ("mode", "era", "has_session"),
    [
        ("modern", "modern", False),
        ("both", "modern", False),
        ("sessions", "legacy", True),
        ("stateless", "legacy", False),
        ("sse", "legacy", False),
    ],
)
async def test_a_conversation(mode: str, era: str, has_session: bool, everything_server: list[str]) -> None:
    """And a second one, which knows from the first what the server speaks."""
    with trio.fail_after(BOUND):
        async with ts_server(everything_server[0], mode) as url:
            for known in (None, era):
                async with open_transport(url) as connection, open_peer(connection) as peer:
                    assert connection.info.era == known
                    assert (await peer.negotiate(client_info=CLIENT)).era == era
                    assert (connection.info.session_id is not None) == has_session
                    assert "add" in {tool["name"] for tool in (await peer.request("tools/list"))["tools"]}
                    assert await text_of(peer, "add", a=2, b=3) == "5"
                    seen: list[float] = []
                    work = {"name": "work", "arguments": {"steps": 3}}
                    await peer.request("tools/call", work, on_progress=lambda step, *_, seen=seen: seen.append(step))
                    assert seen == [1, 2, 3]
                    # the answer to a cancelled request may be on its way
                    assert set(connection.statistics().discarded) <= {"late"}


@pytest.mark.deadline(60)
async def test_a_server_of_both_eras_is_spoken_to_in_the_older_one(everything_server: list[str]) -> None:
    with trio.fail_after(BOUND):
        async with (
            ts_server(everything_server[0], "both") as url,
            open_transport(url) as connection,
            open_peer(connection) as peer,
        ):
            assert (await peer.negotiate(client_info=CLIENT, era="legacy")).protocol_version == "2025-11-25"
            assert await text_of(peer, "add", a=2, b=3) == "5"


@pytest.mark.deadline(60)
@pytest.mark.parametrize("remedy", [True, False])
async def test_a_call_whose_headers_nobody_has_told(
    remedy: bool, everything_server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tools were never listed; without the remedy, the server refuses the call indeed."""

    async def no_remedy(*_: object) -> bool:
        return False

    if not remedy:
        monkeypatch.setattr(ToolListRefresh, "refresh", no_remedy)
    with trio.fail_after(BOUND):
        async with (
            ts_server(everything_server[0], "modern") as url,
            open_transport(url) as connection,
            open_peer(connection) as peer,
        ):
            await peer.negotiate(client_info=CLIENT)
            if remedy:
                assert await text_of(peer, "where", region="süd") == "süd"
            else:
                with pytest.raises(JSONRPCError) as caught:
                    await text_of(peer, "where", region="süd")
                assert caught.value.code == -32020


@pytest.mark.deadline(60)
async def test_a_server_that_forgets_its_sessions(everything_server: list[str]) -> None:
    with trio.fail_after(BOUND):
        async with (
            ts_server(everything_server[0], "sessions") as url,
            open_transport(url) as connection,
            open_peer(connection) as peer,
            httpx.AsyncClient() as browser,
        ):
            await peer.negotiate(client_info=CLIENT)
            first = connection.info.session_id
            await browser.get(url.replace("/mcp", "/forget"))
            assert await text_of(peer, "add", a=2, b=3) == "5"
            assert connection.info.session_id not in (None, first)


async def show_everything(connection: Connection) -> None:
    asked: list[str] = []

    async def sample(request: IncomingRequest) -> dict[str, Any]:
        asked.append(request.method)
        content = {"type": "text", "text": "sampled"}
        return {"role": "assistant", "model": "none", "content": content}

    async def roots(request: IncomingRequest) -> dict[str, Any]:
        asked.append(request.method)
        return {"roots": [{"uri": "file:///here", "name": "here"}]}

    handlers = {"sampling/createMessage": sample, "roots/list": roots}
    async with open_peer(connection, requests=handlers) as peer:
        await peer.negotiate(client_info=CLIENT, capabilities={"sampling": {}, "roots": {"listChanged": True}})
        assert connection.info.era == "legacy"
        assert await text_of(peer, "echo", message="grüß dich") == "Echo: grüß dich"
        assert "sampled" in await text_of(peer, "trigger-sampling-request", prompt="x", maxTokens=10)
        seen: list[float] = []
        slow = {"name": "trigger-long-running-operation", "arguments": {"duration": 0.2, "steps": 2}}
        await peer.request("tools/call", slow, on_progress=lambda step, *_: seen.append(step))
        assert seen == [1, 2]
        assert (await peer.request("prompts/list"))["prompts"]
        assert "sampling/createMessage" in asked


@pytest.mark.deadline(60)
async def test_everything_over_streamable_http(everything_server: list[str]) -> None:
    with trio.fail_after(BOUND):
        async with (
            everything(everything_server, "streamableHttp") as origin,
            open_transport(f"{origin}/mcp") as connection,
        ):
            await show_everything(connection)
            assert connection.info.session_id is not None


@pytest.mark.deadline(60)
@pytest.mark.parametrize("scheme", ["", "sse+"])
async def test_everything_over_http_sse(scheme: str, everything_server: list[str]) -> None:
    """Asked for, and fallen back to."""
    with trio.fail_after(BOUND):
        async with (
            everything(everything_server, "sse") as origin,
            open_transport(f"{scheme}{origin}/sse") as connection,
        ):
            await show_everything(connection)
