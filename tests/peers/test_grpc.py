"""gRPC between trioxport and grpc.aio, the reference implementation, in both directions."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from trioxport import (
    AuthenticationError,
    ConnectError,
    Connection,
    ConnectionLost,
    MessageTooLarge,
    Notification,
    PermissionDenied,
    ProtocolViolation,
    RateLimited,
    Request,
    RequestTimeout,
    Response,
    TransportError,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.auth import Bearer, TLSOptions
from trioxport.transports.grpc import Grpc

pytestmark = pytest.mark.deadline(90)

BOUND: Final = 80.0
PROGRAMS: Final = Path(__file__).parents[1] / "programs"
CONNECT: Final = "mcp.grpc.v1.MCPTransport/Connect"
STREAM: Final = "mcp.MCPService/Stream"
CALL: Final = "mcp.MCPService/Call"


class Peer:
    """A server of grpc.aio in a process of its own."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._lines: list[str] = []
        self._part = ""

    async def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        while not self._lines:
            data = await self.process.stdout.receive_some()
            assert data, "the server has ended"
            *lines, self._part = (self._part + data.decode()).split("\n")
            self._lines += lines
        return self._lines.pop(0)


@asynccontextmanager
async def grpc_server(*arguments: str) -> AsyncGenerator[tuple[Peer, int]]:
    command = [sys.executable, str(PROGRAMS / "grpc_peer.py"), "serve", *arguments]
    with trio.fail_after(BOUND):
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        async with process.stdin, process.stdout:
            try:
                peer = Peer(process)
                yield peer, int(await peer.line())
            finally:
                process.kill()
                await process.wait()


async def ask(connection: Connection, method: str, params: Any = None, number: int = 1) -> Any:
    await connection.tx.send(Request(number, method, params))
    return await connection.rx.receive()


async def failure(connection: Connection, method: str, params: Any) -> TransportError:
    """The error with which a request comes back."""
    answer = await ask(connection, method, params)
    assert isinstance(answer, Undelivered), answer
    return answer.cause


# Our client, their server


@pytest.mark.parametrize("gzip", [False, True])
async def test_a_client(gzip: bool, tmp_path: Path) -> None:
    headers = {"X-Team": "blue"}
    async with grpc_server() as (peer, port):
        for method in (CONNECT, STREAM, CALL):
            target = Grpc(f"grpc://127.0.0.1:{port}", method=method, headers=headers, auth=Bearer("secret"), gzip=gzip)
            async with open_transport(target) as connection:
                for size in (3, 5_000_000):
                    params = {"text": "ä" + "x" * size}
                    assert await ask(connection, "echo", params) == Response(1, params)
                metadata = (await ask(connection, "metadata")).result
                assert metadata["authorization"] == "Bearer secret"
                assert metadata["x-team"] == "blue"
                await connection.tx.send(Notification("notified"))
                await connection.tx.aclose()
                with pytest.raises(trio.EndOfChannel):
                    await connection.rx.receive()
            assert await peer.line() == "notified"
            if method != CALL:
                assert await peer.line() == "half-closed"


async def test_a_client_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    async with grpc_server(str(tmp_path / "server.pem")) as (_, port):
        tls = TLSOptions(ca=str(tmp_path / "ca.pem"))
        for method in (CONNECT, CALL):
            async with open_transport(Grpc(f"grpcs://127.0.0.1:{port}", tls=tls, method=method)) as connection:
                assert await ask(connection, "echo", {"a": 1}) == Response(1, {"a": 1})
                assert connection.info.tls is not None
        with pytest.raises(
            ConnectError, match=r"closed the connection without an answer.*if it speaks TLS there, use grpcs://"
        ):
            async with open_transport(f"grpc://127.0.0.1:{port}"):
                pass


