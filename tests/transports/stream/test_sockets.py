"""``tcp://`` and ``unix://``: addresses, refusals, peers that vanish, do not read, or send too much."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from trioxport import (
    Connection,
    ConnectionLost,
    Limits,
    MessageTooLarge,
    NameResolutionError,
    Notification,
    Request,
    Response,
    ServerUnreachable,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.codecs import MessagePack
from trioxport.transports.stream import Tcp, Unix

MIB: Final = 1024 * 1024
HOST: Final = "127.0.0.1"


@asynccontextmanager
async def peer(behave: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncGenerator[str]:
    """Serve raw connections with a scripted peer; yield its target. The block is bounded."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, behave, [listener])
            yield f"tcp://{HOST}:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(
    handler: Callable[[Connection], Awaitable[object]], target: Any = f"tcp://{HOST}:0", **arguments: Any
) -> AsyncGenerator[str]:
    """Serve ``handler`` for the time of the block, which is bounded; yield its first address."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(partial(serve_transport, handler, target, **arguments))
            yield addresses[0]
            nursery.cancel_scope.cancel()


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        assert isinstance(message, Request)
        await connection.tx.send(Response(message.id, message.params))


async def nobody(connection: Connection) -> None:
    raise AssertionError("nobody was to connect")


async def check_echo(target: Any, **arguments: Any) -> None:
    async with open_transport(target, **arguments) as (tx, rx):
        for number in range(3):
            await tx.send(Request(number, "x", ["\n", number]))
        assert [await rx.receive() for _ in range(3)] == [Response(number, ["\n", number]) for number in range(3)]


async def receive_lines(stream: trio.SocketStream, count: int) -> bytes:
    """Read until so many lines have arrived: closing a socket with data unread would reset the connection."""
    received = b""
    while received.count(b"\n") < count:
        received += await stream.receive_some()
    return received


def line(text: str) -> bytes:
    return text.encode() + b"\n"


def reset(stream: trio.SocketStream) -> None:
    """Close as a crashing peer does: with RST instead of FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


# Addresses.


@pytest.mark.parametrize("target", ["tcp://127.0.0.1:0", "tcp://localhost:0", Tcp("127.0.0.1", 0, "length")], ids=str)
async def test_the_reported_address_is_a_target_for_clients(target: Any) -> None:
    async with serving(echo, target) as address:
        assert not address.endswith(":0")
        await check_echo(address)


async def test_messagepack_needs_length_framing() -> None:
    async with serving(echo, f"tcp://{HOST}:0?framing=length", codec=MessagePack) as address:
        assert address.endswith("?framing=length")
        await check_echo(address, codec=MessagePack)
        with pytest.raises(UsageError, match=r"MessagePack does not fit newline framing.*\?framing=length"):
            await check_echo(address.partition("?")[0], codec=MessagePack)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_ipv6_addresses_are_written_in_brackets() -> None:
    if not _has_ipv6():
        with pytest.raises(UsageError, match="cannot listen"):
            await serve_transport(nobody, "tcp://[::1]:0")
        return
    peers: list[str | None] = []

    async def handler(connection: Connection) -> None:
        peers.append(connection.info.peer)
        await echo(connection)

    async with serving(handler, "tcp://[::1]:0") as address:
        assert address.startswith("tcp://[::1]:")
        await check_echo(address)
    assert peers[0] is not None and peers[0].startswith("[::1]:")


async def test_both_sides_know_the_address_of_the_other() -> None:
    seen: list[str | None] = []

    async def handler(connection: Connection) -> None:
        seen.append(connection.info.peer)

    async with serving(handler) as address, open_transport(address) as connection:
        assert connection.info.peer == address.removeprefix("tcp://")
        assert connection.info.tls is None
        assert [message async for message in connection.rx] == []
        assert seen[0] is not None and seen[0].startswith(f"{HOST}:")


