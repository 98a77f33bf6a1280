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
from trioxport import ConnectError, ConnectionLost, RequestTimeout, Target, UsageError, serve_transport
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.peer import Handlers
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
    with pytest.raises(TypeError, match="open_transport has no option 'layer'"):
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
            assert {tool.server for tool in await servers.tools(within=0.5)} >= {"good", "also-good"}
            assert servers["hangs"].state == "connecting"
            with pytest.raises(ConnectionLost, match="no API_KEY"):
                await servers.call("dies/add")
            with pytest.raises(UsageError, match="no transport for the scheme"):
                await servers.call("wrong/add")
            assert (await servers.call("good/add", {"a": 2, "b": 2})).text == "4"
            assert (await servers.call("killed/add", {"a": 2, "b": 3})).text == "5"  # it is started anew


async def kill(servers: Servers, name: str) -> None:
    client = await servers[name].connected()
    pid = client.peer.connection.info.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while servers[name].state == "open":
        await trio.testing.wait_all_tasks_blocked()


async def test_a_server_that_does_not_open_the_conversation(autojump_clock: trio.testing.MockClock) -> None:
    async def mute(connection: Any) -> None:
        await trio.sleep_forever()

    switch = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, mute, switch)
        async with group({"mute": switch}, connect_timeout=7) as servers:
            started = trio.current_time()
            with pytest.raises(RequestTimeout, match="mute: the server did not open the conversation within 7 s"):
                await servers.call("mute/any")
            assert trio.current_time() - started == pytest.approx(7, abs=0.5)
            assert isinstance(servers["mute"].error, RequestTimeout)
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