STATUSES: Final = (
    ("CANCELLED", ConnectionLost, True, "unknown"),
    ("UNKNOWN", ConnectionLost, True, "unknown"),
    ("INVALID_ARGUMENT", ProtocolViolation, False, "unknown"),
    ("DEADLINE_EXCEEDED", RequestTimeout, True, "unknown"),
    ("PERMISSION_DENIED", PermissionDenied, False, "not_sent"),
    ("RESOURCE_EXHAUSTED", RateLimited, True, "unknown"),
    ("UNIMPLEMENTED", ConnectError, False, "not_sent"),
    ("INTERNAL", ConnectionLost, True, "unknown"),
    ("UNAVAILABLE", ConnectionLost, True, "unknown"),
    ("UNAUTHENTICATED", AuthenticationError, False, "not_sent"),
)
"""Codes, the errors that they are, and whether another attempt may help; what became of the request."""


async def test_every_status_has_its_error() -> None:
    async with grpc_server() as (_, port):
        for code, kind, retryable, outcome in STATUSES:
            params = {"code": code, "text": "ä reason"}
            async with open_transport(Grpc(f"grpc://127.0.0.1:{port}", method=CALL)) as connection:
                error = await failure(connection, "abort", params)
            assert isinstance(error, kind)
            assert (error.retryable, error.outcome) == (retryable, outcome)
            assert f"{code}: ä reason" in str(error)
            async with open_transport(f"grpc://127.0.0.1:{port}") as connection:
                lost = await failure(connection, "abort", params)
                with pytest.raises(ConnectionLost, match=code):
                    await connection.rx.receive()
            assert lost.retryable == retryable


async def test_cancelling_and_deadlines_of_a_client() -> None:
    async with grpc_server() as (peer, port):
        url = f"grpc://127.0.0.1:{port}"
        async with open_transport(Grpc(url, method=CALL)) as connection:
            await connection.tx.send(Request(1, "wait"))
            assert await peer.line() == "waiting"
            await connection.tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            assert await peer.line() == "cancelled"
            assert await ask(connection, "echo", {"still": "here"}) == Response(1, {"still": "here"})
        with trio.CancelScope() as scope:
            async with open_transport(url) as connection:
                await connection.tx.send(Request(1, "wait"))
                assert await peer.line() == "waiting"
                scope.cancel()
                await trio.sleep_forever()
        assert await peer.line() == "cancelled"
        async with open_transport(Grpc(url, method=CALL, deadline=30)) as connection:
            assert 20 < (await ask(connection, "remaining")).result <= 30
        for method in (CONNECT, CALL):
            async with open_transport(Grpc(url, method=method, deadline=1.0)) as connection:
                error = await failure(connection, "wait", None)
                assert error.outcome == "unknown"
                assert (
                    "not over within 1 s" in str(error)
                    or "no answer within 1 s" in str(error)
                    or "DEADLINE" in str(error)
                )
            assert await peer.line() == "waiting"
            assert await peer.line() == "cancelled"


async def test_messages_over_the_servers_limit_and_an_end_by_the_server() -> None:
    async with grpc_server() as (_, port):
        url = f"grpc://127.0.0.1:{port}"
        async with open_transport(Grpc(url, method=CALL)) as connection:
            error = await failure(connection, "echo", {"text": "x" * (9 * 2**20)})
            assert isinstance(error, MessageTooLarge)
            assert "RESOURCE_EXHAUSTED" in str(error)
        async with open_transport(url) as connection:
            answer = await ask(connection, "finish")
            assert isinstance(answer, Undelivered)
            with pytest.raises(trio.EndOfChannel):
                await connection.rx.receive()


async def test_a_server_that_stops() -> None:
    """Calls end, and a unary client connects again for the next request."""
    async with grpc_server() as (peer, port), open_transport(f"grpc://127.0.0.1:{port}") as connection:
        await ask(connection, "echo")
        assert peer.process.stdin is not None
        await peer.process.stdin.send_all(b"0\n")
        with pytest.raises(ConnectionLost):
            await connection.rx.receive()


@pytest.mark.parametrize("method", [CONNECT, CALL])
async def test_a_server_that_drains(method: str) -> None:
    """The request in flight is answered, and what comes after it is refused."""
    async with (
        grpc_server() as (peer, port),
        open_transport(Grpc(f"grpc://127.0.0.1:{port}", method=method)) as (tx, rx),
    ):
        await tx.send(Request(1, "linger", {"a": 1}))
        assert await peer.line() == "lingering"
        assert peer.process.stdin is not None
        await peer.process.stdin.send_all(b"20\n")
        assert await rx.receive() == Response(1, {"a": 1})
        await tx.aclose()
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()
        assert await peer.process.wait() == 0