async def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind((HOST, 0))  # bound, and so nobody else's, but not listening
        target = f"tcp://{HOST}:{sock.getsockname()[1]}"
        with trio.fail_after(10), pytest.raises(ServerUnreachable) as caught:
            await check_echo(target)
    assert str(caught.value) == f"{target}: cannot connect: Connection refused. {ServerUnreachable.default_hint}"
    assert caught.value.retryable and caught.value.outcome == "not_sent"
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.deadline(60)
async def test_a_name_without_an_address() -> None:
    with trio.fail_after(50), pytest.raises(NameResolutionError, match=r"cannot resolve 'nowhere\.invalid'") as caught:
        async with open_transport("tls://nowhere.invalid:80", connect_timeout=45):
            pytest.fail("it opened")
    assert caught.value.outcome == "not_sent"


async def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(NameResolutionError, match="is no host name") as caught:
        await check_echo(Tcp("a" * 70 + ".example", 80), allow_plaintext=True)
    assert not caught.value.retryable


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "example.invalid", "[2001:db8::1]", "localhost.example"])
async def test_nothing_unencrypted_leaves_this_machine_unless_told(host: str) -> None:
    target = f"tcp://{host}:80"
    with pytest.raises(UsageError, match=r"unencrypted traffic.*allow_plaintext=True"):
        await check_echo(target)
    with pytest.raises(UsageError, match=r"unencrypted traffic.*allow_plaintext=True"):
        await serve_transport(nobody, target)


async def test_plaintext_can_be_allowed() -> None:
    async with serving(echo, "tcp://0.0.0.0:0", allow_plaintext=True) as address:
        await check_echo(address, allow_plaintext=True)


async def test_a_port_that_is_taken() -> None:
    async with serving(nobody) as address:
        with pytest.raises(UsageError, match=r"cannot listen: .*0 for a free one") as caught:
            await serve_transport(nobody, address)
        assert caught.value.target == address


async def test_an_address_that_is_not_this_machines() -> None:
    with pytest.raises(UsageError, match="cannot listen"):
        await serve_transport(nobody, "tcp://192.0.2.1:0", allow_plaintext=True)


async def test_a_handler_that_raises_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            if message.method == "fail":
                raise ValueError("a mistake in the handler")
            await connection.tx.send(Response(message.id, message.params))

    async with serving(handler) as address:
        async with open_transport(address) as (tx, rx):
            await tx.send(Request(1, "fail"))
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered) and undelivered.id == 1
            with pytest.raises((trio.EndOfChannel, ConnectionLost)):
                await rx.receive()
        await check_echo(address)
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "trioxport"
    assert record.exc_info is not None and str(record.exc_info[1]) == "a mistake in the handler"


# Peers that vanish.


async def test_a_reset_is_a_loss_after_all_that_had_arrived() -> None:
    reset_now = trio.Event()

    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(line('{"jsonrpc":"2.0","method":"first"}') + line('{"jsonrpc":"2.0","method":"second"}'))
        await reset_now.wait()
        reset(stream)

    async with peer(behave) as target:
        connection: Connection
        async with open_transport(target) as connection:
            await connection.tx.send(Request(1, "pay"))
            assert await connection.rx.receive() == Notification("first")
            reset_now.set()
            assert await connection.rx.receive() == Notification("second")
            undelivered = await connection.rx.receive()
            assert isinstance(undelivered, Undelivered)
            assert (undelivered.id, undelivered.outcome) == (1, "unknown")
            with pytest.raises(ConnectionLost, match="the connection broke") as caught:
                await connection.rx.receive()
            assert undelivered.cause is caught.value
            with pytest.raises(ConnectionLost) as late:
                await connection.tx.send(Request(2, "pay"))
        assert caught.value.target == target
        assert (caught.value.outcome, late.value.outcome) == ("unknown", "not_sent")
        assert connection.state == "failed"


