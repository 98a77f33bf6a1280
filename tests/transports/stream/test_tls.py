"""``tls://``: failed handshakes give their reason; closing works in both directions with data in transit."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from trioxport import (
    Backoff,
    ConnectError,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    Message,
    Notification,
    Reconnect,
    Request,
    Response,
    TLSError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.transports._tls import TLSStream
from trioxport.transports.stream import Tls

HOST = "127.0.0.1"
BIG = "x" * (4 << 20)

versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert(HOST, "localhost")


def server_context(certificate: trustme.LeafCert, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@asynccontextmanager
async def serving(
    handler: Callable[[Connection], Awaitable[object]], context: ssl.SSLContext, **arguments: Any
) -> AsyncGenerator[int]:
    """Serve ``handler`` for the time of the block, which is bounded; yield its port."""
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_transport, handler, Tls(HOST, 0, ssl_context=context), **arguments)
            [address] = await nursery.start(serve)
            yield int(address.rpartition(":")[2])
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def raw_peer(behave: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncGenerator[int]:
    """Serve raw connections with a scripted peer; yield its port."""
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, behave, [listener])
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        assert isinstance(message, Request)
        await connection.tx.send(Response(message.id, message.params))


ASKED = Request(1, "x", {"a": 1})


async def ask(port: int, context: ssl.SSLContext, request: Request = ASKED) -> Connection:
    async with open_transport(Tls(HOST, port, ssl_context=context)) as connection:
        await connection.tx.send(request)
        assert await connection.rx.receive() == Response(request.id, request.params)
    return connection


@versions
async def test_a_conversation(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    seen: list[str | None] = []

    async def handler(connection: Connection) -> None:
        seen.append(connection.info.tls)
        await echo(connection)

    async with serving(handler, server_context(certificate, version)) as port:
        connection = await ask(port, client_context)
    name = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
    assert seen == [name]
    assert connection.info.tls == name
    assert connection.info.peer == f"{HOST}:{port}"


async def test_everything_can_be_said_in_the_url(
    ca: trustme.CA, certificate: trustme.LeafCert, tmp_path: Path, nursery: trio.Nursery
) -> None:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with trio.fail_after(10):
        for own in (f"cert={tmp_path}/both.pem", f"cert={tmp_path}/cert.pem&key={tmp_path}/key.pem"):
            [address] = await nursery.start(serve_transport, echo, f"tls://localhost:0?{own}&framing=length")
            assert address.startswith("tls://") and address.endswith("?framing=length")
            async with open_transport(f"{address}&ca={tmp_path}/ca.pem") as (tx, rx):
                await tx.send(Request(1, "x", ["\n"]))
                assert await rx.receive() == Response(1, ["\n"])
        nursery.cancel_scope.cancel()


async def test_a_certificate_for_another_host_is_refused(ca: trustme.CA, client_context: ssl.SSLContext) -> None:
    async with serving(echo, server_context(ca.issue_cert("elsewhere.example"))) as port:
        with pytest.raises(TLSError, match=r"IP address mismatch.*127\.0\.0\.1.*certificate's names") as caught:
            await ask(port, client_context)
    assert not caught.value.retryable
    assert caught.value.target == f"tls://{HOST}:{port}"
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_an_unknown_issuer_is_refused(certificate: trustme.LeafCert) -> None:
    async with serving(echo, server_context(certificate)) as port:
        with pytest.raises(TLSError, match="unable to get local issuer certificate"):
            await ask(port, ssl.create_default_context())


async def test_an_expired_certificate_is_refused(ca: trustme.CA, client_context: ssl.SSLContext) -> None:
    expired = ca.issue_cert(
        HOST, not_before=datetime(2001, 1, 1, tzinfo=UTC), not_after=datetime(2001, 2, 1, tzinfo=UTC)
    )
    async with serving(echo, server_context(expired)) as port:
        with pytest.raises(TLSError, match="certificate has expired"):
            await ask(port, client_context)


async def test_no_version_in_common(certificate: trustme.LeafCert, client_context: ssl.SSLContext) -> None:
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(echo, server_context(certificate, ssl.TLSVersion.TLSv1_3)) as port:
        with pytest.raises(TLSError, match="alert protocol version"):
            await ask(port, client_context)


async def test_a_peer_without_tls_is_named_as_such(client_context: ssl.SSLContext) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"220 this is something else\r\n")
            await stream.receive_some()

    async with raw_peer(greet) as port:
        with pytest.raises(
            TLSError, match=r"the server does not speak TLS on this port. Check the port. Is it tcp://\?$"
        ):
            await ask(port, client_context)


async def test_a_peer_that_closes_in_the_handshake(client_context: ssl.SSLContext) -> None:
    async def close(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with raw_peer(close) as port:
        with pytest.raises(ConnectError, match=r"closed the connection during the TLS handshake.*speaks TLS") as caught:
            await ask(port, client_context)
    assert type(caught.value) is ConnectError
    assert caught.value.retryable


async def test_a_server_that_dies_in_the_handshake_is_tried_again(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext
) -> None:
    async with serving(echo, server_context(certificate)) as port:
        accepted = 0

        async def die_or_pass(stream: trio.SocketStream) -> None:
            nonlocal accepted
            accepted += 1
            if accepted < 3:
                await stream.receive_some()
                await stream.aclose()
                return
            async with stream, await trio.open_tcp_stream(HOST, port) as onward, trio.open_nursery() as nursery:
                nursery.start_soon(_copy, stream, onward)
                await _copy(onward, stream)
                nursery.cancel_scope.cancel()

        async with raw_peer(die_or_pass) as dying:
            policy = Reconnect(retry_first=True, attempts=3, backoff=Backoff(base=0.01, cap=0.01))
            async with open_transport(Tls(HOST, dying, ssl_context=client_context), reconnect=policy) as (tx, rx):
                await tx.send(Request(1, "echo"))
                assert isinstance(await rx.receive(), Response)
        assert accepted == 3


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for chunk in source:
        await sink.send_all(chunk)


async def test_a_peer_that_says_nothing(client_context: ssl.SSLContext) -> None:
    async def ignore(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with raw_peer(ignore) as port:
        with pytest.raises(ConnectTimeout, match=r"within 0\.05 s"):
            async with open_transport(Tls(HOST, port, ssl_context=client_context), connect_timeout=0.05):
                pytest.fail("it opened")


async def test_a_client_without_tls_does_not_disturb_the_others(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    async with serving(echo, server_context(certificate)) as port:
        async with await trio.open_tcp_stream(HOST, port) as stream:
            await stream.send_all(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            while await _receive_or_end(stream):
                pass
        await ask(port, client_context)
    assert "the client does not speak TLS" in caplog.text
    [told] = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert "TLSError" in told and "Traceback" not in caplog.text


async def _receive_or_end(stream: trio.SocketStream) -> bytes | bytearray:
    try:
        return await stream.receive_some()
    except trio.BrokenResourceError:
        return b""


# Client certificates.


@versions
async def test_a_client_certificate_that_is_demanded_and_shown(
    ca: trustme.CA, certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = server_context(certificate, version)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    ca.issue_cert("client.example").configure_cert(client_context)
    async with serving(echo, context) as port:
        await ask(port, client_context)


@versions
async def test_a_client_certificate_that_is_demanded_and_missing(
    ca: trustme.CA, certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 a client's handshake ends before the server verifies its certificate: it sees a loss."""
    context = server_context(certificate, version)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    async with serving(echo, context) as port:
        with pytest.raises((TLSError, ConnectionLost)) as caught:
            async with open_transport(Tls(HOST, port, ssl_context=client_context)) as (_, rx):
                await rx.receive()
        assert isinstance(caught.value, TLSError if version is ssl.TLSVersion.TLSv1_2 else ConnectionLost)
        assert "certificate required" in str(caught.value) or "handshake failure" in str(caught.value)


