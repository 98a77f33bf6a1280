"""The typed client against servers of the official SDK, in both eras, and against answers of wrong shapes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.scripted_connection import ScriptedPeer
from tests.support.sdk_programs import build_server
from trioxport import (
    Connection,
    ConnectionLost,
    Notification,
    ProtocolViolation,
    RequestTimeout,
    open_transport,
    serve_transport,
)
from trioxport.abc import Era
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.peer import (
    Client,
    Content,
    Handlers,
    IncomingRequest,
    JSONRPCError,
    ResourceContents,
    Subscription,
    Tool,
    open_client,
    open_peer,
    subscriptions,
)
from trioxport.protocol import members_of
from trioxport.transports.memory import MemorySwitch, MemoryWire
from trioxport.transports.stdio import Stdio

INFO: Final = {"name": "test", "version": "1"}
each_era = pytest.mark.parametrize("era", ["modern", "legacy"])


async def elicit(params: Mapping[str, Any]) -> Mapping[str, Any]:
    assert params["message"] == "Which colour?"
    return {"action": "accept", "content": {"colour": "blue"}}


async def sample(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": "assistant", "content": {"type": "text", "text": "It"}, "model": "none"}


ANSWERING: Final = Handlers(elicit=elicit, sample=sample)


@asynccontextmanager
async def sdk_client(era: Era, handlers: Handlers = ANSWERING) -> AsyncGenerator[Client]:
    """A client of the server of ``sdk_programs``."""
    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_sdk, build_server(), switch))
        async with (
            open_transport(switch) as connection,
            open_client(connection, client_info=INFO, handlers=handlers, era=era) as client,
        ):
            yield client
        nursery.cancel_scope.cancel()


@each_era
class TestOfficialServer:
    async def test_tools(self, era: Era) -> None:
        async with sdk_client(era) as client:
            tools = {tool.name: tool for tool in await client.list_tools()}
            assert tools["add"].input_schema["required"] == ["a", "b"]
            added = await client.call_tool("add", {"a": 1, "b": 2})
            assert (added.text, added.structured, added.is_error) == ("3", {"result": 3}, False)
            failed = await client.call_tool("fail")
            assert failed.is_error
            assert failed.text

    async def test_progress(self, era: Era) -> None:
        seen: list[float] = []
        async with sdk_client(era) as client:
            result = await client.call_tool(
                "count", {"upto": 3}, on_progress=lambda done, total, text: seen.append(done)
            )
        assert result.text == "counted"
        assert sorted(seen) == [1, 2, 3]

    async def test_resources_and_prompts(self, era: Era) -> None:
        async with sdk_client(era) as client:
            assert client.server.era == era
            [template] = await client.list_resource_templates()
            assert template.uri_template == "note://{name}"
            assert not await client.list_resources()
            [contents] = await client.read_resource("note://todo")
            assert (contents.text, contents.data) == ("buy milk", b"buy milk")
            [prompt] = await client.list_prompts()
            assert [(argument.name, argument.required) for argument in prompt.arguments] == [("name", True)]
            [message] = (await client.get_prompt("greet", {"name": "Ada"})).messages
            assert (message.role, message.content.text) == ("user", "Greet Ada")

    async def test_an_error_of_the_server(self, era: Era) -> None:
        async with sdk_client(era) as client:
            with pytest.raises(JSONRPCError):
                await client.get_prompt("unknown")

    async def test_a_watched_resource(self, era: Era) -> None:
        async with sdk_client(era) as client:
            if era == "legacy":  # the server of the SDK has no resources/subscribe in this era
                with pytest.raises(JSONRPCError):
                    async with client.subscribe(uris=["note://todo"]):
                        pytest.fail("subscribed")
                return
            async with client.subscribe(uris=["note://todo"]) as changes:
                assert changes.honored == {"resourceSubscriptions": ["note://todo"]}
                await client.call_tool("edit", {"name": "journal", "text": "day two"})
                await client.call_tool("edit", {"name": "todo", "text": "water plants"})
                change = await anext(changes)
                assert isinstance(change.params, dict)
                assert change.params["uri"] == "note://todo"


class TestQuestions:
    async def test_a_modern_server_asks_by_a_round_trip(self) -> None:
        async with sdk_client("modern") as client:
            assert (await client.call_tool("deploy")).text == "asked {'colour': 'blue'}"

    @pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
    async def test_a_legacy_server_asks_by_requests(self) -> None:
        async with sdk_client("legacy") as client:
            assert (await client.call_tool("ask")).text == "accept blue"
            assert (await client.call_tool("sample")).text == "It"

    async def test_roots_and_log_messages(self) -> None:
        logged: list[Any] = []

        async def log(params: Mapping[str, Any]) -> None:
            logged.append(params["data"])

        async def roots() -> list[str]:
            return ["file:///home/ada"]

        async def call(request: IncomingRequest) -> Any:
            await request.peer.notify("notifications/message", {"level": "info", "data": "asking"})
            listed = await request.peer.request("roots/list")
            return {"content": [{"type": "text", "text": listed["roots"][0]["uri"]}]}

        async with scripted(call, handlers=Handlers(roots=roots, log=log)) as client:
            assert (await client.call_tool("any")).text == "file:///home/ada"
        assert logged == ["asking"]

    async def test_a_question_that_was_not_offered(self) -> None:
        async with scripted(needing({"method": "sampling/createMessage"})) as client:
            with pytest.raises(ProtocolViolation, match="asks for 'sampling/createMessage', which this client did not"):
                await client.call_tool("any")

    async def test_a_server_that_only_wants_to_be_asked_again(self, autojump_clock: trio.abc.Clock) -> None:
        asked: list[Any] = []

        async def call(request: IncomingRequest) -> Any:
            asked.append(request.params.get("requestState"))
            if len(asked) < 3:
                return {"resultType": "input_required", "requestState": f"state {len(asked)}"}
            return {"content": []}

        async with scripted(call) as client:
            await client.call_tool("any")
        assert asked == [None, "state 1", "state 2"]

    async def test_a_server_that_asks_for_ever(self, autojump_clock: trio.abc.Clock) -> None:
        async def call(request: IncomingRequest) -> Any:
            return {"resultType": "input_required", "requestState": "more"}

        async with scripted(call) as client:
            with pytest.raises(ProtocolViolation, match="tools/call needs more input after 32 rounds"):
                await client.call_tool("any")


def needing(*requests: Any) -> Any:
    async def call(request: IncomingRequest) -> Any:
        return {"resultType": "input_required", "inputRequests": dict(zip("abc", requests, strict=False))}

    return call


@asynccontextmanager
async def scripted(
    call: Any,
    method: str = "tools/call",
    *,
    handlers: Handlers = Handlers(),
) -> AsyncGenerator[Client]:
    """A client of a modern server that answers one method."""

    async def discover(request: IncomingRequest) -> Any:
        return {"supportedVersions": ["2026-07-28"], "capabilities": {}, "serverInfo": INFO}

    async def handler(connection: Connection) -> None:
        async with open_peer(connection, requests={method: call, "server/discover": discover}) as peer:
            await peer.wait_finished()

    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handler, switch)
        async with (
            open_transport(switch) as connection,
            open_client(connection, client_info=INFO, handlers=handlers) as client,
        ):
            yield client
        nursery.cancel_scope.cancel()


class TestShapes:
    @pytest.mark.parametrize(
        ("result", "told"),
        [
            ({}, "the answer to tools/list has no array 'tools'"),
            ({"tools": [3]}, r"tools/list: tools\[0\] is no JSON object"),
            ({"tools": [{"inputSchema": {}}]}, r"tools/list: tools\[0\] has no member 'name'"),
            ({"tools": [{"name": True}]}, r"tools/list: tools\[0\].name is of the type bool"),
        ],
    )
    async def test_an_answer_of_the_wrong_shape(self, result: Any, told: str) -> None:
        async def listing(request: IncomingRequest) -> Any:
            return result

        async with scripted(listing, "tools/list") as client:
            with pytest.raises(ProtocolViolation, match=told):
                await client.list_tools()

    @pytest.mark.parametrize("encoded", ["!", "abc", "\u00e9", "\ud800"])
    def test_what_is_no_base64(self, encoded: str) -> None:
        for block in (ResourceContents("a:", blob=encoded), Content("image", encoded=encoded)):
            with pytest.raises(ProtocolViolation, match="is no Base64"):
                _ = block.data

    def test_a_text_that_has_no_utf_8(self) -> None:
        assert ResourceContents("a:", text="\ud800").data == b"\xed\xa0\x80"

    async def test_unknown_members_are_kept(self) -> None:
        async def listing(request: IncomingRequest) -> Any:
            return {"tools": [{"name": "a", "inputSchema": {"type": "object"}, "icons": [], "_meta": {"x": 1}}]}

        async with scripted(listing, "tools/list") as client:
            assert await client.list_tools() == [Tool("a", {"type": "object"}, extra={"icons": [], "_meta": {"x": 1}})]

    async def test_pages(self) -> None:
        async def listing(request: IncomingRequest) -> Any:
            page = int(request.params.get("cursor", "0"))
            return {"tools": [{"name": str(page)}], **({"nextCursor": str(page + 1)} if page < 4 else {})}

        async with scripted(listing, "tools/list") as client:
            assert [tool.name for tool in await client.list_tools()] == ["0", "1", "2", "3", "4"]

    async def test_pages_in_a_circle(self) -> None:
        async def listing(request: IncomingRequest) -> Any:
            return {"tools": [], "nextCursor": "again"}

        async with scripted(listing, "tools/list") as client:
            with pytest.raises(ProtocolViolation, match="gives the cursor of a page again"):
                await client.list_tools()


class AnsweringPeer(ScriptedPeer):
    async def answer_next(self, *methods: str) -> None:
        for method in methods:
            request = await self.request()
            assert request.method == method
            self.answer(request, {})


@asynccontextmanager
async def scripted_client(era: Era, handlers: Handlers = Handlers()) -> AsyncGenerator[tuple[Client, AnsweringPeer]]:
    """A client that has negotiated with the test."""
    server = AnsweringPeer()

    async def negotiate() -> None:
        info = {"capabilities": {}, "serverInfo": INFO}
        answer = {"supportedVersions": ["2026-07-28"], "protocolVersion": "2025-11-25", **info}
        server.answer(await server.request(), answer)
        if era == "legacy":
            await server.sent()

    async with open_transport(server) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(negotiate)
        async with open_client(connection, client_info=INFO, handlers=handlers, era=era) as client:
            yield client, server


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


def note(method: str, subscription: Any, **params: Any) -> Notification:
    meta = {"io.modelcontextprotocol/subscriptionId": subscription}
    return Notification(f"notifications/{method}", {"_meta": meta, **params})


def params_of(message: Any) -> Mapping[str, Any]:
    return members_of(message.params)


class TestSubscriptions:
    async def test_one_that_is_not_acknowledged(self, autojump_clock: trio.abc.Clock) -> None:
        async def listen(request: IncomingRequest) -> Any:
            await trio.sleep_forever()

        async with scripted(listen, "subscriptions/listen") as client:
            with pytest.raises(RequestTimeout, match="did not acknowledge the subscription within 60 s"):
                async with client.subscribe(tools=True):
                    pytest.fail("subscribed")

    async def test_one_that_the_server_ends(self) -> None:
        async def listen(request: IncomingRequest) -> Any:
            meta = {"io.modelcontextprotocol/subscriptionId": request.id}
            await request.peer.notify(
                "notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": {"toolsListChanged": True}}
            )
            for _ in range(3):
                await request.peer.notify("notifications/tools/list_changed", {"_meta": meta})
            return {"resultType": "complete", "_meta": meta}

        async with scripted(listen, "subscriptions/listen") as client, client.subscribe(tools=True) as changes:
            assert changes.honored == {"toolsListChanged": True}
            heard = [change.method async for change in changes]
        assert set(heard) == {"notifications/tools/list_changed"}

    async def test_one_that_was_given_up_is_not_taken_for_the_next(self) -> None:
        async with scripted_client("modern") as (client, server):
            with trio.CancelScope() as giving_up:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_when_blocked, giving_up)
                    async with client.subscribe(tools=True):
                        pytest.fail("subscribed")
            given_up = await server.request()
            assert params_of(await server.sent()) == {"requestId": given_up.id}

            async def acknowledge_both() -> None:
                listening = await server.request()
                for number in (given_up.id, listening.id):
                    filters = {"toolsListChanged": True, "n": number}
                    server.say(note("subscriptions/acknowledged", number, notifications=filters))
                for number in (given_up.id, listening.id):
                    server.say(note("tools/list_changed", number, n=number))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(acknowledge_both)
                async with client.subscribe(tools=True) as changes:
                    assert changes.honored["n"] != given_up.id
                    assert params_of(await anext(changes))["n"] == changes.honored["n"]

    async def test_a_resource_stays_subscribed_to_while_another_one_opens(self) -> None:
        async with scripted_client("legacy") as (client, server), trio.open_nursery() as nursery:
            may_close = trio.Event()

            async def watch() -> None:
                async with client.subscribe(uris=["a:/"]) as changes:
                    assert params_of(await anext(changes)) == {"uri": "a:/part"}
                    await may_close.wait()

            async with trio.open_nursery() as opening:
                opening.start_soon(server.answer_next, "resources/subscribe")
                async with client.subscribe(uris=["a:/"]):
                    nursery.start_soon(watch)
                    second = await server.request()
            server.answer(second, {})
            for uri in (["a:/"], "b:/part", "a:/part"):
                server.say(Notification("notifications/resources/updated", {"uri": uri}))
            await wait_all_tasks_blocked()
            assert server.nothing_sent()
            may_close.set()
            await server.answer_next("resources/unsubscribe")

    @each_era
    async def test_changes_from_before_the_end_come_before_it(self, era: Era) -> None:
        """Although another notification is still being handled."""
        release = trio.Event()

        async def log(params: Mapping[str, Any]) -> None:
            await release.wait()

        heard: list[str] = []
        over = trio.Event()

        async def hear(client: Client) -> None:
            nonlocal heard
            with suppress(ConnectionLost):
                async with client.subscribe(uris=["a:"]) as changes:
                    async for change in changes:
                        heard += [change.method]
            over.set()

        async with scripted_client(era, Handlers(log=log)) as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(hear, client)
            listening = await server.request()
            if era == "modern":
                server.say(note("subscriptions/acknowledged", listening.id))
            else:
                server.answer(listening, {})
            await wait_all_tasks_blocked()
            server.say(Notification("notifications/message", {"level": "info"}))
            server.say(note("resources/updated", listening.id if era == "modern" else None, uri="a:"))
            if era == "modern":
                server.answer(listening, {})
            else:
                server.lose()
            await wait_all_tasks_blocked()
            assert not heard
            release.set()
            await over.wait()
        assert heard == ["notifications/resources/updated"]

    async def test_a_block_that_fails_ends_its_subscription(self) -> None:
        async with scripted_client("legacy") as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(server.answer_next, "resources/subscribe", "resources/unsubscribe")
            with pytest.raises(ValueError, match="of the block"):
                async with client.subscribe(uris=["a:"]):
                    raise ValueError("of the block")

    async def test_changes_that_are_not_taken_are_bounded(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(subscriptions, "MAX_CHANGES", 2)
        subscription = Subscription((), ())
        for uri in "abc":
            subscription.add(Notification("notifications/resources/updated", {"uri": uri}))
        assert "a change is dropped" in caplog.text
        subscription.end()
        assert [params_of(change)["uri"] async for change in subscription] == ["b", "c"]

    @each_era
    async def test_a_lost_connection(self, era: Era) -> None:
        async def initialize(request: IncomingRequest) -> Any:
            return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": INFO}

        async def listen(request: IncomingRequest) -> Any:
            meta = {"io.modelcontextprotocol/subscriptionId": request.id}
            await request.peer.notify("notifications/subscriptions/acknowledged", {"_meta": meta})
            await trio.sleep_forever()

        async def discover(request: IncomingRequest) -> Any:
            return {"supportedVersions": ["2026-07-28"], "capabilities": {}}

        requests = {"initialize": initialize, "server/discover": discover, "subscriptions/listen": listen}
        wire = MemoryWire(9)
        with pytest.raises(ConnectionLost, match="cut"):
            async with open_transport(wire.server) as served, open_peer(served, requests=requests):
                await self.lose(wire, era)

    async def lose(self, wire: MemoryWire, era: Era) -> None:
        async with (
            open_transport(wire.client) as connection,
            open_client(connection, client_info=INFO, era=era) as client,
            client.subscribe(tools=True) as changes,
        ):
            wire.cut()
            with pytest.raises(ConnectionLost, match="cut"):
                await anext(changes)


async def test_the_everything_server(everything_server: list[str]) -> None:
    """Resources with bytes, pages, completion, sampling and elicitation of a server that nobody here wrote."""
    target = Stdio(everything_server[0], everything_server[1:], stderr=lambda line: None)
    handlers = Handlers(elicit=partial(_decline), sample=sample)
    async with (
        open_transport(target) as connection,
        open_client(connection, client_info=INFO, handlers=handlers) as client,
    ):
        tools = {tool.name for tool in await client.list_tools()}
        assert "echo" in tools
        assert (await client.call_tool("echo", {"message": "hi"})).text == "Echo: hi"
        image = (await client.call_tool("get-tiny-image")).content[1]
        assert (image.type, image.mime_type, image.data[1:4]) == ("image", "image/png", b"PNG")
        prompts = {prompt.name: prompt for prompt in await client.list_prompts()}
        assert (await client.get_prompt("simple-prompt")).messages[0].content.text
        completable = prompts["completable-prompt"]
        assert (await client.complete(completable, completable.arguments[0].name, "E")).values
        resources = await client.list_resources()
        assert (await client.read_resource(resources[0].uri))[0].text
        async with client.subscribe(uris=["demo://resource/dynamic/text/1"]) as changes:
            assert changes.honored == {"resourceSubscriptions": ["demo://resource/dynamic/text/1"]}


async def _decline(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"action": "decline"}
