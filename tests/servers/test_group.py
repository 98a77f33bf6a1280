"""Groups of servers: each fails alone, and is connected anew when it is used."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.support.sdk_programs import build_server
from trioxport import (
    Backoff,
    CircuitOpen,
    ConnectError,
    Connection,
    ConnectionLost,
    Reconnect,
    RequestTimeout,
    Target,
    UsageError,
    serve_transport,
)
from trioxport.config import ServerConfig
from trioxport.config.server import ConfiguredTarget
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.layers import CircuitBreaker
from trioxport.peer import Handlers, IncomingRequest, JSONRPCError, open_peer
from trioxport.protocol import METHOD_NOT_FOUND
from trioxport.servers import Servers, open_servers
from trioxport.transports.memory import Memory, MemorySwitch
from trioxport.transports.stdio import Stdio

INFO: Final = {"name": "test", "version": "1"}
SDK_SERVER: Final = str(Path(__file__).parents[1] / "peers" / "sdk_server.py")


def program(*arguments: str) -> Stdio:
    return Stdio(sys.executable, arguments, stderr=lambda line: None)


async def elicit(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"action": "accept", "content": {"colour": "blue"}}


@asynccontextmanager
async def served() -> AsyncGenerator[MemorySwitch]:
    """A target at which the SDK's server of ``sdk_programs`` is served."""
    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_sdk, build_server(), switch))
        yield switch
        nursery.cancel_scope.cancel()


def group(config: Mapping[str, Target], **options: Any) -> Any:
    return open_servers(config, client_info=INFO, **options)


async def test_tools_of_all_servers_and_calls_by_name() -> None:
    async with served() as switch, group({"one": switch, "two": switch}, handlers=Handlers(elicit=elicit)) as servers:
        names = {tool.name for tool in await servers.tools()}
        assert {"one/add", "two/add"} <= names
        assert (await servers.call("two/add", {"a": 1, "b": 2})).text == "3"
        assert (await servers.call("one/deploy")).text == "asked {'colour': 'blue'}"
        [contents] = await servers["one"].read_resource("note://todo")
        assert contents.text == "buy milk"
        assert (await servers["one"].get_prompt("greet", {"name": "Ada"})).messages
        assert {name: upstream.state for name, upstream in servers.items()} == {"one": "open", "two": "open"}
    assert {upstream.state for upstream in servers.values()} == {"closed"}
    with pytest.raises(ConnectionLost, match="the block of this server has been left"):
        await servers.call("one/add")


async def test_names_that_are_not_there() -> None:
    async with served() as switch, group({"files": switch}, lazy=True) as servers:
        with pytest.raises(UsageError, match=r"there is no server 'file'\. Did you mean 'files'"):
            await servers.call("file/read")
        with pytest.raises(UsageError, match="'read' names no server"):
            await servers.call("read")
        assert servers["files"].state == "idle"
        assert "file" not in servers
        assert (await servers["files"].request("tools/list"))["tools"]
        assert servers["files"].state == "open"


async def test_an_option_that_does_not_exist_is_the_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="open_servers has no option 'layer', did you mean 'layers'"):
        async with group({"one": Memory("nobody")}, layer=[]):
            pytest.fail("opened")


async def test_of_five_servers_three_fail_and_the_others_answer_as_usual() -> None:
    """One hangs at its start, one dies at its start, one is killed later; a wrong target is another."""
    config: dict[str, Target] = {
        "good": program(SDK_SERVER),
        "also-good": program(SDK_SERVER),
        "hangs": program("-c", "import time; time.sleep(60)"),
        "dies": program("-c", "raise SystemExit('no API_KEY')"),
        "killed": program(SDK_SERVER),
        "wrong": "no-such-scheme://here",
    }
    with trio.fail_after(25):
        async with group(config, close_timeout=0.5) as servers:
            assert servers["wrong"].state == "idle"
            for name in ("good", "also-good", "killed"):
                assert (await servers.call(f"{name}/add", {"a": 1, "b": 2})).text == "3"
            await kill(servers, "killed")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(servers.tools, within=20))  # it waits for the one that hangs
                await call_both(servers)
                assert nursery.child_tasks
                nursery.cancel_scope.cancel()
            assert {tool.server for tool in await servers.tools(within=0.5)} >= {"good", "also-good"}
            assert servers["hangs"].state == "connecting"
            with pytest.raises(ConnectionLost, match="no API_KEY"):
                await servers.call("dies/add")
            with pytest.raises(UsageError, match="no transport for the scheme"):
                await servers.call("wrong/add")
            assert (await servers.call("good/add", {"a": 2, "b": 2})).text == "4"
            assert (await servers.call("killed/add", {"a": 2, "b": 3})).text == "5"  # it is started anew


