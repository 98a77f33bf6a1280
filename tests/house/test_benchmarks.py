"""The benchmarks run, and measure what they promise to. No test looks at a time."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks import bridge, http2, unix_http
from benchmarks.programs.sdk_program import uvicorn_server
from trioxport import layers

ROOT = Path(__file__).parents[2]
CONTENDERS = {"bare pipe", "official SDK", "trioxport"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    written = tmp_path_factory.mktemp("benchmarks") / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(written)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    found: dict[str, Any] = json.loads(written.read_text())
    parts = ("stdio", "http", "layers", "each_layer", "large_line")
    assert all(each["case"] in done.stdout for part in parts for each in found[part])
    return found


pytestmark = pytest.mark.deadline(60)


def test_stdio_is_measured_beside_the_official_sdk_and_a_bare_pipe(results: dict[str, Any]) -> None:
    assert [each["case"] for each in results["stdio"]] == [
        "one at a time, 100 B",
        "one at a time, 100 KiB",
        "pipelined, 100 B",
        "pipelined, 100 KiB",
    ]
    for each in results["stdio"]:
        assert set(each["per_second"]) == CONTENDERS
        assert min(rates["best"] for rates in each["per_second"].values()) > 0
        assert {"times_the_sdk", "share_of_the_bare_pipe", "target"} <= set(each)


def test_http_is_measured_beside_the_official_sdk_and_clients_of_http(results: dict[str, Any]) -> None:
    assert [each["case"] for each in results["http"]] == [
        "requests, one at a time",
        "requests, 32 at the same time",
        "notifications, 1,000 a response",
    ]
    for each in results["http"]:
        assert set(each["per_second"]) == {"httpcore", "httpx2", "aiohttp", "official SDK", "trioxport"}
        assert min(rates["best"] for rates in each["per_second"].values()) > 0
        assert {"times_the_sdk", "target", "load_of_the_server"} <= set(each)
        assert set(each["times"]) == {"httpcore", "httpx2", "aiohttp", "official SDK"}


def test_http_on_a_unix_socket_is_measured_beside_tcp() -> None:
    for each in trio.run(unix_http.compare, 1, 0.02):
        assert min(each["per_second"].values()) > 0
        assert each["times_tcp"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_http2_is_measured_beside_httpx_and_with_many_streams() -> None:
    for each in trio.run(http2.compare, 1, 0.02):
        assert set(each["per_second"]) == {"httpx", "trioxport"}
        assert each["times"] > 0
    found = trio.run(http2.streams, 5, 0.1, 1.0)
    assert found["a_second"] > 0
    assert found["median"] <= found["p99"] <= found["most"]


def test_empty_layers_of_both_kinds_are_measured(results: dict[str, Any]) -> None:
    assert {each["case"].partition(",")[0] for each in results["layers"]} == {"message layer", "frame layer"}
    for each in results["layers"]:
        assert set(each["microseconds_for_an_exchange"]) == {"0", "1", "6"}
        assert "microseconds_a_layer" in each


def test_every_layer_is_measured_alone_and_with_all_others(results: dict[str, Any]) -> None:
    *sole_exception, together = results["each_layer"]
    assert together["case"] == "all of them"
    measured = {each["case"].partition(",")[0] for each in sole_exception}
    assert measured == {name for name in layers.__all__ if hasattr(getattr(layers, name), "wrap")}
    for each in results["each_layer"]:
        assert set(each["microseconds"]) == {"one at a time", "pipelined"}


def test_a_large_line_is_measured_in_both_directions(results: dict[str, Any]) -> None:
    assert [each["case"] for each in results["large_line"]] == ["1 MiB received", "1 MiB sent"]
    for each in results["large_line"]:
        assert each["times_the_bare_pipe"] > 0
        assert each["peak_times_the_size"] > 0


def test_the_import_loads_nothing_that_a_target_may_never_need(results: dict[str, Any]) -> None:
    assert set(results["import"]["milliseconds"]) == {"trio", "trioxport"}
    assert results["import"]["loaded_though_not_wanted"] == []


def test_every_coding_of_compression_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.compression", "--rounds", "1", "--size", "2000"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    for row in ("gzip, 4", "deflate, 6", "zstd, 3", "br, 4", "gzip", "deflate", "zstd", "br"):
        assert f"| {row} | " in done.stdout


def test_the_cost_of_oauth_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.oauth", "--rounds", "1", "--count", "10"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert [row.split("|")[1].strip() for row in done.stdout.splitlines()[2:]] == ["valid token", "DPoP"]


def test_the_cost_of_checking_tokens_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.verification", "--rounds", "1", "--count", "10"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    cases = ["known token", "unknown token, ES256", "known token, DPoP"]
    assert [row.split("|")[1].strip() for row in done.stdout.splitlines()[2:]] == cases


def test_websocket_is_measured_beside_both_clients_of_websockets() -> None:
    command = [sys.executable, "-m", "benchmarks.websocket", "--rounds", "1", "--count", "10"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    head, _, *rows = done.stdout.splitlines()
    contenders = {"trioxport", "trio-websocket", "websockets.trio", "websockets.asyncio"}
    assert contenders <= {cell.strip() for cell in head.split("|")}
    assert [row.split("|")[1].strip() for row in rows] == [
        f"{case}, {size} B" for size in (100, 10000) for case in ("one at a time", "pipelined")
    ]


def test_redis_is_measured_beside_bare_coredis() -> None:
    command = [sys.executable, "-m", "benchmarks.redis", "--rounds", "1", "--count", "10"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    head, _, *rows = done.stdout.splitlines()
    assert {"coredis, bare", "redis://", "redis+stream://"} <= {cell.strip() for cell in head.split("|")}
    assert [row.split("|")[1].strip() for row in rows] == [
        f"{case}, {size} B" for size in (100, 10000) for case in ("one at a time", "pipelined")
    ]


def test_grpc_is_measured_beside_grpc_aio() -> None:
    command = [sys.executable, "-m", "benchmarks.grpc", "--rounds", "1", "--count", "10"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    head, _, *rows = done.stdout.splitlines()
    pairs = {f"{client} → {server}" for client in ("trioxport", "grpc.aio") for server in ("trioxport", "grpc.aio")}
    assert pairs <= {cell.strip() for cell in head.split("|")}
    assert [row.split("|")[1].strip() for row in rows] == [
        f"{case}, {size} B" for size in (100, 10000) for case in ("one at a time", "32 in flight", "64 in flight")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_idle_connections_are_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.idle", "--connections", "20"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.startswith("20 idle connections: ")


@pytest.mark.skipif(sys.platform != "linux", reason="the processor time of a process is read from /proc")
def test_the_rate_of_several_workers_is_measured_beside_that_of_one() -> None:
    command = [sys.executable, "-m", "benchmarks.workers", "--rounds", "1", "--seconds", "1", "--connections", "2"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.startswith("load by ")
    assert [row.split("|")[1].strip() for row in done.stdout.splitlines()[3:]] == ["1", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
@pytest.mark.deadline(150)
def test_http_servers_are_measured_under_load() -> None:
    few = ["--rounds", "1", "--seconds", "0.02", "--streams", "20", "--sessions", "5"]
    command = [sys.executable, "-m", "benchmarks.load", *few]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=140)
    for era in ("modern", "legacy"):
        for case in ("16 connections, 100 B", "1 connection, 100 B", "64 connections", "100 KiB", "SSE"):
            assert f"| {era}, " in done.stdout
            assert case in done.stdout
        assert f"| trioxport / official SDK, uvicorn | {era} | " in done.stdout
    for contender in ("official SDK, uvicorn", "official SDK, trioxport", "trioxport", "FastMCP, uvicorn"):
        assert done.stdout.count(f"\n| {contender} | ") == 10
    assert "\n| CPU a request: µs | SDK's own work | by hand | sum | " in done.stdout
    assert "\n20 streams, " in done.stdout
    assert "\n5 idle sessions: " in done.stdout


def test_the_sdk_on_uvicorn_answers_without_waiting_for_acknowledgements(capsys: pytest.CaptureFixture[str]) -> None:
    async def nodelay() -> int:
        server = uvicorn_server()
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readline()
        [connection] = server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        found = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        server.should_exit = True
        await serving
        return int(found)

    assert asyncio.run(nodelay()) == 1
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


def test_a_call_through_a_bridge_and_its_idle_sessions_are_measured() -> None:
    times, memory = bridge.run(quick=True)
    assert set(times) == {"modern", "legacy"}
    for measured in times.values():
        assert {"HTTP, direct", "stdio, direct", bridge.OURS} <= set(measured)
        assert min(best for _, best in measured.values()) > 0
    assert "an idle session: " in bridge.table(times, memory)