async def test_a_server_demands_a_client_certificate_if_it_is_told_whom_to_trust(
    ca: trustme.CA, certificate: trustme.LeafCert, client_context: ssl.SSLContext, tmp_path: Path, nursery: trio.Nursery
) -> None:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    own = Tls(HOST, 0, ca=str(tmp_path / "ca.pem"), cert=str(tmp_path / "both.pem"))
    with trio.fail_after(10):
        [address] = await nursery.start(serve_transport, echo, own)
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConnectionLost, match="certificate required"):
            async with open_transport(Tls(HOST, port, ssl_context=client_context)) as (_, rx):
                await rx.receive()
        ca.issue_cert("client.example").configure_cert(client_context)
        await ask(port, client_context)
        nursery.cancel_scope.cancel()


async def test_files_that_cannot_be_used_are_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(UsageError, match="needs a certificate"):
        await serve_transport(echo, "tls://127.0.0.1:0")
    for query in ("ca=/no/such/file", f"cert={tmp_path}/empty.pem"):
        with pytest.raises(UsageError, match="certificate files"):
            async with open_transport(f"tls://127.0.0.1:1?{query}"):
                pytest.fail("it opened")


# Closing.


@versions
async def test_a_client_half_closes_and_still_gets_every_answer(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async def answer_at_the_end(connection: Connection) -> None:
        requests = [message async for message in connection.rx]
        for request in requests:
            assert isinstance(request, Request)
            await connection.tx.send(Response(request.id, BIG))

    async with (
        serving(answer_at_the_end, server_context(certificate, version)) as port,
        open_transport(Tls(HOST, port, ssl_context=client_context)) as (tx, rx),
    ):
        for number in range(3):
            await tx.send(Request(number, "x"))
        await tx.aclose()
        assert [message async for message in rx] == [Response(number, BIG) for number in range(3)]


@versions
async def test_a_client_half_closes_while_answers_are_under_way(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    news: list[Message] = [Notification("news", [number, "y" * 100_000]) for number in range(40)]

    async def talk(connection: Connection) -> None:
        for message in news:
            await connection.tx.send(message)
        assert [message async for message in connection.rx] == [Notification("last", [BIG])]

    async with (
        serving(talk, server_context(certificate, version)) as port,
        open_transport(Tls(HOST, port, ssl_context=client_context)) as (tx, rx),
    ):
        received = [await rx.receive()]
        await tx.send(Notification("last", [BIG]))
        await tx.aclose()
        received += [message async for message in rx]
    assert received == news


@versions
async def test_a_server_half_closes_and_still_gets_every_message(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    received: list[object] = []
    done = trio.Event()

    async def listen(connection: Connection) -> None:
        await connection.tx.send(Notification("last"))
        await connection.tx.aclose()
        received.extend([message async for message in connection.rx])
        done.set()

    news = [Notification("news", [number, "y" * 100_000]) for number in range(20)]
    async with serving(listen, server_context(certificate, version)) as port:
        async with open_transport(Tls(HOST, port, ssl_context=client_context)) as (tx, rx):
            assert [message async for message in rx] == [Notification("last")]
            for message in news:
                await tx.send(message)
        await done.wait()
    assert received == news


@versions
async def test_big_messages_both_ways_at_once(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async def exchange(connection: Connection, sender: str) -> list[object]:
        received: list[object] = []

        async def send() -> None:
            for number in range(3):
                await connection.tx.send(Notification(sender, [number, BIG]))
            await connection.tx.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received.extend([message async for message in connection.rx])
        return received

    results: list[list[object]] = []
    done = trio.Event()

    async def handler(connection: Connection) -> None:
        results.append(await exchange(connection, "server"))
        done.set()

    async with (
        serving(handler, server_context(certificate, version)) as port,
        open_transport(Tls(HOST, port, ssl_context=client_context)) as connection,
    ):
        results.append(await exchange(connection, "client"))
        await done.wait()
    for sender in ("server", "client"):
        assert [Notification(sender, [number, BIG]) for number in range(3)] in results


# Peers that are not trioxport.


@asynccontextmanager
async def trio_peer(
    context: ssl.SSLContext, behave: Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[object]]
) -> AsyncGenerator[int]:
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_ssl_over_tcp_listeners(0, context, host=HOST)
            nursery.start_soon(trio.serve_listeners, behave, [listener])
            sockets = listener.transport_listener
            assert isinstance(sockets, trio.SocketListener)
            yield sockets.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


@versions
async def test_a_server_made_with_trio(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            received = b""
            async for chunk in stream:
                received += chunk
                while b"\n" in received:
                    line, _, received = received.partition(b"\n")
                    await stream.send_all(line.replace(b'"method":"x","params"', b'"result"') + b"\n")

    async with trio_peer(server_context(certificate, version), answer) as port:
        await ask(port, client_context)
        await ask(port, client_context, Request(2, "x", ["z" * 300_000]))


@versions
async def test_a_stream_that_ends_without_a_close_notify_is_a_loss(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async def answer_and_vanish(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.receive_some()
        await stream.send_all(b'{"jsonrpc":"2.0","id":1,"result":"one"}\n')
        await stream.transport_stream.send_eof()

    async with (
        trio_peer(server_context(certificate, version), answer_and_vanish) as port,
        open_transport(Tls(HOST, port, ssl_context=client_context), close_timeout=0.2) as (tx, rx),
    ):
        await tx.send(Request(1, "x"))
        await tx.send(Request(2, "x"))
        assert await rx.receive() == Response(1, "one")
        undelivered = await rx.receive()
        assert isinstance(undelivered, Undelivered) and undelivered.id == 2
        assert undelivered.outcome == "unknown"
        with pytest.raises(ConnectionLost, match="without a close_notify"):
            await rx.receive()


@versions
async def test_a_blocking_server_made_with_the_standard_library(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = server_context(certificate, version)
    listening = socket.create_server((HOST, 0))
    listening.settimeout(10)
    received: list[bytes] = []

    def answer_once() -> None:
        accepted, _ = listening.accept()
        accepted.settimeout(10)
        with accepted, context.wrap_socket(accepted, server_side=True) as stream:
            file = stream.makefile("rb")
            received.append(file.readline())
            stream.sendall(b'{"jsonrpc":"2.0","id":1,"result":"' + BIG.encode() + b'"}\n')
            received.append(file.read())
            stream.unwrap().close()

    with listening:
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, answer_once)
                target = Tls(HOST, listening.getsockname()[1], ssl_context=client_context)
                async with open_transport(target) as (tx, rx):
                    await tx.send(Request(1, "x"))
                    assert await rx.receive() == Response(1, BIG)
                    await tx.send(Notification("bye"))
                    await tx.aclose()
                    assert [message async for message in rx] == []
    assert received == [b'{"jsonrpc":"2.0","id":1,"method":"x"}\n', b'{"jsonrpc":"2.0","method":"bye"}\n']


# The stream itself.


@asynccontextmanager
async def tls_pair(certified: ssl.SSLContext, trusting: ssl.SSLContext) -> AsyncGenerator[tuple[TLSStream, TLSStream]]:
    """Return a client and a server after their handshake."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
    async with ours, theirs:
        client, server = TLSStream(ours, trusting, HOST), TLSStream(theirs, certified)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.do_handshake)
                nursery.start_soon(server.do_handshake)
            yield client, server


@versions
async def test_after_a_write_that_was_cut_off_nothing_is_written_and_all_is_read(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async with tls_pair(server_context(certificate, version), client_context) as (client, server):
        with trio.move_on_after(0.05) as cut:
            await client.send_all(BIG.encode())
        assert cut.cancelled_caught
        for step in (partial(client.send_all, b"more"), client.send_eof):
            with pytest.raises(trio.BrokenResourceError, match="cut off"):
                await step()
        await server.send_all(b"hello")
        assert await client.receive_some() == b"hello"


@versions
async def test_to_send_nothing_is_no_end(
    certificate: trustme.LeafCert, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    async with tls_pair(server_context(certificate, version), client_context) as (client, server):
        await client.send_all(b"")
        await client.send_all(b"hello")
        await client.send_eof()
        assert await server.receive_some() == b"hello"
        assert await server.receive_some() == b""


async def test_a_cancelled_receive_loses_nothing(certificate: trustme.LeafCert, client_context: ssl.SSLContext) -> None:
    """An HTTP server watches for a client that leaves by a receive that it cancels when the response is written."""
    async with tls_pair(server_context(certificate), client_context) as (client, server):
        await client.send_all(b"1")
        await client.send_all(b"2")
        await client.send_all(b"3")
        received = [await server.receive_some()]
        while received[-1] != b"3":
            with trio.CancelScope() as scope:
                scope.cancel()
                received.append(await server.receive_some())
            received.append(await server.receive_some())
        assert received == [b"1", b"2", b"3"]
