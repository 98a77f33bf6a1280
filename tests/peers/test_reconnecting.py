"""Servers of others that are killed in the middle: they are started again, and the session goes on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from trioxport import Backoff, ConnectionLost, Reconnect, open_transport
from trioxport.peer import Peer, open_peer
from trioxport.transports.stdio import Stdio

CLIENT: Final = {"name": "test", "version": "1"}
SDK_SERVER: Final = Path(__file__).parents[1] / "peers" / "sdk_server.py"


async def call(peer: Peer, tool: str, **arguments: Any) -> Any:
    answer = await peer.request("tools/call", {"name": tool, "arguments": arguments}, timeout=20)
    return answer["content"][0]["text"]


@pytest.mark.parametrize("peer_name", ["everything", "python"])
@pytest.mark.deadline(60)
async def test_a_killed_server_is_started_again(peer_name: str, everything_server: list[str], tmp_path: Path) -> None:
    """The call in progress ends with ``ConnectionLost``; then the client works as before, initialized anew."""
    peers: dict[str, Any] = {
        "everything": (
            everything_server,
            ("trigger-long-running-operation", {"duration": 60, "steps": 60}),
            ("echo", {"message": "still here"}, "Echo: still here"),
        ),
        "python": (
            [sys.executable, str(SDK_SERVER)],
            ("work", {"seconds": 60, "steps": 60}),
            ("add", {"a": 20, "b": 22}, "42"),
        ),
    }
    command, slow, quick = peers[peer_name]
    target = Stdio(command[0], command[1:], cwd=tmp_path, stderr=lambda line: None)
    reconnect = Reconnect(backoff=Backoff(base=0.01))
    with trio.fail_after(50):
        async with open_transport(target, reconnect=reconnect) as connection, open_peer(connection) as peer:
            negotiated = await peer.negotiate(client_info=CLIENT, era="legacy")
            tools = await peer.request("tools/list")
            pids = [connection.info.peer]
            for _ in range(2):
                working = trio.Event()

                def note_progress(*_progress: object, working: trio.Event = working) -> None:
                    working.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(expect_loss, peer, slow, note_progress)
                    await working.wait()
                    os.kill(int((pids[-1] or "").removeprefix("pid ")), signal.SIGKILL)
                tool, arguments, expected = quick
                assert await call(peer, tool, **arguments) == expected
                assert await peer.request("tools/list") == tools
                pids.append(connection.info.peer)
            assert len(set(pids)) == 3
            assert connection.state == "open"
            assert connection.info.protocol_version == negotiated.protocol_version


async def expect_loss(peer: Peer, slow: tuple[str, dict[str, Any]], on_progress: Any) -> None:
    tool, arguments = slow
    with pytest.raises(ConnectionLost, match="SIGKILL") as caught:
        await peer.request("tools/call", {"name": tool, "arguments": arguments}, timeout=40, on_progress=on_progress)
    assert caught.value.outcome == "unknown"