# Their client, our server


class Handled:
    """What a handler saw."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.infos: list[Any] = []

    async def handle(self, connection: Connection) -> None:
        self.infos.append(connection.info)
        try:
            async for message in connection.rx:
                if isinstance(message, Notification):
                    self.notes.append(message.method)
                elif isinstance(message, Request) and not await self._answer(connection, message):
                    return
        except ConnectionLost as lost:
            self.notes.append(f"lost: {lost.reason}")
        except trio.Cancelled:
            self.notes.append("cancelled")
            raise

    async def _answer(self, connection: Connection, request: Request) -> bool:
        result: Any = request.params
        match request.method:
            case "team":
                result = connection.info.headers.get("x-team")
            case "finish" | "silent":
                return False
            case "wait":
                await trio.sleep_forever()
        await connection.tx.send(Response(request.id, result))
        return True


@asynccontextmanager
async def serving(target: Any, handled: Handled, **options: Any) -> AsyncGenerator[str]:
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(serve_transport, handled.handle, target, **options))
            yield address
            nursery.cancel_scope.cancel()


async def grpc_client(address: str, *arguments: str, mode: str = "call") -> Any:
    program = [sys.executable, str(PROGRAMS / "grpc_peer.py"), mode]
    done = await trio.run_process([*program, address.partition("//")[2], *arguments], capture_stdout=True)
    return json.loads(done.stdout)


async def test_clients_of_a_server_that_stops() -> None:
    both = trio.Event()
    waiting = 0

    async def wait(connection: Connection) -> None:
        nonlocal waiting
        await connection.rx.receive()
        waiting += 1
        if waiting == 2:
            both.set()
        await trio.sleep_forever()

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            stop = trio.CancelScope()

            async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
                with stop:
                    await serve_transport(wait, "grpc://127.0.0.1:0", task_status=task_status)

            async def stop_at_work() -> None:
                await both.wait()
                stop.cancel()

            [address] = await nursery.start(serve)
            nursery.start_soon(stop_at_work)
            seen = await grpc_client(address, mode="hold")
    assert seen == ["UNAVAILABLE: the server is being stopped"] * 2


EXPECTED: Final = {
    "Connect": [5, 5_000_000, "blue", None, "OK"],
    "Stream": [5, 5_000_000, "blue", None, "OK"],
    "finished": [None, "OK"],
    "Call": {"jsonrpc": "2.0", "id": 7, "result": {"text": "alone"}},
    "silent": "UNKNOWN: the server left the request unanswered",
    "notified": "",
    "missing": "UNIMPLEMENTED: this server has no method mcp.MCPService/Nothing",
    "health ": 1,
    "health mcp.grpc.v1.MCPTransport": 1,
    "health mcp.MCPService": 1,
    "health of another": "NOT_FOUND: this server has no such service",
    "watched": 1,
}


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_server(encrypted: bool, tmp_path: Path) -> None:
    handled = Handled()
    target, arguments = Grpc("grpc://127.0.0.1:0", gzip=True), []
    if encrypted:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        target, arguments = Grpc("grpcs://127.0.0.1:0", tls=context), [str(tmp_path / "ca.pem")]
    async with serving(target, handled) as address:
        seen = await grpc_client(address, *arguments)
    late = [seen.pop("late"), seen.pop("late unary")]
    assert all(each.startswith("DEADLINE_EXCEEDED") for each in late)
    malformed = seen.pop("malformed")
    assert malformed.startswith("INVALID_ARGUMENT: this is no message of protocol buffers")
    assert seen == EXPECTED
    assert "lost: the client cancelled the call" in handled.notes
    assert handled.notes.count("cancelled") >= 2
    assert "notifications/x" in handled.notes
    assert {info.tls is not None for info in handled.infos} == {encrypted}
