"""``python -m benchmarks.mcp_sdk``: the official SDK's ``Client`` and ``MCPServer`` on its own transports and on these.

Both processes run the same program; only the transport differs. The SDK's HTTP server is its application under
uvicorn.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Final, Literal, TypeAlias

import trio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from trioxport.interop.mcp_sdk import sdk_transport
from trioxport.transports.stdio import Stdio

PROGRAM: Final = ["-m", "benchmarks.programs.sdk_program"]
SIDES: Final = ("sdk", "trioxport")
IN_FLIGHT: Final = (1, 32)

Wire: TypeAlias = Literal["stdio", "http"]
Mode: TypeAlias = Literal["auto", "legacy"]


async def compare(wire: Wire, mode: Mode, rounds: int, calls: int) -> list[tuple[str, Mapping[str, float], float]]:
    """The case, the median of calls a second on each side, and the median of the ratio, for each number in flight."""
    async with AsyncExitStack() as stack:
        clients = {side: await stack.enter_async_context(_client(wire, mode, side)) for side in SIDES}
        results: list[tuple[str, Mapping[str, float], float]] = []
        for in_flight in IN_FLIGHT:
            rates: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(rounds + 1):
                for side, client in clients.items():
                    rates[side].append(calls / await _seconds(client, calls, in_flight))
            medians = {side: statistics.median(measured[1:]) for side, measured in rates.items()}
            pairs = zip(rates["trioxport"][1:], rates["sdk"][1:], strict=True)
            case = f"{wire}, {'modern' if mode == 'auto' else 'legacy'}, {in_flight} in flight"
            results.append((case, medians, statistics.median(ours / theirs for ours, theirs in pairs)))
        return results


async def _seconds(client: Client, calls: int, in_flight: int) -> float:
    left = iter(range(calls))

    async def call() -> None:
        for _ in left:
            await client.call_tool("echo", {"text": "hello"})

    started = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(call)
    return perf_counter() - started


@asynccontextmanager
async def _client(wire: Wire, mode: Mode, side: str) -> AsyncGenerator[Client]:
    if wire == "http":
        async with _serving(side) as url, Client(url if side == "sdk" else sdk_transport(url), mode=mode) as client:
            yield client
    else:
        arguments = [*PROGRAM, "stdio", side]
        theirs = StdioServerParameters(command=sys.executable, args=arguments)
        ours = Stdio(sys.executable, arguments)
        async with Client(theirs if side == "sdk" else sdk_transport(ours), mode=mode) as client:
            yield client


@asynccontextmanager
async def _serving(side: str) -> AsyncGenerator[str]:
    command = [sys.executable, *PROGRAM, "http", side]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield bytes(await process.stdout.receive_some()).decode().strip()
    finally:
        await process.stdin.aclose()
        await process.wait()
        await process.stdout.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mcp_sdk", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=320, help="calls in a round")
    arguments = parser.parse_args()
    print("| calls of a tool, a second | the SDK's transport | trioxport | times the SDK | target |")
    print("|---|---|---|---|---|")
    wires: tuple[Wire, ...] = ("stdio", "http")
    modes: tuple[Mode, ...] = ("auto", "legacy")
    for wire in wires:
        for mode in modes:
            for case, medians, ratio in trio.run(compare, wire, mode, arguments.rounds, arguments.calls):
                print(f"| {case} | {medians['sdk']:,.0f} | {medians['trioxport']:,.0f} | {ratio:.2f} | ≥ 1 |")


if __name__ == "__main__":
    main()
