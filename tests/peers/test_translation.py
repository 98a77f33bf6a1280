"""Programs on the official SDK, of one era alone, with servers of the other era through a translation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import mcp.types as types
import pytest
import trio
from mcp import Client
from mcp.client import ClientRequestContext
from pydantic import FileUrl

from tests.support.sdk_programs import BOTH, build_server, run_program
from trioxport import open_transport
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.peer import JSONRPCError, open_peer
from trioxport.servers import AsLegacyServer, AsModernServer
from trioxport.transports.memory import MemorySwitch
from trioxport.transports.stdio import Stdio

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # the legacy era
    pytest.mark.deadline(60),
]

MODERN: Final = "2026-07-28"
HTTP: Final = "http://127.0.0.1:0/mcp"
BOUND: Final = 25.0

over_both = pytest.mark.parametrize("over", ["memory", "http"])


@asynccontextmanager
async def sdk_server(over: str = "memory") -> AsyncGenerator[Any]:
    """The target of the SDK's server of ``sdk_programs``, which speaks the era that it is spoken to in."""
    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_sdk, build_server(), HTTP if over == "http" else switch))
        with trio.fail_after(BOUND):
            yield addresses[0] if addresses else switch
        nursery.cancel_scope.cancel()


async def seen_by(mode: str, program: str, over: str = "memory", **options: Any) -> Any:
    async with sdk_server(over) as target:
        return await run_program(mode, program, lambda: sdk_transport(target, **options))


def content_of(seen: dict[str, Any]) -> Any:
    return seen["content"], seen["structured_content"], seen["is_error"]


@over_both
@pytest.mark.parametrize("program", BOTH)
async def test_legacy_programs_see_what_they_see_on_a_legacy_server(program: str, over: str) -> None:
    seen = await seen_by("legacy", program, over, layers=[AsLegacyServer()])
    assert seen == await seen_by("legacy", program)


@over_both
@pytest.mark.parametrize("program", BOTH)
async def test_modern_programs_see_what_they_see_on_a_modern_server(program: str, over: str) -> None:
    seen = await seen_by(MODERN, program, over, layers=[AsModernServer()])
    assert seen == await seen_by(MODERN, program)


@over_both
async def test_a_legacy_program_answers_the_rounds_of_a_modern_server(over: str) -> None:
    seen = await seen_by("legacy", "round_trips", over, layers=[AsLegacyServer()])
    assert content_of(seen) == content_of(await seen_by(MODERN, "round_trips"))


@over_both
async def test_a_modern_program_answers_the_questions_of_a_legacy_server(over: str) -> None:
    seen = await seen_by(MODERN, "questions", over, layers=[AsModernServer()])
    assert [content_of(each) for each in seen] == [content_of(each) for each in await seen_by("legacy", "questions")]


@over_both
async def test_a_legacy_program_subscribes_at_a_modern_server(over: str) -> None:
    updated = trio.Event()

    async def note(message: object) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            assert message.params.uri == "note://todo"
            updated.set()

    async with (
        sdk_server(over) as target,
        Client(sdk_transport(target, layers=[AsLegacyServer()]), mode="legacy", message_handler=note) as client,
    ):
        await client.subscribe_resource("note://todo")
        await client.call_tool("edit", {"name": "todo", "text": "water plants"})
        await updated.wait()
        await client.unsubscribe_resource("note://todo")
        text = (await client.read_resource("note://todo")).contents[0]
        assert isinstance(text, types.TextResourceContents)
        assert text.text == "water plants"


# The server that is to show everything of the legacy era.


@asynccontextmanager
async def everything(command: list[str], **options: Any) -> AsyncGenerator[Client]:
    """A client of the modern era alone."""
    target = Stdio(command[0], command[1:], stderr=lambda line: None)
    with trio.fail_after(BOUND):
        async with Client(sdk_transport(target, layers=[AsModernServer()]), mode=MODERN, **options) as client:
            yield client


def text_of(result: types.CallToolResult) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