async def test_what_was_never_written_comes_back_as_not_sent() -> None:
    full = trio.Event()

    async def behave(stream: trio.SocketStream) -> None:
        await full.wait()
        reset(stream)

    big = "x" * (8 * MIB)
    async with peer(behave) as target, open_transport(target, limits=Limits(max_buffered_messages=4)) as (tx, rx):
        await tx.send(Request("stuck", "x", [big]))
        await trio.testing.wait_all_tasks_blocked(0.05)
        for number in range(4):
            await tx.send(Request(number, "x"))
        full.set()
        settled: dict[Any, str] = {}
        for _ in range(5):
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered)
            settled[undelivered.id] = undelivered.outcome
        with pytest.raises(ConnectionLost):
            await rx.receive()
    assert settled == {"stuck": "unknown", 0: "not_sent", 1: "not_sent", 2: "not_sent", 3: "not_sent"}


async def test_a_loss_that_nobody_saw_is_raised_on_leaving() -> None:
    broken = trio.Event()

    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        reset(stream)
        broken.set()

    async def look_away(target: str) -> None:
        async with open_transport(target) as (tx, _):
            await tx.send(Notification("x"))
            await broken.wait()

    async with peer(behave) as target:
        with pytest.raises(ConnectionLost, match="the connection broke"):
            await look_away(target)


@pytest.mark.parametrize("framing", ["newline", "length"])
async def test_a_peer_that_closes_in_the_middle_of_a_message(framing: str) -> None:
    whole = b'{"jsonrpc":"2.0","id":1,"result":1}'
    part = b'{"jsonrpc":"2.0","id":2,"resu'

    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(
            whole + b"\n" + part if framing == "newline" else b"\0\0\0\x23" + whole + b"\0\0\0\xff" + part
        )
        await stream.aclose()

    async with peer(behave) as target, open_transport(f"{target}?framing={framing}") as (tx, rx):
        await tx.send(Request(1, "x"))
        await tx.send(Request(2, "x"))
        assert await rx.receive() == Response(1, 1)
        undelivered = await rx.receive()
        assert isinstance(undelivered, Undelivered) and undelivered.id == 2
        with pytest.raises(ConnectionLost, match=r"in the middle of a message|the connection broke"):
            await rx.receive()


async def test_a_peer_that_ends_before_it_answered() -> None:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with peer(behave) as target, open_transport(target) as (tx, rx):
        await tx.send(Request(1, "x"))
        undelivered = await rx.receive()
        assert isinstance(undelivered, Undelivered)
        assert (undelivered.id, undelivered.outcome) == (1, "unknown")
        assert "before it answered" in str(undelivered.cause)
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


# Peers that do not read.


