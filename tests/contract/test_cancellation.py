"""Cancelled at every step: whatever is going on, nothing is left behind and no message is torn.

Each conversation runs again and again, in a run of Trio of its own. The first time it is cancelled before the first
step of any task, the next time before the second, until it is over before that. The time-outs are so long that
whatever would wait for one of them goes over the deadline of the test.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, TypeAlias

import pytest
import trio
import trio.testing
import trustme

from tests.support.cancel_everywhere import Cut, sweep
from tests.support.raw_http import modern
from tests.support.raw_http2 import REQUEST
from trioxport import (
    Connection,
    Limits,
    Notification,
    Request,
    Response,
    Target,
    Undelivered,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport.transports._http2 import Http2Connection, Http2Error, Http2Settings, Http2Stream, open_http2
from trioxport.transports.grpc import Grpc
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer
from trioxport.transports.memory import Memory
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tcp, Tls, Unix
from trioxport.transports.websocket import WebSocket

LONG: Final = 1000.0
PATIENT: Final[dict[str, Any]] = {"connect_timeout": LONG, "close_timeout": LONG}
FIRST, SECOND, THIRD = (Notification("echo", [number]) for number in range(3))

MakeTargets: TypeAlias = Callable[[Path], tuple[Target, Callable[[str], Target]]]
"""What to serve, and what to open once it has an address."""


class EchoServer:
    """Sends back what it gets."""

    def __init__(self) -> None:
        self.received: list[object] = []
        self.at_work = 0

    async def handle(self, connection: Connection) -> None:
        self.at_work += 1
        try:
            async for message in connection.rx:
                if not isinstance(message, Undelivered):
                    self.received.append(message)
                    await connection.tx.send(message)
        finally:
            assert connection.statistics().discarded == {}
            self.at_work -= 1

    async def idle(self) -> None:
        """Wait until every handler is over."""
        while self.at_work:
            await trio.testing.wait_all_tasks_blocked(0.001)


def memory(_folder: Path) -> tuple[Target, Callable[[str], Target]]:
    return Memory("echo"), str


def tcp(_folder: Path) -> tuple[Target, Callable[[str], Target]]:
    return Tcp("127.0.0.1", 0), str


def unix(folder: Path) -> tuple[Target, Callable[[str], Target]]:
    return Unix(str(folder / "socket")), str


def tls(folder: Path) -> tuple[Target, Callable[[str], Target]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return (
        Tls("127.0.0.1", 0, cert=str(folder / "server.pem")),
        lambda address: f"{address}?ca={folder / 'ca.pem'}",
    )


def ws(_folder: Path) -> tuple[Target, Callable[[str], Target]]:
    return WebSocket("ws://127.0.0.1:0"), str


def native_ws(_folder: Path) -> tuple[Target, Callable[[str], Target]]:
    return WebSocket("ws://127.0.0.1:0"), lambda address: WebSocket(address)


def grpc(_folder: Path) -> tuple[Target, Callable[[str], Target]]:
    return Grpc("grpc://127.0.0.1:0"), str


SERVERS: Final[tuple[MakeTargets, ...]] = (memory, tcp, unix, tls, ws, native_ws, grpc)
over_each_server = pytest.mark.parametrize("make", SERVERS, ids=lambda make: make.__name__)

Use: TypeAlias = Callable[[Cut, Target], Awaitable[None]]


def sweep_client(make: MakeTargets, folder: Path, use: Use) -> None:
    """Sweep what a client does. The server is not cancelled, and serves the next client as if nothing had happened."""
    served, to_client = make(folder)

    async def conversation(cut: Cut) -> None:
        server = EchoServer()
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_transport, server.handle, served)
            await use(cut, to_client(address))
            await server.idle()
            assert server.received == [FIRST, SECOND, THIRD][: len(server.received)]
            await talk(to_client(address))
            await server.idle()
            nursery.cancel_scope.cancel()

    sweep(conversation)
    assert not (folder / "socket").exists()


def sweep_child(use: Use) -> None:
    """Sweep what a client does with a child process that sends back what it gets."""

    async def conversation(cut: Cut) -> None:
        await use(cut, Stdio("cat"))

    sweep(conversation)


async def talk(target: Target) -> None:
    """Everything that there is to do with a connection, once."""
    async with open_transport(target, **PATIENT) as (tx, rx):
        await tx.send(FIRST)
        await tx.send(SECOND)
        assert [await rx.receive(), await rx.receive()] == [FIRST, SECOND]
        await tx.send(THIRD)
        await tx.aclose()
        assert [message async for message in rx] == [THIRD]


async def all_of_it(cut: Cut, target: Target) -> None:
    with cut.here():
        await talk(target)


@over_each_server
def test_a_client(make: MakeTargets, tmp_path: Path) -> None:
    sweep_client(make, tmp_path, all_of_it)


@pytest.mark.deadline(60)
def test_a_client_of_a_child() -> None:
    sweep_child(all_of_it)


async def in_a_nursery(cut: Cut, target: Target) -> None:
    with cut.here():
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, target, **PATIENT)
            await connection.tx.send(FIRST)
            assert await connection.rx.receive() == FIRST
            await connection.aclose()


@over_each_server
def test_a_connection_in_the_nursery_of_the_caller(make: MakeTargets, tmp_path: Path) -> None:
    sweep_client(make, tmp_path, in_a_nursery)


def test_a_connection_to_a_child_in_the_nursery_of_the_caller() -> None:
    sweep_child(in_a_nursery)


async def closing(cut: Cut, target: Target) -> None:
    """Closing alone is cancelled, not the nursery that carries the connection."""
    async with trio.open_nursery() as nursery:
        connection = await connect_transport(nursery, target, **PATIENT)
        await connection.tx.send(FIRST)
        assert await connection.rx.receive() == FIRST
        with cut.here():
            await connection.aclose()
    assert connection.state == "closed"
    with pytest.raises(trio.ClosedResourceError):
        await connection.tx.send(SECOND)
    with pytest.raises(trio.ClosedResourceError):
        await connection.rx.receive()


@over_each_server
def test_closing(make: MakeTargets, tmp_path: Path) -> None:
    sweep_client(make, tmp_path, closing)


def test_closing_a_child() -> None:
    sweep_child(closing)


async def sending(cut: Cut, target: Target) -> None:
    """A message whose sending is cancelled is sent wholly or not at all; those before and after it are sent."""
    came_back: list[object] = []
    accepted = False

    async def receive_all() -> None:
        came_back.extend([message async for message in rx])

    async with (
        open_transport(target, limits=Limits(max_buffered_messages=0), **PATIENT) as (tx, rx),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(receive_all)
        await tx.send(FIRST)
        with cut.here():
            await tx.send(SECOND)
            accepted = True
        if accepted:
            await tx.send(THIRD)
        await tx.aclose()
    assert came_back == [FIRST, SECOND, THIRD] if accepted else came_back in ([FIRST], [FIRST, SECOND])


@over_each_server
def test_sending(make: MakeTargets, tmp_path: Path) -> None:
    sweep_client(make, tmp_path, sending)


def test_sending_to_a_child() -> None:
    sweep_child(sending)


async def receiving(cut: Cut, target: Target) -> None:
    """A message that a cancelled ``receive`` did not return is returned by the next one."""
    came_back: list[object] = []

    async def send_all() -> None:
        for message in (FIRST, SECOND, THIRD):
            await tx.send(message)
        await tx.aclose()

    async with (
        open_transport(target, limits=Limits(max_buffered_messages=0), **PATIENT) as (tx, rx),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_all)
        with cut.here():
            came_back.append(await rx.receive())
            came_back.append(await rx.receive())
        came_back += [message async for message in rx]
    assert came_back == [FIRST, SECOND, THIRD]


@over_each_server
def test_receiving(make: MakeTargets, tmp_path: Path) -> None:
    sweep_client(make, tmp_path, receiving)


def test_receiving_from_a_child() -> None:
    sweep_child(receiving)


async def half_closing(cut: Cut, target: Target) -> None:
    """A half-close is one, cancelled or not."""
    async with open_transport(target, **PATIENT) as (tx, rx):
        await tx.send(FIRST)
        with cut.here():
            await tx.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await tx.send(SECOND)
        assert [message async for message in rx] == [FIRST]


@over_each_server
def test_half_closing(make: MakeTargets, tmp_path: Path) -> None:
    sweep_client(make, tmp_path, half_closing)


def test_half_closing_to_a_child() -> None:
    sweep_child(half_closing)


@over_each_server
def test_a_server_and_its_client(make: MakeTargets, tmp_path: Path) -> None:
    """Both are cancelled together."""
    served, to_client = make(tmp_path)

    async def conversation(cut: Cut) -> None:
        server = EchoServer()
        with cut.here():
            async with trio.open_nursery() as nursery:
                [address] = await nursery.start(serve_with_patience, server.handle, served)
                await talk(to_client(address))
                nursery.cancel_scope.cancel()
        assert server.at_work == 0
        assert not (tmp_path / "socket").exists()

    sweep(conversation)


async def serve_with_patience(
    handler: Callable[[Connection], Awaitable[object]],
    target: Target,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    await serve_transport(handler, target, task_status=task_status, **PATIENT)


def test_a_request_that_was_not_accepted_can_be_made_again() -> None:
    """Its id is free."""

    async def answer(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            await connection.tx.send(Response(message.id, message.params))

    async def conversation(cut: Cut) -> None:
        request = Request(1, "echo", [1])
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_transport, answer, "memory://requests")
            async with open_transport(address, **PATIENT) as (tx, rx):
                accepted = False
                with cut.here():
                    await tx.send(request)
                    accepted = True
                if not accepted:
                    await tx.send(request)
                assert await rx.receive() == Response(1, [1])
            nursery.cancel_scope.cancel()

    sweep(conversation)


# HTTP/2, where requests share a connection. Each is a connection of its own to the handler of a modern server.


async def answer_requests(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {}))


BY_HTTP: Final = HttpServer("http://127.0.0.1:0/mcp"), lambda address: Http(address, http2=True)
BY_UNARY_GRPC: Final = Grpc("grpc://127.0.0.1:0"), lambda address: Grpc(address, method="mcp.MCPService/Call")
each_binding = pytest.mark.parametrize("binding", [BY_HTTP, BY_UNARY_GRPC], ids=["http", "unary grpc"])
Binding: TypeAlias = tuple[Target, Callable[[str], Target]]


async def ask_once(target: Target) -> None:
    async with open_transport(target, **PATIENT) as (tx, rx):
        await tx.send(Request(1, "echo", modern("echo")["params"]))
        assert await rx.receive() == Response(1, {})


@each_binding
def test_a_client_of_http2(binding: Binding) -> None:
    """The server goes on, and serves the next client."""

    served, to_client = binding

    async def conversation(cut: Cut) -> None:
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_transport, answer_requests, served)
            with cut.here():
                await ask_once(to_client(address))
            await ask_once(to_client(address))
            nursery.cancel_scope.cancel()

    sweep(conversation)


@each_binding
def test_a_server_of_http2_and_its_client(binding: Binding) -> None:
    served, to_client = binding

    async def conversation(cut: Cut) -> None:
        with cut.here():
            async with trio.open_nursery() as nursery:
                [address] = await nursery.start(serve_with_patience, answer_requests, served)
                await ask_once(to_client(address))
                nursery.cancel_scope.cancel()

    sweep(conversation)


BODY: Final = b"x" * 70_000
NARROW: Final = Http2Settings(stream_window=65_536)


def test_a_request_of_http2() -> None:
    """Its body waits for a window. Cancelled, it ends its stream; the connection goes on with the next request."""

    async def echo(streams: trio.Nursery, server: Http2Connection) -> None:
        async for stream in server.requests:
            streams.start_soon(answer, stream)

    async def answer(stream: Http2Stream) -> None:
        with stream, suppress(Http2Error):
            await stream.send_headers([(b":status", b"200")])
            while data := await stream.receive_data():
                await stream.send_data(data)
            await stream.send_data(b"", end_stream=True)

    async def ask(client: Http2Connection) -> None:
        with await client.request(REQUEST) as stream:
            await stream.send_data(BODY, end_stream=True)
            received = bytearray()
            while data := await stream.receive_data():
                received += data
            assert received == BODY

    async def conversation(cut: Cut) -> None:
        near, far = trio.testing.memory_stream_pair()
        async with (
            trio.open_nursery() as nursery,
            open_http2(far, NARROW, role="server") as server,
            near,
            open_http2(near, NARROW, role="client") as client,
        ):
            nursery.start_soon(echo, nursery, server)
            with cut.here():
                await ask(client)
            assert client.open_streams == 0
            await ask(client)

    sweep(conversation)


def test_a_server_of_standard_streams() -> None:
    """They are put back, and blocking again. A file as the output, since a pipe would be closed."""
    expected = [[FIRST, SECOND][:number] for number in range(3)]

    async def conversation(cut: Cut) -> None:
        server = EchoServer()
        with standard_streams(FIRST_AND_SECOND) as output:
            with cut.here():
                await serve_with_patience(server.handle, "stdio:")
            os.write(1, b"after\n")
            assert os.get_blocking(0)
            assert os.get_blocking(1)
            assert server.at_work == 0
            assert server.received in expected
            output.seek(0)
            *echoed, last = output.read().splitlines(keepends=True)
        assert b"".join(echoed) in (b"", FIRST_AND_SECOND[: len(FIRST_AND_SECOND) // 2], FIRST_AND_SECOND)
        assert last == b"after\n"

    sweep(conversation)


FIRST_AND_SECOND: Final = (
    b'{"jsonrpc":"2.0","method":"echo","params":[0]}\n{"jsonrpc":"2.0","method":"echo","params":[1]}\n'
)


@contextmanager
def standard_streams(data: bytes) -> Generator[IO[bytes]]:
    """Let descriptor 0 be a pipe with ``data`` in it, and descriptor 1 the file that is yielded."""
    kept = os.dup(0), os.dup(1)
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with TemporaryFile() as output:
        os.dup2(reading, 0)
        os.dup2(output.fileno(), 1)
        try:
            yield output
        finally:
            for standard, descriptor in enumerate(kept):
                os.dup2(descriptor, standard)
                os.close(descriptor)
            os.close(reading)
