"""Bridges between clients and servers of others: each era on either side, in their own processes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import mcp.types as types
import pytest
import trio
from mcp import Client

from tests.peers.test_http_server import INSPECTOR, PEERS, run
from tests.support.sdk_programs import BOTH, build_server, on_elicit, on_sample, run_program
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.servers.bridge import Sharing, serve_bridge
from trioxport.transports.http.server import HttpServer
from trioxport.transports.stdio import Stdio

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # the legacy era
    pytest.mark.deadline(60),
]

HTTP: Final = "http://127.0.0.1:0/mcp"
MODERN: Final = "2026-07-28"
both_modes = pytest.mark.parametrize("sharing", ["shared", "per-session"])


@asynccontextmanager
async def bridge_to(target: Any, **options: Any) -> AsyncGenerator[str]:
    """The address of a bridge over HTTP."""
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_bridge, HTTP, target, **options))
        yield addresses[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def bridge_to_modern(**options: Any) -> AsyncGenerator[str]:
    """The address of a bridge to the official SDK's server over HTTP without sessions, thus of the modern era alone."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_sdk, build_server(), HttpServer(HTTP, sessions=None), close_timeout=0.5)
        addresses = await nursery.start(serve)
        async with bridge_to(addresses[0], **options) as url:
            yield url
        nursery.cancel_scope.cancel()


def everything(command: list[str]) -> Stdio:
    return Stdio(command[0], command[1:])


# A legacy client and a modern server.


@both_modes
async def test_the_first_typescript_sdk_and_a_modern_server(sharing: Sharing, everything_server: list[str]) -> None:
    async with bridge_to_modern(sharing=sharing) as url:
        seen = await run([everything_server[0], PEERS / "ts_http_client.mjs", url, "first", "", "modern"])
    assert {"add", "ask", "deploy"} <= set(seen.pop("tools"))
    assert seen == {
        "version": "2025-11-25",
        "session": True,
        "counted": "counted",
        "progress": [1, 2, 3],
        "sums": [str(number + 1) for number in range(20)],
        "long": 300_000,
        "failed": True,
        "note": "buy milk",
        "greeting": "Greet Ada",
        "asked": "asked {'colour': 'blue'}",
        "sampled": "It",
        "cancelled": ["one"],
        "updated": "note://todo",
        "after": 404,
    }


@both_modes
async def test_the_python_sdk_of_the_legacy_era_and_a_modern_server(sharing: Sharing) -> None:
    async with bridge_to_modern(sharing=sharing) as url:
        for name in BOTH:
            assert await run_program("legacy", name, lambda: sdk_transport(url))
        updates: list[str] = []
        updated = trio.Event()

        async def note(message: Any) -> None:
            if isinstance(message, types.ResourceUpdatedNotification):
                updates.append(str(message.params.uri))
                updated.set()

        async with Client(sdk_transport(url), mode="legacy", message_handler=note) as client:
            await client.subscribe_resource("note://todo")
            await client.call_tool("edit", {"name": "journal", "text": "day two"})
            await client.call_tool("edit", {"name": "todo", "text": "water plants"})
            await updated.wait()
        assert updates == ["note://todo"]


# A modern client and a legacy server.


async def test_the_second_typescript_sdk_of_the_modern_era_and_the_everything_server(
    everything_server: list[str],
) -> None:
    async with bridge_to(everything(everything_server)) as url:
        seen = await run([everything_server[0], PEERS / "ts_everything_client.mjs", url])
    assert {"echo", "trigger-sampling-request", "trigger-elicitation-request"} <= set(seen.pop("tools"))
    asked = seen.pop("asked")
    sampling, elicitation = [each for each in asked if each != "roots"]
    assert "the weather" in sampling and elicitation == "form"
    assert asked.count("roots") in (1, 2)  # the tool's question, and that of the server itself 350 ms after its start
    assert "Oslo" in seen.pop("prompt")
    uri = "demo://resource/dynamic/text/1"
    assert seen == {
        "version": MODERN,
        "echo": "Echo: grüß dich",
        "sums": ["2", "3", "4"],
        "listed": True,
        "read": uri,
        "completed": ["Engineering"],
        "sampled": True,
        "elicited": True,
        "rooted": True,
        "worked": True,
        "progress": [1, 2],
        "cancelled": True,
        "updated": uri,
        "after": "Echo: after",
    }


async def test_a_modern_client_and_the_everything_server(everything_server: list[str]) -> None:
    async with (
        bridge_to(everything(everything_server)) as url,
        Client(sdk_transport(url), mode=MODERN, elicitation_callback=on_elicit, sampling_callback=on_sample) as client,
    ):
        await use_everything(client)


async def test_a_question_of_an_everything_server_for_one_request(everything_server: list[str]) -> None:
    async with (
        bridge_to(everything(everything_server), sharing="per-session") as url,
        Client(sdk_transport(url), mode=MODERN, sampling_callback=on_sample) as client,
    ):
        assert '"text": "It"' in text_of(await client.call_tool("trigger-sampling-request", {"prompt": "say"}))


async def use_everything(client: Client) -> None:
    tools = {tool.name for tool in (await client.list_tools()).tools}
    assert {"echo", "trigger-sampling-request", "trigger-elicitation-request"} <= tools
    assert text_of(await client.call_tool("echo", {"message": "ü"})) == "Echo: ü"
    assert (await client.list_resources()).resources
    [contents] = (await client.read_resource("demo://resource/dynamic/text/1")).contents
    assert contents.uri == "demo://resource/dynamic/text/1"
    prompt = await client.get_prompt("args-prompt", {"city": "Oslo"})
    assert "Oslo" in prompt.model_dump_json()
    assert '"text": "It"' in text_of(await client.call_tool("trigger-sampling-request", {"prompt": "say"}))
    assert "accept" in (await client.call_tool("trigger-elicitation-request", {})).model_dump_json()


def text_of(result: types.CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, types.TextContent)
    return content.text


async def test_progress_and_cancellation_of_the_everything_server(everything_server: list[str]) -> None:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with bridge_to(everything(everything_server)) as url, Client(sdk_transport(url), mode=MODERN) as client:
        long = {"duration": 0.2, "steps": 2}
        await client.call_tool("trigger-long-running-operation", long, progress_callback=note)
        assert steps
        with trio.move_on_after(0.3) as scope:
            await client.call_tool("trigger-long-running-operation", {"duration": 600, "steps": 2})
        assert scope.cancelled_caught
        assert text_of(await client.call_tool("echo", {"message": "on"})) == "Echo: on"


async def test_a_subscription_to_the_everything_server(everything_server: list[str]) -> None:
    uri = "demo://resource/dynamic/text/1"
    async with bridge_to(everything(everything_server)) as url, Client(sdk_transport(url), mode=MODERN) as client:
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            await client.call_tool("toggle-subscriber-updates", {})
            event = await anext(subscription)
        assert uri in repr(event)


# Programs.


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_and_the_everything_server(era: str, everything_server: list[str], tmp_path: Path) -> None:
    command = [everything_server[0], str(INSPECTOR), "--cli", "--format", "json", "--quiet", "--protocol-era", era]
    environment = {**os.environ, "HOME": str(tmp_path)}
    call = ["--method", "tools/call", "--tool-name", "echo", "--tool-args-json", '{"message": "hi"}']
    async with bridge_to(everything(everything_server)) as url:
        listed = await run([*command, url, "--method", "tools/list"], environment)
        called = await run([*command, url, *call], environment)
    assert "echo" in {tool["name"] for tool in listed["result"]["tools"]}
    assert called["result"]["content"] == [{"type": "text", "text": "Echo: hi"}]