async def never_read(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_peer_that_never_reads_makes_send_wait() -> None:
    accepted = 0

    async def flood(target: str) -> None:
        nonlocal accepted
        async with open_transport(target, limits=Limits(max_buffered_messages=2), close_timeout=0.1) as (tx, _):
            with trio.move_on_after(0.2) as scope:
                while True:
                    await tx.send(Notification("x", ["y" * MIB]))
                    accepted += 1
            assert scope.cancelled_caught

    async with peer(never_read) as target:
        started = trio.current_time()
        with pytest.raises(ConnectionLost, match="before everything that was sent could be written"):
            await flood(target)
        assert trio.current_time() - started < 5
    assert 2 <= accepted < 40


async def test_leaving_with_an_exception_is_bounded_too_and_the_exception_stays() -> None:
    boom = ValueError("mine")

    async def fail(target: str) -> None:
        async with open_transport(target, close_timeout=0.1) as (tx, _):
            await tx.send(Notification("x", ["y" * 8 * MIB]))
            raise boom

    async with peer(never_read) as target:
        with pytest.raises(ValueError, match="mine") as caught:
            await fail(target)
        assert caught.value is boom


async def test_cancelled_from_around_leaving_waits_for_nobody() -> None:
    async with peer(never_read) as target:
        started = trio.current_time()
        with trio.CancelScope() as scope:
            async with open_transport(target, close_timeout=1000) as (tx, _):
                await tx.send(Notification("x", ["y" * 8 * MIB]))
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() - started < 10


# Half-close.


async def test_a_client_half_closes_and_the_server_answers_after_it() -> None:
    async def answer_at_the_end(connection: Connection) -> None:
        requests = [message async for message in connection.rx]
        for request in requests:
            assert isinstance(request, Request)
            await connection.tx.send(Response(request.id, "x" * MIB))

    async with serving(answer_at_the_end) as address, open_transport(address) as (tx, rx):
        for number in range(5):
            await tx.send(Request(number, "x"))
        await tx.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await tx.send(Request(9, "x"))
        assert [message async for message in rx] == [Response(number, "x" * MIB) for number in range(5)]


async def test_a_server_half_closes_and_the_client_goes_on() -> None:
    received: list[object] = []
    done = trio.Event()

    async def listen(connection: Connection) -> None:
        await connection.tx.send(Notification("last"))
        await connection.tx.aclose()
        received.extend([message async for message in connection.rx])
        done.set()

    async with serving(listen) as address:
        async with open_transport(address) as (tx, rx):
            assert [message async for message in rx] == [Notification("last")]
            for number in range(5):
                await tx.send(Notification("x", [number, "y" * MIB]))
        await done.wait()
    assert received == [Notification("x", [number, "y" * MIB]) for number in range(5)]


# Too much.


@pytest.mark.parametrize("framing", ["newline", "length"])
async def test_a_message_of_64_mib_passes_with_a_raised_limit(framing: str) -> None:
    text = "x" * (64 * MIB)
    limits = Limits(max_message_size=65 * MIB)
    async with (
        serving(echo, f"tcp://{HOST}:0?framing={framing}", limits=limits) as address,
        open_transport(address, limits=limits) as (tx, rx),
    ):
        await tx.send(Request(1, "x", [text]))
        answer = await rx.receive()
    assert isinstance(answer, Response)
    assert answer.result == [text]


async def test_a_message_of_64_mib_is_skipped_with_the_default_limit() -> None:
    """Servers write the id first or last; either way the request that it answers is settled."""
    bulk = b"x" * (64 * MIB)

    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b'{"jsonrpc":"2.0","id":1,"result":"' + bulk + b'"}\n')
        await stream.send_all(b'{"result":"' + bulk + b'","jsonrpc":"2.0","id":"two"}\n')
        await stream.send_all(b'{"jsonrpc":"2.0","method":"' + bulk + b'"}\n')
        await stream.send_all(line('{"jsonrpc":"2.0","id":3,"result":"small"}'))
        await stream.receive_some()

    async with peer(behave) as target, open_transport(target) as connection:
        for request_id in (1, "two", 3):
            await connection.tx.send(Request(request_id, "x"))
        for request_id in (1, "two"):
            undelivered = await connection.rx.receive()
            assert isinstance(undelivered, Undelivered)
            assert undelivered.original == Request(request_id, "x")
            assert undelivered.outcome == "unknown"
            assert isinstance(undelivered.cause, MessageTooLarge)
            assert str(undelivered.cause).startswith(f"{target}: a message of 671089")
        assert await connection.rx.receive() == Response(3, "small")
        assert connection.statistics().discarded == {"MessageTooLarge": 3}
        assert connection.state == "open"


async def test_what_is_too_large_to_send_is_refused_at_once() -> None:
    limits = Limits(max_message_size=100)
    async with serving(echo) as address, open_transport(address, limits=limits) as (tx, rx):
        fits = Request(1, "x", ["y" * (100 - len('{"jsonrpc":"2.0","id":1,"method":"x","params":[""]}'))])
        await tx.send(fits)
        assert await rx.receive() == Response(1, fits.params)
        with pytest.raises(MessageTooLarge, match="of 101 bytes is over the limit of 100") as caught:
            await tx.send(Request(22, "x", fits.params))
        assert caught.value.outcome == "not_sent"
        await tx.send(fits)
        assert await rx.receive() == Response(1, fits.params)


