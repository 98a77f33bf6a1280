"""``run_server`` in a process of its own: it listens, serves, and stops in order at a signal."""

from __future__ import annotations

import signal
import sys
from typing import Final

import pytest
import trio

from tests.running.programs import INFO, running
from trioxport import UsageError, open_transport
from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.peer import open_client
from trioxport.running import run_server

SDK_PROGRAM: Final = """
import sys, trio
from functools import partial
from mcp.server.mcpserver import MCPServer
from trioxport.running import run_server
from trioxport.transports.http.server import HttpServer

server = MCPServer("running")

@server.tool()
async def slow() -> str:
    print("called", flush=True)
    await trio.sleep(0.5)
    return "finished"

def listening(addresses):
    print(addresses[0], flush=True)

trio.run(partial(run_server, server, HttpServer("http://127.0.0.1:0/mcp"), on_listening=listening, close_timeout=5))
"""
HANDLER_PROGRAM: Final = """
import sys, trio
from functools import partial
from trioxport.peer import open_peer
from trioxport.running import run_server

async def handler(connection):
    async with open_peer(connection) as peer:
        await peer.wait_finished()

trio.run(partial(run_server, handler, sys.argv[1], on_listening=lambda addresses: print(addresses[0], flush=True)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_calls_finish(number: signal.Signals) -> None:
    with trio.fail_after(20):
        async with running("-c", SDK_PROGRAM) as program:
            target = await program.line()
            async with open_transport(target) as connection, open_client(connection, client_info=INFO) as client:
                results: list[str] = []

                async def call() -> None:
                    results.append((await client.call_tool("slow")).text)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call)
                    assert await program.line() == "called"
                    program.process.send_signal(number)
                assert results == ["finished"]
            assert await program.process.wait() == 0


async def test_a_handler_over_standard_streams_ends_with_its_client() -> None:
    with trio.fail_after(20):
        async with open_transport(f"stdio:{sys.executable} -c '{HANDLER_PROGRAM}' stdio:") as connection:
            await connection.tx.aclose()
            assert [message async for message in connection.rx] == []


class Unconnected:
    """A listener that waits for ever for what it needs to listen."""

    def __str__(self) -> str:
        return "redis://hung"

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_does_not_listen_yet_says_so_and_ends_at_a_signal(
    number: signal.Signals, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trioxport")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_server, trio.sleep, Unconnected())
            await trio.sleep(1)
            assert caplog.messages == []
            await trio.sleep(2)
            assert caplog.messages == ["redis://hung: connecting; it does not listen yet"]
            signal.raise_signal(number)
    assert caplog.messages[1:] == [f"received {number.name}: stopping"]


async def test_an_address_in_use() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, trio.sleep, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(UsageError, match="cannot listen: Address already in use"):
            await run_server(trio.sleep, f"tcp://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()
