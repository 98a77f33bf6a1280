"""Worker processes on one port: killed, hanging, stopped, and their figures added up."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
from mcp import Client
from mcp.types import TextContent

from tests.running.programs import BY_HAND, INFO, OFFICIAL_SDK, Running, running
from tests.support.raw_http import asking, calling, modern
from tests.support.serve_command import BOUND
from trioxport import ConnectionLost, Request, Response, UsageError, open_transport
from trioxport.peer import open_client
from trioxport.running import run_server
from trioxport.transports.http.server import HttpServer

pytestmark = [
    pytest.mark.deadline(BOUND + 5),
    pytest.mark.skipif(sys.platform != "linux", reason="the children of a process are read from /proc"),
]


@asynccontextmanager
async def two_workers(close_timeout: float = 5, source: str = BY_HAND) -> AsyncGenerator[tuple[Running, str]]:
    """A program with two workers, and the address of its endpoint."""
    with trio.fail_after(BOUND):
        async with running("-c", source, str(close_timeout)) as program:
            address = await program.line()
            await until_workers(program, 2)
            yield program, address


def workers_of(program: Running) -> Sequence[int]:
    """The process ids of the workers."""
    found: list[int] = []
    for children in Path(f"/proc/{program.process.pid}/task").glob("*/children"):  # of the thread that started them
        found += [int(child) for child in children.read_text().split()]
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something about other processes, which no event tells."""
    while not condition():  # noqa: ASYNC110 (other processes set no event of this one)
        await trio.sleep(0.01)


async def until_workers(program: Running, count: int, *, without: int = 0) -> None:
    await until(lambda: len([pid for pid in workers_of(program) if pid != without]) >= count)


async def until_gone(pids: Sequence[int]) -> None:
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def pid_at(address: str) -> int:
    """The process that answers a call over a new connection."""
    async with calling(address, modern("tools/call", name="work", arguments={})) as reply:
        message = await reply.json()
    return int(message["result"]["content"][0]["text"])


async def both_pids(address: str) -> set[int]:
    """The processes that answer, once there are two of them."""
    found: set[int] = set()
    while len(found) < 2:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                found.add(await pid_at(address))

            for _ in range(8):
                nursery.start_soon(ask)
    return found


async def test_a_killed_worker_takes_only_its_own_calls_with_it_and_is_replaced() -> None:
    async with two_workers() as (program, address):
        pids = await both_pids(address)
        assert pids == set(workers_of(program))
        victim = min(pids)
        answered: list[tuple[float, int]] = []
        lost: list[float] = []
        killed_at = float("inf")

        async def calls() -> None:
            while trio.current_time() < killed_at + 1:
                began = trio.current_time()
                try:  # over a new connection, since the system need not deal them out evenly
                    async with (
                        open_transport(address) as connection,
                        open_client(connection, client_info=INFO) as client,
                    ):
                        result = await client.call_tool("work", {"seconds": 0.05})
                except ConnectionLost:
                    lost.append(began)
                else:
                    answered.append((began, int(result.text)))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(calls)
            await until(lambda: {pid for _, pid in answered} == pids)
            os.kill(victim, signal.SIGKILL)
            killed_at = trio.current_time()
        assert all(began <= killed_at for began in lost)
        assert len(lost) <= 12
        after = Counter(pid for began, pid in answered if began > killed_at)
        assert victim not in after
        await until_workers(program, 2, without=victim)
        assert victim not in await both_pids(address)


async def test_calls_of_the_official_sdk_finish_when_the_program_is_told_to_stop() -> None:
    async with two_workers(source=OFFICIAL_SDK) as (program, address):
        pids = workers_of(program)
        texts: list[str] = []

        async def call() -> None:
            async with Client(address, mode="2026-07-28") as client:
                await client.list_tools()  # or it asks for the output schema after the call
                [content] = (await client.call_tool("announced", {"seconds": 0.4})).content
                assert isinstance(content, TextContent)
                texts.append(content.text)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(call)
            for _ in range(4):
                assert await program.line() == "called"
            program.process.send_signal(signal.SIGTERM)
        assert texts == ["finished"] * 4
        assert await program.process.wait() == 0
        await until_gone(pids)


