"""Several servers behind one endpoint: their lists are one list, and each fails for itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import mcp.types as types
import pytest
import trio
from mcp import Client
from trio.testing import wait_all_tasks_blocked

from tests.support.bridges import INITIALIZED, PlayedServer, modern, next_request, refusal
from tests.support.sdk_programs import build_server, on_elicit, on_sample
from trioxport import (
    Connection,
    ErrorResponse,
    Notification,
    Request,
    Response,
    Target,
    UsageError,
    load_servers,
    open_transport,
    serve_transport,
)
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.peer import JSONRPCError, Peer, open_peer
from trioxport.protocol import META, members_of
from trioxport.servers.bridge import Sharing, gathered_session, open_bridge, serve_bridge
from trioxport.transports.memory import MemorySwitch
from trioxport.transports.stdio import Stdio

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the legacy era

ACTING: Final = str(Path(__file__).parents[1] / "programs" / "acting_server.py")
INFO: Final = {"name": "test", "version": "1"}
KEY: Final = META + "subscriptionId"
MODERN: Final = "2026-07-28"
both_modes = pytest.mark.parametrize("sharing", ["shared", "per-session"])
both_eras = pytest.mark.parametrize("mode", ["legacy", MODERN])


@asynccontextmanager
async def gathered(targets: Mapping[str, Target], listen: Target | None = None, **options: Any) -> AsyncGenerator[Any]:
    """A bridge to several servers; yields the target for clients."""
    listen = listen or MemorySwitch()
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_bridge, listen, targets, **options))
        yield addresses[0] if addresses else listen
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def two_sdk_servers(listen: Target | None = None, **options: Any) -> AsyncGenerator[Any]:
    """A bridge to two servers of the official SDK, ``one`` and ``two``."""
    async with trio.open_nursery() as nursery:
        targets = {"one": MemorySwitch(), "two": MemorySwitch()}
        for target in targets.values():
            await nursery.start(partial(serve_sdk, build_server(), target))
        async with gathered(targets, listen, **options) as behind:
            yield behind
        nursery.cancel_scope.cancel()


@both_modes
@both_eras
@pytest.mark.parametrize("listen", [None, "http://127.0.0.1:0/mcp"])
async def test_the_official_sdk_sees_two_servers_as_one(mode: Any, sharing: Sharing, listen: Target | None) -> None:
    async with (
        two_sdk_servers(listen, sharing=sharing) as target,
        Client(sdk_transport(target), mode=mode) as client,
    ):
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert {"one__add", "two__add"} <= set(names)
        assert len(names) == 2 * len({name.partition("__")[2] for name in names})
        result = await client.call_tool("two__add", {"a": 1, "b": 2})
        assert result.structured_content == {"result": 3}
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["one__greet", "two__greet"]
        assert "Ada" in (await client.get_prompt("two__greet", {"name": "Ada"})).model_dump_json()
        assert len((await client.list_resource_templates()).resource_templates) == 2
        assert not (await client.list_resources()).resources
        [note] = (await client.read_resource("note://todo")).contents
        assert isinstance(note, types.TextResourceContents)
        assert note.text == "buy milk"


@both_eras
async def test_questions_and_progress_of_two_servers(mode: Any) -> None:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with (
        two_sdk_servers() as target,
        Client(sdk_transport(target), mode=mode, elicitation_callback=on_elicit, sampling_callback=on_sample) as client,
    ):
        for server in ("one", "two"):
            tool = "ask" if mode == "legacy" else "deploy"
            assert "blue" in (await client.call_tool(f"{server}__{tool}", {})).model_dump_json()
            await client.call_tool(f"{server}__count", {"upto": 3}, progress_callback=note)
    assert sorted(steps) == [1, 1, 2, 2, 3, 3]


async def test_a_subscription_to_two_servers() -> None:
    async with (
        two_sdk_servers() as target,
        Client(sdk_transport(target), mode=MODERN) as client,
        client.listen(resource_subscriptions=["note://todo"]) as subscription,
    ):
        await client.call_tool("two__edit", {"name": "todo", "text": "water plants"})
        assert "note://todo" in repr(await anext(subscription))


async def test_a_cancelled_call_is_cancelled_at_its_server() -> None:
    started = trio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    async with two_sdk_servers() as target, Client(sdk_transport(target), mode=MODERN) as client:
        async with trio.open_nursery() as nursery:
            call = partial(client.call_tool, "one__wait", {"name": "x"}, progress_callback=note)
            nursery.start_soon(call)
            await started.wait()
            nursery.cancel_scope.cancel()
        while (await client.call_tool("one__cancellations", {})).structured_content != {"result": ["x"]}:
            pass
        assert (await client.call_tool("two__cancellations", {})).structured_content == {"result": []}


# Names and mistakes.


async def test_two_servers_with_the_same_prefix_are_refused() -> None:
    with pytest.raises(UsageError, match="the servers 'a b' and 'a_b' have the same prefix a_b__"):
        async with open_bridge({"a b": "memory://1", "a_b": "memory://2"}):
            pytest.fail("opened")


async def test_disabled_servers_are_left_out() -> None:
    servers = load_servers({"mcpServers": {"off": {"url": "memory://off", "disabled": True}}})
    with pytest.raises(UsageError, match="there is no server to bridge to"):
        async with open_bridge(servers):
            pytest.fail("opened")


@asynccontextmanager
async def peer_of(target: Any, era: Any = "legacy", **handlers: Any) -> AsyncGenerator[Peer]:
    async with open_transport(target) as connection, open_peer(connection, **handlers) as peer:
        await peer.negotiate(client_info=INFO, era=era)
        yield peer


async def test_names_that_no_server_has() -> None:
    async with two_sdk_servers() as target, peer_of(target) as peer:
        for method, params in (
            ("tools/call", {"name": "three__add"}),
            ("prompts/get", {"name": 5}),
            ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}}),
        ):
            with pytest.raises(JSONRPCError, match="names begin with one__, two__"):
                await peer.request(method, params)
        with pytest.raises(JSONRPCError, match="have no tasks/list"):
            await peer.request("tasks/list")
        with pytest.raises(JSONRPCError):
            await peer.request("resources/read", {"uri": "note://nothing"})
        assert await peer.request("ping") == {}


@both_modes
async def test_a_server_that_is_down_is_logged_once_until_it_works_again(
    sharing: Sharing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trioxport")
    one, dead = MemorySwitch(), MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_sdk, build_server(), one))
        async with gathered({"one": one, "dead": dead}, sharing=sharing) as target:

            async def use_lists() -> None:
                for era in ("modern", "legacy"):
                    async with peer_of(target, era) as peer:
                        for method in ("tools/list", "prompts/list", "tools/list"):
                            await peer.request(method)

            caplog.clear()
            await use_lists()
            assert [message[:13] for message in caplog.messages] == ["server dead: "]
            await nursery.start(partial(serve_sdk, build_server(), dead))
            caplog.clear()
            await use_lists()
            assert caplog.messages == ["server dead: the connection works again"]
        nursery.cancel_scope.cancel()


# Servers that the test plays.


async def answer_next(played: Connection, method: str, result: Any) -> Request:
    request = await next_request(played)
    assert request.method == method
    await played.tx.send(Response(request.id, result))
    return request


@asynccontextmanager
async def two_played(
    servers: Mapping[str, PlayedServer] | None = None, sharing: Sharing = "shared"
) -> AsyncGenerator[tuple[Connection, Connection, Connection]]:
    """A legacy client that has initialized, and the connections of the bridge to the servers ``one`` and ``two``."""
    servers = servers or {"one": PlayedServer(), "two": PlayedServer()}
    async with trio.open_nursery() as nursery:
        for server in servers.values():
            nursery.start_soon(serve_transport, server.handler, server.switch)
        targets = {name: server.switch for name, server in servers.items()}
        async with gathered(targets, list_timeout=1, sharing=sharing) as target, open_transport(target) as client:
            params = {"protocolVersion": "2025-06-18", "capabilities": {"sampling": {}}, "clientInfo": INFO}
            await client.tx.send(Request(1, "initialize", params))
            one, two = [await server.legacy() for server in servers.values()]
            answer = await client.rx.receive()
            assert isinstance(answer, Response)
            assert answer.result["protocolVersion"] == "2025-06-18"
            assert answer.result["serverInfo"]["name"] == "trioxport bridge"
            await client.tx.send(Notification("notifications/initialized"))
            yield client, one, two
        nursery.cancel_scope.cancel()


async def test_lists_have_all_pages_of_all_servers() -> None:
    async with two_played() as (client, one, two):
        await client.tx.send(Request(2, "tools/list"))
        await answer_next(one, "tools/list", {"tools": [{"name": "a", "odd": 2**70}], "nextCursor": "next"})
        request = await answer_next(one, "tools/list", {"tools": [{"name": "b"}]})
        assert request.params == {"cursor": "next"}
        await answer_next(two, "tools/list", {"tools": [{"name": "a"}]})
        tools = [{"name": "one__a", "odd": 2**70}, {"name": "one__b"}, {"name": "two__a"}]
        assert await client.rx.receive() == Response(2, {"tools": tools})


async def test_a_server_without_a_list_or_with_an_error_is_left_out() -> None:
    async with two_played() as (client, one, two):
        await client.tx.send(Request(2, "prompts/list"))
        await one.tx.send(refusal(await next_request(one)))
        await answer_next(two, "prompts/list", {"prompts": [{"name": "p"}]})
        assert await client.rx.receive() == Response(2, {"prompts": [{"name": "two__p"}]})
        await client.tx.send(Request(3, "prompts/list"))
        for played in (one, two):
            await played.tx.send(ErrorResponse((await next_request(played)).id, -32000, "busy"))
        assert await client.rx.receive() == ErrorResponse(3, -32000, "busy")


async def test_a_list_waits_for_a_silent_server_once(autojump_clock: trio.testing.MockClock) -> None:
    async with two_played() as (client, one, two):
        started = trio.current_time()
        await client.tx.send(Request(2, "tools/list"))
        await answer_next(one, "tools/list", {"tools": [{"name": "a"}]})
        assert await client.rx.receive() == Response(2, {"tools": [{"name": "one__a"}]})
        assert trio.current_time() - started == pytest.approx(1)
        asked = await next_request(two)
        cancelled = await two.rx.receive()
        assert cancelled == Notification("notifications/cancelled", {"requestId": asked.id})


async def test_resources_are_used_at_the_server_that_listed_them() -> None:
    async with two_played() as (client, one, two):
        await client.tx.send(Request(2, "resources/list"))
        await answer_next(one, "resources/list", {"resources": [{"uri": "a:1", "name": "x"}]})
        await answer_next(two, "resources/list", {"resources": [{"uri": "b:1", "name": "x"}]})
        answer = await client.rx.receive()
        assert isinstance(answer, Response)
        assert [each["uri"] for each in answer.result["resources"]] == ["a:1", "b:1"]
        for number, method in enumerate(("resources/subscribe", "resources/read", "resources/unsubscribe")):
            await client.tx.send(Request(f"r{number}", method, {"uri": "b:1"}))
            await answer_next(two, method, {"n": number})
            assert await client.rx.receive() == Response(f"r{number}", {"n": number})
        await client.tx.send(Request("c", "completion/complete", {"ref": {"type": "ref/resource", "uri": "a:1"}}))
        await answer_next(one, "completion/complete", {"completion": {"values": []}})
        assert await client.rx.receive() == Response("c", {"completion": {"values": []}})
        await client.tx.send(Request("p", "completion/complete", {"ref": {"type": "ref/prompt", "name": "two__p"}}))
        request = await answer_next(two, "completion/complete", {})
        assert request.params == {"ref": {"type": "ref/prompt", "name": "p"}}


async def test_questions_of_two_servers_under_the_same_id() -> None:
    async with two_played() as (client, one, two):
        await client.tx.send(Request(2, "tools/call", {"name": "one__t"}))
        call = await next_request(one)
        assert call.params == {"name": "t"}
        same = {"_meta": {"progressToken": "of the servers"}}
        for played, name in ((one, "one"), (two, "two")):
            await played.tx.send(Request(7, "sampling/createMessage", {"of": name, **same}))
        questions: dict[str, Request] = {}
        for _ in range(2):
            question = await next_request(client)
            assert isinstance(question.params, dict)
            questions[question.params["of"]] = question
        token = members_of(members_of(questions["two"].params)["_meta"])["progressToken"]
        await client.tx.send(Notification("notifications/progress", {"progressToken": token, "progress": 1}))
        passed = {"progressToken": "of the servers", "progress": 1}
        assert await two.rx.receive() == Notification("notifications/progress", passed)
        await client.tx.send(Response(questions["two"].id, "for two"))
        assert await two.rx.receive() == Response(7, "for two")
        await one.tx.send(Notification("notifications/cancelled", {"requestId": 7}))
        withdrawn = Notification("notifications/cancelled", {"requestId": questions["one"].id})
        assert await client.rx.receive() == withdrawn
        await client.tx.send(Response(questions["one"].id, "late"))
        await one.tx.send(Request("p", "ping"))
        assert await one.rx.receive() == Response("p", {})
        await one.tx.send(Response(call.id, "done"))
        assert await client.rx.receive() == Response(2, "done")


async def test_the_level_of_logs_is_set_at_all_servers() -> None:
    async with two_played() as (client, one, two):
        await client.tx.send(Request(2, "logging/setLevel", {"level": "error"}))
        assert await client.rx.receive() == Response(2, {})
        for played in (one, two):
            assert (await answer_next(played, "logging/setLevel", {})).params == {"level": "error"}
        await client.tx.send(Notification("notifications/roots/list_changed"))
        for played in (one, two):
            assert await played.rx.receive() == Notification("notifications/roots/list_changed")


async def test_a_client_that_half_closes_gets_its_answers() -> None:
    async with two_played() as (client, one, _):
        await client.tx.send(Request(2, "tools/call", {"name": "one__t"}))
        call = await next_request(one)
        await client.tx.aclose()
        await one.tx.send(Response(call.id, "done"))
        assert await client.rx.receive() == Response(2, "done")
        with pytest.raises(trio.EndOfChannel):
            await client.rx.receive()


async def test_subscriptions_have_one_acknowledgment_and_go_on_after_a_server_ended_its_part(
    autojump_clock: trio.testing.MockClock,
) -> None:
    servers = {"one": PlayedServer(), "two": PlayedServer()}
    async with trio.open_nursery() as nursery:
        for server in servers.values():
            nursery.start_soon(serve_transport, server.handler, server.switch)
        targets = {name: server.switch for name, server in servers.items()}
        async with gathered(targets, list_timeout=5) as target, open_transport(target) as client:
            await client.tx.send(modern("s", "subscriptions/listen", notifications={"toolsListChanged": True}))
            one, two = [await server.modern() for server in servers.values()]
            first, second = await next_request(one), await next_request(two)
            await one.tx.send(acknowledgment(first.id, toolsListChanged=True, resourceSubscriptions=["a:1"]))
            await two.tx.send(acknowledgment(second.id, resourceSubscriptions=["b:1"]))
            granted = {"toolsListChanged": True, "resourceSubscriptions": ["a:1", "b:1"]}
            assert await client.rx.receive() == acknowledgment("s", **granted)
            change = "notifications/tools/list_changed"
            await one.tx.send(Notification(change, {"_meta": {KEY: first.id}}))
            assert await client.rx.receive() == Notification(change, {"_meta": {KEY: "s"}})
            await one.tx.send(Notification("notifications/cancelled", {"requestId": first.id}))
            again = await next_request(one)
            assert again.method == "subscriptions/listen"
            await one.tx.send(acknowledgment(again.id, toolsListChanged=True))
            assert await client.rx.receive() == Notification(change, {"_meta": {KEY: "s"}})
        nursery.cancel_scope.cancel()


def acknowledgment(request_id: Any, **granted: Any) -> Notification:
    meta = {KEY: request_id}
    return Notification("notifications/subscriptions/acknowledged", {"notifications": granted, "_meta": meta})


# Servers that fail.


def acting(acts: Path, *words: str) -> Stdio:
    return Stdio(sys.executable, [ACTING, str(acts), *words], env={"PYTHONPATH": os.pathsep.join(sys.path)})


@both_modes
async def test_of_five_servers_three_fail_and_the_others_answer_as_usual(sharing: Sharing, tmp_path: Path) -> None:
    """One hangs at the start, one dies at the start, and one dies later."""
    targets = {
        "hangs": Stdio(sys.executable, ["-c", "import time; time.sleep(600)"]),
        "dies": Stdio(sys.executable, ["-c", "raise SystemExit(3)"]),
        "falls": acting(tmp_path / "falls"),
        "first": acting(tmp_path / "first"),
        "second": acting(tmp_path / "second"),
    }
    async with (
        gathered(targets, sharing=sharing, list_timeout=2, close_timeout=0.5) as target,
        peer_of(target) as peer,
    ):
        pids = {name: await pid_of(peer, name) for name in ("falls", "first", "second")}
        listed = await peer.request("tools/list", timeout=10)
        assert {tool["name"].partition("__")[0] for tool in listed["tools"]} == {"falls", "first", "second"}
        os.kill(pids["falls"], signal.SIGKILL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pid_of, peer, "hangs")
            await call_both(peer, pids)
            assert nursery.child_tasks
            nursery.cancel_scope.cancel()
        listed = await peer.request("tools/list")
        assert {"first__pid", "second__pid"} <= {tool["name"] for tool in listed["tools"]}
        with pytest.raises(JSONRPCError, match="dies: the server process exited with code 3"):
            await pid_of(peer, "dies")
        revived = pids["falls"]
        while revived == pids["falls"]:
            revived = await pid_if_alive(peer, "falls", revived)
        assert await pid_of(peer, "first") == pids["first"]


async def call_both(peer: Peer, pids: Mapping[str, int]) -> None:
    """Make twenty calls, to the two servers that stay alive in turn."""
    for _ in range(10):
        for name in ("first", "second"):
            assert await pid_of(peer, name) == pids[name]


async def pid_of(peer: Peer, server: str) -> int:
    result = await peer.request("tools/call", {"name": f"{server}__pid"})
    return int(result["structuredContent"]["pid"])


async def pid_if_alive(peer: Peer, server: str, dead: int) -> int:
    """The process that answers; ``dead`` while its death was not noticed yet."""
    try:
        return await pid_of(peer, server)
    except JSONRPCError:
        return dead


@both_modes
async def test_a_revived_server_has_what_its_client_asked_for(sharing: Sharing, tmp_path: Path) -> None:
    acts = tmp_path / "acts"
    changed = trio.Event()

    async def note(notification: Any) -> None:
        changed.set()

    handlers = {"notifications/tools/list_changed": note}
    async with (
        gathered({"acting": acting(acts)}, sharing=sharing) as target,
        peer_of(target, notifications=handlers) as peer,
    ):
        await peer.request("tools/list")
        await peer.request("resources/subscribe", {"uri": "a:1"})
        await peer.request("resources/subscribe", {"uri": "a:2"})
        await peer.request("resources/unsubscribe", {"uri": "a:2"})
        begun = acts.read_text()
        pid = killed = await pid_of(peer, "acting")
        os.kill(pid, signal.SIGKILL)
        while pid == killed:
            pid = await pid_if_alive(peer, "acting", killed)
        while acts.read_text() != f"{begun}resources/subscribe a:1\n":
            await pid_of(peer, "acting")
        await changed.wait()


async def test_a_server_that_refuses_to_initialize() -> None:
    server = PlayedServer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_transport, server.handler, server.switch)
        async with (
            gathered({"one": server.switch}, sharing="per-session") as target,
            open_transport(target) as client,
        ):
            await client.tx.send(Request(1, "tools/call", {"name": "one__t"}))
            played = await server.connection()
            initialize = await next_request(played)
            assert initialize.method == "initialize"
            await played.tx.send(Notification("notifications/message", {"level": "info", "data": "early"}))
            await played.tx.send(ErrorResponse(initialize.id, -32000, "not today"))
            assert isinstance(await client.rx.receive(), Notification)
            answer = await client.rx.receive()
            assert isinstance(answer, ErrorResponse)
            assert answer.message == "one: the server refuses to initialize: not today"
        nursery.cancel_scope.cancel()


async def test_a_server_that_ends_withdraws_its_questions() -> None:
    server = PlayedServer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_transport, server.handler, server.switch)
        async with (
            gathered({"one": server.switch}, sharing="per-session") as target,
            open_transport(target) as client,
        ):
            await client.tx.send(Request(1, "tools/call", {"name": "one__t"}))
            played = await server.connection()
            initialize = await next_request(played)
            await played.tx.send(Response(initialize.id, INITIALIZED))
            await played.rx.receive()
            await next_request(played)
            await played.tx.send(Request(7, "sampling/createMessage", {}))
            question = await next_request(client)
            await played.tx.aclose()
            messages = [await client.rx.receive(), await client.rx.receive()]
            [withdrawn] = [each for each in messages if isinstance(each, Notification)]
            assert withdrawn.params == {"reason": "the server is gone", "requestId": question.id}
            [lost] = [each for each in messages if isinstance(each, ErrorResponse)]
            assert lost.message.startswith("one: ")
        nursery.cancel_scope.cancel()


async def test_servers_without_subscriptions() -> None:
    server = PlayedServer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_transport, server.handler, server.switch)
        async with gathered({"one": server.switch}) as target, open_transport(target) as client:
            await client.tx.send(modern(1, "server/discover"))
            discovered = await client.rx.receive()
            assert isinstance(discovered, Response)
            assert discovered.result["supportedVersions"] == [MODERN]
            await client.tx.send(modern(2, "subscriptions/listen", notifications={}))
            played = await server.modern()
            await played.tx.send(acknowledgment("of another"))
            await played.tx.send(refusal(await next_request(played)))
            assert await client.rx.receive() == acknowledgment(2)
            assert await client.rx.receive() == ErrorResponse(2, -32601, "No server offers subscriptions")
        nursery.cancel_scope.cancel()


@both_modes
async def test_a_server_that_is_lost_withdraws_its_questions_and_gets_no_answer_to_them(sharing: Sharing) -> None:
    servers = {"one": PlayedServer(), "two": PlayedServer()}
    async with two_played(servers, sharing) as (client, one, _):
        await client.tx.send(Request(2, "tools/call", {"name": "one__t"}))
        await next_request(one)
        await one.tx.send(Request(7, "sampling/createMessage", {}))
        question = await next_request(client)
        lose(one)
        messages = [await client.rx.receive() for _ in range(2)]
        [withdrawn] = [message for message in messages if isinstance(message, Notification)]
        assert members_of(withdrawn.params)["requestId"] == question.id
        await client.tx.send(Request(3, "tools/call", {"name": "one__t"}))
        again = await servers["one"].legacy()
        await next_request(again)
        await client.tx.send(Response(question.id, "late"))
        await client.tx.send(Request(4, "tools/call", {"name": "one__t"}))
        assert (await next_request(again)).method == "tools/call"


def lose(played: Connection) -> None:
    played._supervisor.abort()


async def test_requests_while_a_server_that_has_ended_withdraws_its_questions() -> None:
    servers = {"one": PlayedServer(), "two": PlayedServer()}
    async with two_played(servers, "per-session") as (client, one, _), trio.open_nursery() as nursery:
        for number in range(40):  # more than the buffers have room for
            await one.tx.send(Request(number, "sampling/createMessage", {}))
        await wait_all_tasks_blocked()
        await one.tx.aclose()
        await wait_all_tasks_blocked()
        await client.tx.send(Request(2, "tools/call", {"name": "one__t"}))

        async def serve_again() -> None:
            again = await servers["one"].legacy()
            await answer_next(again, "tools/call", {"of": "the new one"})

        nursery.start_soon(serve_again)
        while not isinstance(answer := await client.rx.receive(), Response | ErrorResponse):
            pass
        assert answer == Response(2, {"of": "the new one"})
        nursery.cancel_scope.cancel()


async def test_requests_and_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered_session, "MAX_IN_FLIGHT", 2)
    async with two_played() as (client, one, _):
        for number in (2, 3):
            await client.tx.send(Request(number, "tools/call", {"name": "one__t"}))
            await next_request(one)
            await one.tx.send(Request(number, "sampling/createMessage", {}))
            await next_request(client)
        await client.tx.send(Request(4, "tools/call", {"name": "one__t"}))
        assert await client.rx.receive() == ErrorResponse(4, -32600, "More than 2 requests at once")
        client.scope.in_flight.pop(2)  # type: ignore[attr-defined]  # a client of ours would not send it
        await client.tx.send(Request(2, "tools/call", {"name": "one__t"}))
        assert await client.rx.receive() == ErrorResponse(2, -32600, "A request with this id is in flight")
        await one.tx.send(Request(4, "sampling/createMessage", {}))
        refused = await one.rx.receive()
        assert isinstance(refused, ErrorResponse)
        assert refused.id == 4


async def test_subscriptions_that_begin_while_an_acknowledgment_is_passed_on() -> None:
    server = PlayedServer()

    def listen(name: str) -> Request:
        return modern(name, "subscriptions/listen", notifications={"toolsListChanged": True})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_transport, server.handler, server.switch)
        async with (
            gathered({"one": server.switch}, sharing="per-session", list_timeout=1) as target,
            open_transport(target) as client,
        ):
            await client.tx.send(listen("a"))
            one = await server.modern()
            meta = {KEY: (await next_request(one)).id}
            granted = {"notifications": {"toolsListChanged": True}, "_meta": meta}
            acknowledgment = Notification("notifications/subscriptions/acknowledged", granted)
            await one.tx.send(acknowledgment)
            assert await client.rx.receive() == acknowledgment

            async def acknowledge_again() -> None:
                for _ in range(200):  # more than the buffers have room for
                    await one.tx.send(acknowledgment)

            nursery.start_soon(acknowledge_again)
            await wait_all_tasks_blocked()
            await client.tx.send(listen("b"))
            await wait_all_tasks_blocked()
            for _ in range(200):
                change = await client.rx.receive()
                assert isinstance(change, Notification)
                assert change.method == "notifications/tools/list_changed"
            await client.tx.send(modern("c", "tools/call", name="one__t"))
            while (request := await next_request(one)).method != "tools/call":
                pass
            await one.tx.send(Response(request.id, {"still": "open"}))
            while not isinstance(answer := await client.rx.receive(), Response):
                pass
            assert answer == Response("c", {"still": "open"})
        nursery.cancel_scope.cancel()