async def call_both(servers: Servers) -> None:
    """Make twenty calls, to two servers in turn."""
    for number in range(10):
        for name in ("good", "also-good"):
            assert (await servers.call(f"{name}/add", {"a": number, "b": 2})).text == str(number + 2)


async def kill(servers: Servers, name: str) -> None:
    upstream = servers[name]
    assert upstream.connection is not None
    pid = upstream.connection.info.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async for state in upstream.state_changes():
        if state == "failed":
            break
    assert upstream.connection is None


async def test_a_server_that_does_not_open_the_conversation(autojump_clock: trio.testing.MockClock) -> None:
    async def mute(connection: Any) -> None:
        await trio.sleep_forever()

    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, mute, switch)
        configured = ServerConfig("slow", ConfiguredTarget("slow", switch), connect_timeout=40)
        async with group({"mute": switch}, connect_timeout=7) as servers, group({"slow": configured}) as others:
            started = trio.current_time()
            with pytest.raises(RequestTimeout, match="mute: the server did not open the conversation within 7 s"):
                await servers.call("mute/any")
            assert trio.current_time() - started == pytest.approx(7, abs=0.5)
            with pytest.raises(RequestTimeout, match="slow: the server did not open the conversation within 40 s"):
                await others.call("slow/any")
            assert isinstance(servers["mute"].error, RequestTimeout)
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer_is_left_out_and_says_why(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def discover(request: IncomingRequest) -> Any:
        return {"supportedVersions": ["2026-07-28"], "capabilities": {}}

    async def hang(request: IncomingRequest) -> Any:
        await trio.sleep_forever()

    async def handler(connection: Connection) -> None:
        async with open_peer(connection, requests={"server/discover": discover, "tools/list": hang}) as peer:
            await peer.wait_finished()

    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handler, switch)
        async with group({"slow": switch}) as servers:
            assert not await servers.tools(within=2)
            assert isinstance(servers["slow"].error, RequestTimeout)
            assert "no answer to tools/list within 2 s" in caplog.text
        nursery.cancel_scope.cancel()


async def test_each_use_tries_again() -> None:
    name = "memory://late"
    async with group({"late": name}) as servers:
        with pytest.raises(ConnectError):
            await servers.call("late/add")
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_sdk, build_server(), name))
            assert (await servers.call("late/add", {"a": 1, "b": 1})).text == "2"
            nursery.cancel_scope.cancel()


async def test_a_server_that_gave_up_to_reconnect_is_revived_by_its_next_use(
    caplog: pytest.LogCaptureFixture,
) -> None:
    switch = MemorySwitch()
    policy = Reconnect(attempts=2, backoff=Backoff(base=0.02), after_end=True)
    async with group({"one": switch}, reconnect=policy) as servers:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_sdk, build_server(), switch))
            assert (await servers.call("one/add", {"a": 1, "b": 2})).text == "3"
            switch.cut()
            assert (await servers.call("one/add", {"a": 2, "b": 2})).text == "4"  # the policy has connected it again
            assert "server one" not in caplog.text
            nursery.cancel_scope.cancel()
        async for state in servers["one"].state_changes():
            if state == "failed":
                break
        with pytest.raises(ConnectError):
            await servers.call("one/add")
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_sdk, build_server(), switch))
            assert (await servers.call("one/add", {"a": 3, "b": 2})).text == "5"
            nursery.cancel_scope.cancel()


async def test_handlers_that_are_given_once_answer_servers_of_both_eras(everything_server: list[str]) -> None:
    asked: list[tuple[str, str]] = []

    def handlers_of(server: str) -> Handlers:
        async def elicit(params: Mapping[str, Any]) -> Mapping[str, Any]:
            asked.append((server, "elicit"))
            return {"action": "accept", "content": {"name": "Ada", "colour": "blue"}}

        async def sample(params: Mapping[str, Any]) -> Mapping[str, Any]:
            asked.append((server, "sample"))
            return {"role": "assistant", "content": {"type": "text", "text": "It rains"}, "model": "none"}

        async def roots() -> list[str]:
            asked.append((server, "roots"))
            return ["file:///home/ada"]

        return Handlers(elicit=elicit, sample=sample, roots=roots)

    config: dict[str, Target] = {
        "legacy": Stdio(everything_server[0], everything_server[1:], stderr="ignore"),
        "modern": program(SDK_SERVER),
    }
    async with served() as switch, group({**config, "round-trips": switch}, handlers=handlers_of) as servers:
        seen: list[float] = []
        arguments = {"duration": 0.4, "steps": 4}
        result = await servers.call(
            "legacy/trigger-long-running-operation",
            arguments,
            on_progress=lambda progress, total, message: seen.append(progress),
        )
        assert not result.is_error
        assert seen[-1:] == [4]
        assert "Ada" in (await servers.call("legacy/trigger-elicitation-request")).text
        assert "It rains" in (await servers.call("legacy/trigger-sampling-request", {"prompt": "How?"})).text
        assert "/home/ada" in (await servers.call("legacy/get-roots-list")).text
        assert (await servers.call("round-trips/deploy")).text.startswith("asked")
        eras = [(await servers[name].connected()).server.era for name in servers]
        assert eras == ["legacy", "modern", "modern"]
    assert {*asked} == {("legacy", "elicit"), ("legacy", "sample"), ("legacy", "roots"), ("round-trips", "elicit")}


