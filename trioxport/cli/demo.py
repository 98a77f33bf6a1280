"""``trioxport demo``: a conversation with a server in a child process."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any, Final

import trio

from trioxport import open_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.cli._commands import cli_command
from trioxport.cli._output import write
from trioxport.cli._results import readable
from trioxport.cli.connecting import CLIENT_INFO
from trioxport.frames import MIB
from trioxport.peer import JSONRPCError, Peer, open_peer
from trioxport.transports.stdio import Stdio

SERVER: Final = ("-m", "trioxport", "serve-demo", "stdio:")


@cli_command
async def command() -> int:
    """Start a server in a child process and call its tools."""
    found_by = {name: value for name in ("PYTHONPATH",) if (value := os.environ.get(name))}
    server = Stdio(sys.executable, SERVER, env=found_by)
    _say(f"Starting an MCP server in a child process: {server}\n")
    clock = _Clock()
    async with open_transport(server) as connection, open_peer(connection) as peer:
        negotiated = await peer.negotiate(client_info=CLIENT_INFO)
        name = negotiated.server_info.get("name")
        clock.report("negotiate", f"{name} speaks {negotiated.protocol_version}, the {negotiated.era} era")
        tools = await peer.request("tools/list")
        clock.report("tools/list", ", ".join(tool["name"] for tool in tools["tools"]))
        for step in (_echo, _add, _many, _payload, _sleep, _cancel, _fail, _unknown):
            await step(peer, clock.report)
    clock.report("close", "the connection was closed, and the server has exited")
    _say("\nCall the same server by yourself:\n")
    _say("  " + _example())
    return 0


def _example() -> str:
    """A command that works even if this program is not on the PATH of the shell or of the child."""
    program = "trioxport" if shutil.which("trioxport") else shlex.join([sys.executable, "-m", "trioxport"])
    target = shlex.quote(f"stdio:{program} serve-demo stdio:")
    params = shlex.quote('{"name": "add", "arguments": {"a": 1, "b": 2}}')
    return f"{program} call {target} tools/call {params}"


class _Clock:
    """Prints each step with the time since the step before."""

    def __init__(self) -> None:
        self._before = trio.current_time()

    def report(self, step: str, text: str) -> None:
        now = trio.current_time()
        _say(f"{step:<12}{text:<64}{(now - self._before) * 1000:8.1f} ms")
        self._before = now


Report = Callable[[str, str], None]


async def _echo(peer: Peer, report: Report) -> None:
    result = await _call(peer, "echo", text="hello, world")
    report("echo", readable(result))


async def _add(peer: Peer, report: Report) -> None:
    result = await _call(peer, "add", a=20, b=22)
    report("add", f"20 + 22 = {result['structuredContent']['sum']}")


async def _many(peer: Peer, report: Report) -> None:
    answers: dict[str, str] = {}

    async def ask(text: str) -> None:
        answers[text] = readable(await _call(peer, "echo", text=text))

    async with open_bare_nursery() as tasks:
        for number in range(100):
            tasks.start_soon(ask, f"text {number}")
    right = sum(text == answer for text, answer in answers.items())
    report("echo", f"{right} of 100 calls at once were answered with their own text")


async def _payload(peer: Peer, report: Report) -> None:
    result = await _call(peer, "payload", size=4 * MIB)
    report("payload", f"{len(readable(result)):,} bytes in one message")


async def _sleep(peer: Peer, report: Report) -> None:
    def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report("", f"  progress: {message}")

    params = {"name": "sleep", "arguments": {"seconds": 0.4, "steps": 4}}
    result = await peer.request("tools/call", params, on_progress=on_progress)
    report("sleep", readable(result))


async def _cancel(peer: Peer, report: Report) -> None:
    with trio.move_on_after(0.2):
        await _call(peer, "sleep", seconds=60)
    report("sleep", "for 60 s, cancelled midway, on the server too")


async def _fail(peer: Peer, report: Report) -> None:
    result = await _call(peer, "fail", message="the fuel is gone")
    report("fail", f"the tool answered with an error: {readable(result)}")


async def _unknown(peer: Peer, report: Report) -> None:
    try:
        await _call(peer, "juggle")
    except JSONRPCError as error:
        report("juggle", f"the server answered with an error: {error}")


async def _call(peer: Peer, tool: str, **arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = await peer.request("tools/call", {"name": tool, "arguments": arguments})
    return result


def _say(text: str) -> None:
    write(text, sys.stdout)