async def test_a_worker_that_hangs_is_killed_when_its_time_is_over() -> None:
    async with two_workers(close_timeout=0.2) as (program, address):
        pids = workers_of(program)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lost_call, address)
            assert await program.line() == "blocked"
            started = trio.current_time()
            program.process.send_signal(signal.SIGTERM)
            assert await program.process.wait() == 0
            assert trio.current_time() - started < 5
        await until_gone(pids)


async def lost_call(address: str) -> None:
    with pytest.raises(ConnectionLost):
        async with open_transport(address) as connection, open_client(connection, client_info=INFO) as client:
            await client.call_tool("block")


async def test_a_second_signal_kills_the_workers() -> None:
    async with two_workers(close_timeout=60) as (program, address), trio.open_nursery() as nursery:
        nursery.start_soon(lost_call, address)
        assert await program.line() == "blocked"
        program.process.send_signal(signal.SIGINT)
        with trio.move_on_after(0.3):
            await program.process.wait()
        assert program.process.returncode is None
        program.process.send_signal(signal.SIGINT)
        assert await program.process.wait() == 0


async def test_workers_end_when_the_process_that_started_them_is_gone() -> None:
    async with two_workers() as (program, _):
        pids = workers_of(program)
        program.process.kill()
        await until_gone(pids)


OVER_GRPC: Final = """
import os, trio
from functools import partial
from trioxport import Response
from trioxport.running import run_server

async def handler(connection):
    async for request in connection.rx:
        await connection.tx.send(Response(request.id, os.getpid()))

def listening(addresses):
    print(addresses[0], flush=True)

if __name__ == "__main__":
    trio.run(partial(run_server, handler, "grpc://127.0.0.1:0", workers=2, on_listening=listening))
"""


async def test_workers_share_a_port_of_grpc() -> None:
    async with two_workers(source=OVER_GRPC) as (program, address):
        async with open_transport(address) as (tx, rx):
            await tx.send(Request(1, "pid"))
            answer = await rx.receive()
        assert isinstance(answer, Response)
        assert answer.result in workers_of(program)


async def test_a_program_that_cannot_serve_says_so_once() -> None:
    source = "import trio; from functools import partial; from trioxport.running import run_server\n"
    source += "trio.run(partial(run_server, trio.sleep, 'tcp://127.0.0.1:0', workers=3, metrics='/metrics'))"
    with trio.fail_after(BOUND):
        done = await trio.run_process(
            [sys.executable, "-c", source], capture_stderr=True, capture_stdout=True, check=False
        )
    assert done.returncode == 1
    text = done.stderr.decode()
    assert text.count("UsageError: tcp://127.0.0.1:0: only an HTTP server has a page of figures") == 1
    assert "the first worker process ended with exit code 1 before it listened" in text


async def test_the_page_of_figures_has_the_sums_of_all_workers() -> None:
    async with two_workers() as (_, address):
        base = address.removesuffix("/mcp")
        pids = await both_pids(address)
        sums = {await sum_of_calls(base, at_least=8)}
        os.kill(min(pids), signal.SIGKILL)
        await both_pids(address)
        before = sums.pop()
        after = await sum_of_calls(base, at_least=before + 2)
        assert after >= before + 2  # a death takes at most a second of figures with it


async def sum_of_calls(base: str, *, at_least: float) -> float:
    while True:
        async with asking(f"{base}/metrics", "GET") as reply:
            assert reply.status == 200
            assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
            lines = (await reply.body()).decode().splitlines()
        [counted] = [line for line in lines if line.startswith("trioxport_messages_total{") and "tools/call" in line]
        if (value := float(counted.rpartition(" ")[2])) >= at_least:
            return value
        await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("stdio:", "workers share an address of TCP"),
        ("memory://here", "workers share an address of TCP"),
        ("http://127.0.0.1:0/mcp", "a session of the legacy era lives in one process"),
        (HttpServer("http://127.0.0.1/mcp", sessions=None), "a server has to know its port"),
    ],
)
async def test_targets_that_workers_cannot_share(target: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        await run_server(trio.sleep, target, workers=2)


async def test_an_object_that_is_no_server_is_refused_before_a_worker_starts() -> None:
    with pytest.raises(TypeError, match="'app' is no server: pass an async function, an MCPServer"):
        await run_server("app", "tcp://127.0.0.1:0", workers=2)


async def test_figures_are_a_page_of_http_only() -> None:
    with pytest.raises(UsageError, match="only an HTTP server has a page of figures"):
        await run_server(trio.sleep, "tcp://127.0.0.1:0", metrics="/metrics")
