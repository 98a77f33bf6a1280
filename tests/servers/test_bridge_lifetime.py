"""The processes behind a bridge: begun when they are used, revived after a death, and gone with their clients."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.process_resources import children
from trioxport import Target, open_transport
from trioxport.abc import Era
from trioxport.peer import JSONRPCError, Peer, open_peer
from trioxport.servers.bridge import Sharing, serve_bridge
from trioxport.transports.stdio import Stdio

INFO: Final = {"name": "test", "version": "1"}
HTTP: Final = "http://127.0.0.1:0/mcp"
PROGRAMS: Final = Path(__file__).parents[1] / "programs"
PLAIN: Final = Stdio(sys.executable, ["-I", "-S", str(PROGRAMS / "plain_server.py")])


def acting(acts: Path) -> Stdio:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return Stdio(sys.executable, [str(PROGRAMS / "acting_server.py"), str(acts)], env=environment)


@asynccontextmanager
async def bridge(listen: Target, server: Path | Stdio, **options: Any) -> AsyncGenerator[str]:
    """The address of a bridge to a server, or to the one that notes its acts in a file."""
    target = acting(server) if isinstance(server, Path) else server
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_bridge, listen, target, **options))
        yield addresses[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(url: str, era: Era | None = None) -> AsyncGenerator[Peer]:
    async with open_transport(url) as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info=INFO, era=era)
        yield peer


async def pid_of(peer: Peer) -> int:
    result = await peer.request("tools/call", {"name": "pid"})
    return int(result["structuredContent"]["pid"])


async def act(peer: Peer, seconds: float, on_progress: Any = None) -> Any:
    params = {"name": "act", "arguments": {"seconds": seconds}}
    return await peer.request("tools/call", params, on_progress=on_progress)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_killed_server_is_an_error_of_its_clients_and_is_revived_by_the_next_request(
    tmp_path: Path, era: Era
) -> None:
    acts = tmp_path / "acts"
    async with (
        bridge(HTTP, acts, name="acting") as url,
        bridge(HTTP, tmp_path / "others", name="other") as elsewhere,
        client(url, era) as one,
        client(url, era) as two,
        client(elsewhere, era) as other,
    ):
        first = await pid_of(one)
        assert await pid_of(two) == first
        untouched = await pid_of(other)
        failures: list[JSONRPCError] = []
        both_act = trio.Event()

        async def fail(peer: Peer) -> None:
            with pytest.raises(JSONRPCError) as caught:
                await act(peer, 1000, note_start)
            failures.append(caught.value)

        starts = 0

        def note_start(*progress: Any) -> None:
            nonlocal starts
            starts += 1
            if starts == 2:
                both_act.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, one)
            nursery.start_soon(fail, two)
            await both_act.wait()
            os.kill(first, signal.SIGKILL)
        for failure in failures:
            assert failure.message == "acting: the server process was ended by SIGKILL"
            assert failure.data == {"server": "acting", "outcome": "unknown", "retryable": True}
        assert acts.read_text() == "acted\n" * 2  # by each of them once
        second = await pid_of(one)
        assert second != first
        assert await pid_of(two) == second
        assert await pid_of(other) == untouched
        assert acts.read_text() == "acted\n" * 2


async def test_a_revived_legacy_server_has_what_its_clients_asked_for(tmp_path: Path) -> None:
    acts = tmp_path / "acts"
    changed = trio.Event()

    async def note(notification: Any) -> None:
        changed.set()

    async with bridge("tcp://127.0.0.1:0", acts) as url, open_transport(url) as connection:
        handlers = {"notifications/tools/list_changed": note}
        async with open_peer(connection, notifications=handlers) as peer:
            await peer.negotiate(client_info=INFO, era="legacy")
            await peer.request("resources/subscribe", {"uri": "a:1"})
            await peer.request("logging/setLevel", {"level": "error"})
            first = await pid_of(peer)
            os.kill(first, signal.SIGKILL)
            while first == await pid_if_alive(peer, first):
                pass
            before = "resources/subscribe a:1\nlogging/setLevel error\n"
            while acts.read_text() != before * 2:  # both are on their way
                await pid_of(peer)
            await changed.wait()


async def pid_if_alive(peer: Peer, dead: int) -> int:
    """The process that answers; ``dead`` while its death was not noticed yet."""
    try:
        return await pid_of(peer)
    except JSONRPCError:
        return dead


async def test_the_loss_of_a_server_of_its_own_ends_the_session_of_its_client_alone(tmp_path: Path) -> None:
    async with (
        bridge("tcp://127.0.0.1:0", tmp_path / "acts", sharing="per-session") as url,
        client(url) as one,
        open_transport(url) as connection,
        open_peer(connection) as two,
    ):
        await two.negotiate(client_info=INFO)
        mine, other = await pid_of(two), await pid_of(one)
        assert mine != other
        os.kill(mine, signal.SIGKILL)
        await two.wait_finished()
        assert await pid_of(one) == other


@pytest.mark.deadline(60)
@pytest.mark.parametrize("listen", [HTTP, "tcp://127.0.0.1:0"])
@pytest.mark.parametrize("sharing", ["shared", "per-session"])
async def test_fifty_sessions_leave_nothing_behind(sharing: Sharing, listen: str) -> None:
    async with bridge(listen, PLAIN, sharing=sharing) as url:
        await session(url)
        before = await settled()
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(session, url)
        assert await settled() == before


async def session(url: str) -> None:
    async with client(url, "legacy") as peer:
        await pid_of(peer)


async def settled() -> Sequence[int]:
    """The numbers of tasks, descriptors and child processes, once they are the same for a while."""
    seen: list[Sequence[int]] = []
    while len(seen) < 10 or len(set(seen[-10:])) > 1:
        tasks = trio.lowlevel.current_statistics().tasks_living
        seen.append((tasks, len(os.listdir("/proc/self/fd")), len(children())))
        await trio.sleep(0.05)
    return seen[-1]