async def test_a_function_makes_layers_for_each_server() -> None:
    made: dict[str, CircuitBreaker] = {}

    def layers_of(server: str) -> list[CircuitBreaker]:
        made[server] = CircuitBreaker(failures=1)
        return [made[server]]

    async def fail(connection: Connection) -> None:
        await connection.rx.receive()

    broken = MemorySwitch()
    async with served() as switch, trio.open_nursery() as nursery:
        await nursery.start(serve_transport, fail, broken)
        async with group({"good": switch, "bad": broken}, layers=layers_of, lazy=True) as servers:
            with pytest.raises(ConnectionLost):
                await servers.call("bad/add")
            with pytest.raises(CircuitOpen):
                await servers.call("bad/add")
            assert (await servers.call("good/add", {"a": 1, "b": 2})).text == "3"
        nursery.cancel_scope.cancel()
    assert {name: breaker.state for name, breaker in made.items()} == {"good": "closed", "bad": "open"}


async def test_names_of_servers_may_have_slashes() -> None:
    async with served() as switch, group({"io.example": switch, "io.example/files": switch}, lazy=True) as servers:
        assert (await servers.call("io.example/files/add", {"a": 1, "b": 2})).text == "3"
        assert servers["io.example"].state == "idle"
        assert (await servers.call("io.example/add", {"a": 1, "b": 3})).text == "4"


async def test_the_states_of_a_server() -> None:
    seen: list[str] = []
    async with served() as switch, trio.open_nursery() as nursery, group({"one": switch}, lazy=True) as servers:

        async def watch() -> None:
            seen.extend([state async for state in servers["one"].state_changes()])

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        await servers.call("one/add", {"a": 1, "b": 2})
        await trio.testing.wait_all_tasks_blocked()
    assert seen == ["idle", "connecting", "open", "closed"]


async def test_everything_else_of_a_server() -> None:
    async with served() as switch, group({"one": switch}) as servers:
        one = servers["one"]
        assert await one.list_resources() == []
        [template] = await one.list_resource_templates()
        assert template.uri_template == "note://{name}"
        [prompt] = await one.list_prompts()
        assert prompt.name == "greet"
        with pytest.raises(JSONRPCError, match="Method not found"):  # this server completes nothing
            await one.complete(prompt, "name", "A")
        async with one.subscribe(uris=["note://todo"]) as changes:
            await one.call_tool("edit", {"name": "todo", "text": "water plants"})
            assert (await anext(changes)).method == "notifications/resources/updated"


@pytest.mark.parametrize(
    ("code", "logged"), [(METHOD_NOT_FOUND, ""), (-32603, "server one: its tools cannot be listed: broken")]
)
async def test_a_server_whose_tools_cannot_be_listed(code: int, logged: str, caplog: pytest.LogCaptureFixture) -> None:
    async def discover(request: IncomingRequest) -> Any:
        return {"supportedVersions": ["2026-07-28"], "capabilities": {}, "serverInfo": INFO}

    async def refuse(request: IncomingRequest) -> Any:
        raise JSONRPCError(code, "broken")

    async def handler(connection: Connection) -> None:
        async with open_peer(connection, requests={"server/discover": discover, "tools/list": refuse}) as peer:
            await peer.wait_finished()

    switch = MemorySwitch()
    async with served() as good, trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handler, switch)
        async with group({"one": switch, "two": good}) as servers:
            assert {tool.server for tool in await servers.tools()} == {"two"}
            assert (servers["one"].state, servers["one"].error is None) == ("open", not logged)
        nursery.cancel_scope.cancel()
    assert logged in caplog.text
    assert bool(caplog.records) == bool(logged)
