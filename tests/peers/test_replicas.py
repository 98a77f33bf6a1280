"""Two replicas of a server of the official SDK, in processes of their own, behind a balancer without affinity."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from mcp import Client

from tests.peers.test_http_server import MODERN, PEERS, run
from tests.support.raw_http import LegacyClient, initialized, request
from tests.support.redis_links import HOST, redis_server
from tests.support.replicas import Balancer, replica_processes
from tests.support.sdk_programs import BOTH, LEGACY, run_program

pytestmark = [
    pytest.mark.deadline(90),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # the legacy era
    pytest.mark.filterwarnings("ignore:Async generator .http(core|x)2:ResourceWarning"),  # the SDK leaves some behind
]
BOUND: Final = 80.0
STATELESS: Final = ("tools", "resources_and_prompts", "progress", "logs", "round_trips")
"""The modern programs whose server keeps nothing in its own memory from one request to the next."""


@asynccontextmanager
async def deployed(tmp_path: Path, lease: float = 30.0) -> AsyncGenerator[Balancer]:
    with trio.fail_after(BOUND):
        async with (
            redis_server() as redis,
            replica_processes(f"redis://{HOST}:{redis.port}", tmp_path / "acted", lease) as balancer,
        ):
            yield balancer


async def test_the_official_sdks_hold_their_conversations(tmp_path: Path, everything_server: list[str]) -> None:
    """Answers, progress, logs, questions and cancellation, of both SDKs, in sessions and without."""
    seen: dict[str, Any] = {}

    async def python(mode: str, name: str) -> None:
        seen[f"{mode} {name}"] = await run_program(mode, name, lambda: balancer.url)

    async def typescript(mode: str, *server: str) -> None:
        seen[mode] = await run([everything_server[0], PEERS / "ts_http_client.mjs", balancer.url, mode, *server])

    async with deployed(tmp_path) as balancer, trio.open_nursery() as nursery:
        for name in BOTH | LEGACY:
            nursery.start_soon(python, "legacy", name)
        for name in STATELESS:
            nursery.start_soon(python, "auto", name)
        for mode in ("first", "legacy"):
            nursery.start_soon(typescript, mode)
        nursery.start_soon(typescript, "modern", "", "replicas")
    progress, _ = seen["legacy progress"]
    assert progress == [(number, 5, f"step {number}") for number in range(1, 6)] == seen["auto progress"][0]
    assert [each["structured_content"]["result"] for each in seen["legacy questions"]] == ["accept blue", "It"]
    assert "one" in seen["legacy cancellation"]["result"]
    assert [each["data"] for each in seen["legacy logs"][0]] == ["one", {"two": 2}]
    assert seen["legacy tools"][0] == seen["auto tools"][0]
    assert seen["auto round_trips"]["structured_content"]["result"].startswith("asked")
    for mode in ("first", "legacy"):
        found = seen[mode]
        assert (found["session"], found["asked"], found["after"]) == (True, "accept blue", 404)
        assert found["progress"] == [1, 2, 3] and len(found["sums"]) == 20 and "one" in found["cancelled"]
    found = seen["modern"]
    assert (found["version"], found["session"], found["asked"]) == (MODERN, False, "asked {'colour': 'blue'}")
    assert found["progress"] == [1, 2, 3] and len(found["sums"]) == 20


def act(number: int, seconds: float) -> dict[str, Any]:
    arguments = {"number": number, "seconds": seconds}
    return request("tools/call", number, name="act", arguments=arguments, _meta={"progressToken": number})


async def begun_at_each(balancer: Balancer) -> list[LegacyClient]:
    """A client in a session of each replica, which asks the balancer from then on."""
    clients = [await initialized(each.url) for each in balancer.replicas]
    for client in clients:
        client.url = balancer.url
    return clients


async def statuses(client: LegacyClient, times: int = 2) -> list[int]:
    """The statuses of a ping through one replica after the other."""
    found: list[int] = []
    for number in range(times):
        async with client.post(request("ping", f"ping {number}")) as reply:
            found.append(reply.status)
    return found


async def test_a_broken_stream_is_resumed_wherever_the_client_comes_back(tmp_path: Path) -> None:
    async with deployed(tmp_path) as balancer:
        client, _ = await begun_at_each(balancer)
        for number in (1, 2):
            async with client.post(act(number, 0.2)) as reply:
                assert (await reply.event())["params"]["progress"] == 1
                last = reply.last_event_id
            async with client.get(last_event_id=last) as reply:
                assert (await reply.event())["id"] == number
                assert await reply.event() is None
        await resumed_by_the_official_sdk(balancer, range(3, 7))
        assert sorted((tmp_path / "acted").read_text(encoding="ascii").split()) == list("123456")


async def resumed_by_the_official_sdk(balancer: Balancer, numbers: Iterable[int]) -> None:
    """Make calls by the SDK's client whose streams are cut, each after its first event."""

    async def cut(progress: float, total: float | None, message: str | None) -> None:
        await balancer.cut()

    async with Client(balancer.url, mode="legacy") as client:
        for number in numbers:
            arguments = {"number": number, "seconds": 0.1}
            result = await client.call_tool("act", arguments, progress_callback=cut)
            assert result.structured_content == {"result": number}


async def test_a_replica_that_hangs_loses_its_sessions_with_its_lease_and_nothing_waits_for_ever(
    tmp_path: Path,
) -> None:
    lease = 4.0
    async with deployed(tmp_path, lease) as balancer:
        hung, _ = begun = await begun_at_each(balancer)
        victim, survivor = balancer.replicas
        hung.url = survivor.url
        assert await statuses(hung) == [200, 200]
        victim.process.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        async with hung.post(act(1, 0)) as reply:
            assert reply.status == 502
        assert trio.current_time() - began < 3 * lease
        assert await statuses(hung) == [404, 404]
        begun[1].url = survivor.url
        assert await statuses(begun[1]) == [200, 200]
        victim.process.send_signal(signal.SIGCONT)
        with trio.fail_after(20):
            while await statuses(hung, 1) != [200]:  # noqa: ASYNC110 (only an answer tells)
                await trio.sleep(0.1)


async def test_a_replica_that_is_stopped_ends_its_sessions_at_once(tmp_path: Path) -> None:
    async with deployed(tmp_path) as balancer:
        stopped, other = await begun_at_each(balancer)
        victim, survivor = balancer.replicas
        for each in (stopped, other):
            each.url = survivor.url
        async with stopped.post(act(1, 0.5)) as reply:
            assert (await reply.event())["params"]["progress"] == 1
            victim.process.send_signal(signal.SIGTERM)
            assert (await reply.event())["id"] == 1  # what runs is answered
        assert await victim.process.wait() == 0
        with trio.fail_after(10):  # not the time of the lease
            assert await statuses(stopped) == [404, 404]
        assert await statuses(other) == [200, 200]