async def test_nonsense_between_messages_is_skipped_and_counted() -> None:
    async def behave(stream: trio.SocketStream) -> None:
        await receive_lines(stream, 2)
        for text in (
            "not JSON",
            '{"jsonrpc":"2.0","id":1,"result":NaN}',
            "[" * 100_000,
            '{"jsonrpc":"1.0"}',
            '{"jsonrpc":"2.0","id":99,"result":"nobody asked"}',
            '{"jsonrpc":"2.0","id":2,"result":"good"}',
            '{"jsonrpc":"2.0","id":2,"result":"again"}',
            '{"jsonrpc":"2.0","method":"end"}',
        ):
            await stream.send_all(line(text))
        await stream.send_all(b"\xff\xfe\n")
        await stream.aclose()

    async with peer(behave) as target, open_transport(target) as connection:
        await connection.tx.send(Request(1, "x"))
        await connection.tx.send(Request(2, "x"))
        undelivered = await connection.rx.receive()
        assert isinstance(undelivered, Undelivered) and undelivered.id == 1
        rest = [message async for message in connection.rx]
        assert rest == [Response(2, "good"), Notification("end")]
        assert connection.statistics().discarded == {"DecodeError": 4, "ProtocolViolation": 3}


# Unix sockets.


async def test_a_unix_socket_is_private_and_leaves_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "a socket?#%"
    seen: list[str | None] = []

    async def handler(connection: Connection) -> None:
        seen.append(connection.info.peer)
        await echo(connection)

    async with serving(handler, Unix(str(path))) as address:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
        await check_echo(address)
        await check_echo(Unix(str(path)))
    assert not path.exists()
    assert seen == [None, None]


async def test_the_mode_is_set_before_anybody_can_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    refused: list[int] = []
    chmod = os.chmod

    def watched(target: str, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            refused.append(sock.connect_ex(target))
        chmod(target, mode)

    monkeypatch.setattr(os, "chmod", watched)
    async with serving(echo, Unix(str(path))) as address:
        await check_echo(address)
    assert refused == [errno.ECONNREFUSED]


async def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with trio.fail_after(5), pytest.raises(ServerUnreachable, match="Connection refused"):
        await check_echo(Unix(str(path)))
    async with serving(echo, Unix(str(path))) as address:
        await check_echo(address)
    assert not path.exists()


async def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    async with serving(echo, Unix(str(tmp_path / "s"))) as address:
        with pytest.raises(UsageError, match="a server listens on this socket already"):
            await serve_transport(nobody, address)
        await check_echo(address)


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(UsageError, match="no socket"):
        await serve_transport(nobody, f"unix://{path}")
    assert path.read_text() == "data"


async def test_a_server_removes_no_socket_but_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(echo, Unix(str(path))):
        path.rename(tmp_path / "mine")
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


@pytest.mark.parametrize("name", ["missing/s", "x" * 200], ids=["no directory", "too long"])
async def test_a_path_that_cannot_be(tmp_path: Path, name: str) -> None:
    target = Unix(str(tmp_path / name))
    with pytest.raises(UsageError, match=r"cannot listen: (No such file|AF_UNIX path too long|File name too long)"):
        await serve_transport(nobody, target)
    with pytest.raises(ServerUnreachable, match=r"cannot connect: (No such file|AF_UNIX path too long|File name)"):
        await check_echo(target)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the connection")
@pytest.mark.parametrize("url", ["unix://{}", "http+unix://{}#/mcp"])
async def test_a_unix_server_that_accepts_too_slowly_cannot_be_reached(url: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as waiting:
        server.bind(path)
        server.listen(0)
        waiting.connect(path)
        with pytest.raises(ServerUnreachable, match="cannot connect"):
            async with open_transport(url.format(path)):
                pass


async def test_a_platform_without_unix_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    target = Unix(str(tmp_path / "s"))
    with pytest.raises(UsageError, match=r"no Unix sockets.*tcp://127\.0\.0\.1"):
        await serve_transport(nobody, target)
    with pytest.raises(UsageError, match="no Unix sockets"):
        await check_echo(target)
