"""Dial-out: a server that connects to a hub."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any, Final

import pytest
import trio

from tests.support.sdk_programs import build_server
from trioxport import Connection, Reconnect, ServerUnreachable, Target, UsageError, serve_transport
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.layers import Backoff
from trioxport.peer import open_client, open_peer
from trioxport.transports.dial import Dial
from trioxport.transports.grpc import Grpc

INFO: Final = {"name": "hub", "version": "1"}
QUICK: Final = Reconnect(attempts=3, backoff=Backoff(base=0.01, cap=0.02), random=Random(1))

each_binding = pytest.mark.parametrize("listen_at", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0/hub", "memory://hub"])


class Hub:
    """The other side: calls a tool of each server that connects, and keeps the results."""

    def __init__(self, calls: int = 1) -> None:
        self.results: list[str] = []
        self.done = trio.Event()
        self._calls = calls

    async def handle(self, connection: Connection) -> None:
        async with open_client(connection, client_info=INFO) as client:
            self.results.append((await client.call_tool("add", {"a": 1, "b": len(self.results)})).text)
        if len(self.results) == self._calls:
            self.done.set()
            await trio.sleep_forever()


@each_binding
async def test_a_hub_calls_the_tools_of_a_server_that_dials_again_when_it_is_left(listen_at: str) -> None:
    hub = Hub(calls=3)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_transport, hub.handle, listen_at)
            await nursery.start(partial(serve_sdk, build_server(), Dial(address, policy=QUICK)))
            await hub.done.wait()
            nursery.cancel_scope.cancel()
    assert hub.results == ["1", "2", "3"]


async def test_a_hub_that_is_not_there() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        await serve_transport(nothing, Dial("memory://nobody", policy=QUICK))
    assert "memory://nobody" in str(caught.value)


async def test_a_hub_that_comes_later(autojump_clock: trio.abc.Clock) -> None:
    hub = Hub()
    policy = Reconnect(attempts=None, retry_first=True, random=Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_sdk, build_server(), Dial("memory://late", policy=policy)))
        await trio.sleep(20)
        await nursery.start(serve_transport, hub.handle, "memory://late")
        await hub.done.wait()
        nursery.cancel_scope.cancel()


async def test_a_hub_that_goes_for_good_ends_the_server_when_the_policy_says_so() -> None:
    opened, ended = trio.Event(), trio.Event()

    async def stay(connection: Connection) -> None:
        opened.set()
        await trio.sleep_forever()

    async def serve(*, task_status: trio.TaskStatus[Any]) -> None:
        with pytest.raises(ServerUnreachable):
            await serve_transport(nothing, Dial("memory://short", policy=QUICK), task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as hub:
            await hub.start(serve_transport, stay, "memory://short")
            await nursery.start(serve)
            await opened.wait()
            hub.cancel_scope.cancel()
        with trio.fail_after(5):
            await ended.wait()


async def nothing(connection: Connection) -> None:
    async with open_peer(connection) as peer:
        await peer.wait_finished()


async def test_a_handler_that_fails_is_logged_and_the_hub_is_dialled_again(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[int] = []
    done = trio.Event()

    async def fail(connection: Connection) -> None:
        failures.append(1)
        if len(failures) == 3:
            done.set()
        raise ValueError("a bug")

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, nothing, "memory://bug")
        await nursery.start(serve_transport, fail, Dial("memory://bug", policy=QUICK))
        await done.wait()
        nursery.cancel_scope.cancel()
    assert "the handler of a connection to memory://bug failed" in caplog.text


@pytest.mark.parametrize(
    "hub",
    [
        "http://127.0.0.1:9/mcp",
        "http+unix:///nowhere#/mcp",
        "sse+http://127.0.0.1:9/sse",
        "http+stdio:python server.py",
        "redis+stream://127.0.0.1:9",
        Grpc("grpc://127.0.0.1:9", method="mcp.MCPService/Call"),
    ],
)
async def test_a_hub_on_whose_transport_only_a_client_may_begin_is_refused(
    hub: Target, autojump_clock: trio.abc.Clock
) -> None:
    with (
        trio.fail_after(60),
        pytest.raises(UsageError, match=r"only the client may begin to speak.*Let the hub accept"),
    ):
        await serve_transport(nothing, Dial(hub))


async def test_a_server_over_grpc_that_is_dialled_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trioxport")
    hub = Hub()
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, hub.handle, "grpc://127.0.0.1:0")
        await nursery.start(partial(serve_sdk, build_server(), Dial(address)))
        await hub.done.wait()
        nursery.cancel_scope.cancel()
    assert f"serving dial-out to {address}" in caplog.messages


def test_its_name() -> None:
    assert str(Dial("wss://hub.example/servers?token=secret")) == "dial-out to wss://hub.example/servers?token=***"