async def test_tools_prompts_and_resources_of_everything(everything_server: list[str]) -> None:
    async with everything(everything_server) as client:
        assert {"echo", "trigger-sampling-request"} <= {tool.name for tool in (await client.list_tools()).tools}
        assert text_of(await client.call_tool("echo", {"message": "grüß dich"})) == "Echo: grüß dich"
        assert (await client.get_prompt("args-prompt", {"city": "Ulm"})).messages
        resource = (await client.list_resources()).resources[0]
        assert (await client.read_resource(resource.uri)).contents[0].uri == resource.uri
        ref = types.PromptReference(type="ref/prompt", name="completable-prompt")
        completed = await client.complete(ref, {"name": "department", "value": "E"})
        assert completed.completion.values == ["Engineering"]


async def test_questions_of_everything(everything_server: list[str]) -> None:
    asked: list[str] = []

    async def elicit(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append("url" if isinstance(params, types.ElicitRequestURLParams) else "form")
        return types.ElicitResult(action="accept", content=None if asked[-1] == "url" else {"name": "Ada"})

    async def sample(
        context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult:
        return types.CreateMessageResult(role="assistant", content=types.TextContent(text="sampled"), model="none")

    async def roots(context: ClientRequestContext) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///here"), name="here")])

    options = {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}
    async with everything(everything_server, **options) as client:
        assert "sampled" in text_of(await client.call_tool("trigger-sampling-request", {"prompt": "x"}))
        assert "file:///here" in text_of(await client.call_tool("get-roots-list", {}))
        await client.call_tool("trigger-elicitation-request", {})
        assert asked == ["form"]
        visit = {"url": "https://x.example/", "message": "go", "errorPath": True}
        assert not (await client.call_tool("trigger-url-elicitation", visit)).is_error
        assert asked[1:] and set(asked[1:]) == {"url"}


async def test_a_client_without_capabilities_is_not_asked_by_everything(everything_server: list[str]) -> None:
    async with everything(everything_server) as client:
        refused = await client.call_tool("trigger-sampling-request", {"prompt": "x"})
        assert refused.is_error
        assert "no capability for sampling/createMessage" in text_of(refused)


async def test_progress_logs_and_cancellation_of_everything(everything_server: list[str]) -> None:
    seen: list[float] = []
    logged = trio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.set()

    async with everything(everything_server, logging_callback=log, log_level="debug") as client:
        await client.call_tool("trigger-long-running-operation", {"duration": 0.3, "steps": 3}, progress_callback=note)
        assert sorted(seen) == [1, 2, 3]
        await client.call_tool("toggle-simulated-logging", {})
        await logged.wait()
        with trio.CancelScope() as scope:

            async def leave(progress: float, total: float | None, message: str | None) -> None:
                scope.cancel()

            slow = {"duration": 20, "steps": 200}
            await client.call_tool("trigger-long-running-operation", slow, progress_callback=leave)
        assert scope.cancelled_caught
        assert text_of(await client.call_tool("echo", {"message": "after"})) == "Echo: after"


async def test_a_subscription_at_everything(everything_server: list[str]) -> None:
    uri = "demo://resource/dynamic/text/1"
    async with everything(everything_server) as client, client.listen(resource_subscriptions=[uri]) as subscription:
        assert subscription.honored.resource_subscriptions == [uri]
        await client.call_tool("toggle-subscriber-updates", {})
        assert repr(await anext(subscription)) == f"ResourceUpdated(uri='{uri}')"


async def test_clients_of_the_other_era_are_refused(everything_server: list[str]) -> None:
    """A server of everything that is presented as modern is modern alone."""
    target = Stdio(everything_server[0], everything_server[1:], stderr=lambda line: None)
    async with open_transport(target, layers=[AsModernServer()]) as connection, open_peer(connection) as peer:
        with pytest.raises(JSONRPCError, match="Unsupported protocol version") as caught:
            await peer.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
        assert caught.value.data == {"supported": [MODERN], "requested": "2025-11-25"}
