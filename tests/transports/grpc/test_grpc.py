"""gRPC between both sides of trioxport, peers of other protocols, access, and options that cannot work."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock

from tests.support.raw_http2 import PREFACE, settings
from trioxport import (
    AuthenticationError,
    ConnectError,
    Connection,
    ConnectionLost,
    ErrorResponse,
    Http,
    HTTPStatusError,
    Limits,
    MessageTooLarge,
    Notification,
    PermissionDenied,
    RateLimited,
    Reconnecting,
    Request,
    Response,
    TLSError,
    TransportError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport._core.token_bucket import Rate
from trioxport.auth import Bearer, TLSOptions, VerifiedToken
from trioxport.targets import to_transport
from trioxport.transports._http2 import Http2Settings, Http2Stream, open_http2
from trioxport.transports.grpc import Grpc

BOUND: Final = 20.0
CALL: Final = "mcp.MCPService/Call"
METHODS: Final = ("mcp.grpc.v1.MCPTransport/Connect", CALL)
each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _waits_for_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is an error of connecting, however busy the machine is."""
    monkeypatch.setattr("trioxport.transports.grpc.client.REFUSAL_SECONDS", 5.0)


@asynccontextmanager
async def serving(target: Any, handler: Any = None, *, bound: float = BOUND, **options: Any) -> AsyncGenerator[str]:
    with trio.fail_after(bound):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(serve_transport, handler or echo, target, **options))
            yield address
            nursery.cancel_scope.cancel()


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.params))


async def failure(target: Any) -> TransportError:
    """The error with which a target refuses to open, or with which it returns a request."""
    try:
        async with open_transport(target) as (tx, rx):
            await tx.send(Request(1, "x"))
            answer = await rx.receive()
    except TransportError as error:
        return error
    assert isinstance(answer, Undelivered), answer
    return answer.cause


# Peers of other protocols


@asynccontextmanager
async def peer(
    behave: Callable[[trio.SocketStream], Awaitable[object]], *, bound: float = BOUND
) -> AsyncGenerator[str]:
    with trio.fail_after(bound):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, behave, [listener])
            yield f"grpc://127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


def certificates(folder: Path) -> tuple[TLSOptions, TLSOptions]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return TLSOptions(cert=str(folder / "server.pem")), TLSOptions(ca=str(folder / "ca.pem"))


@each_method
async def test_plaintext_to_a_port_with_tls_and_the_reverse(method: str, tmp_path: Path) -> None:
    certified, trusting = certificates(tmp_path)
    async with serving(Grpc("grpcs://127.0.0.1:0", tls=certified)) as address:
        async with open_transport(Grpc(address, tls=trusting, method=method)) as (tx, rx):
            await tx.send(Request(1, "x", {}))
            assert await rx.receive() == Response(1, {})
        error = await failure(Grpc(address.replace("grpcs", "grpc"), method=method))
        assert isinstance(error, ConnectError)
        assert "closed the connection without an answer" in str(error)
        assert "if it speaks TLS there, use grpcs://" in str(error)
    async with serving("grpc://127.0.0.1:0") as address:
        error = await failure(Grpc(address.replace("grpc", "grpcs"), tls=trusting, method=method))
        assert isinstance(error, TLSError)
        assert "the server does not speak TLS on this port. Check the port. Is it grpc://?" in str(error)


@each_method
async def test_a_tls_alert(method: str) -> None:
    async def alert(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(bytes.fromhex("15030100020246"))
        await stream.aclose()

    async with peer(alert) as address:
        error = await failure(Grpc(address, method=method))
    assert isinstance(error, TLSError)
    assert "the server speaks TLS on this port, and the call was not encrypted. Use grpcs://" in str(error)


@each_method
async def test_a_server_of_http1(method: str) -> None:
    async def http1(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        await stream.aclose()

    async with peer(http1) as address:
        error = await failure(Grpc(address, method=method))
    assert isinstance(error, ConnectError)
    assert not error.retryable
    assert "the server speaks HTTP/1.1 on this port, not gRPC: HTTP/1.1 400 Bad Request" in str(error)


@each_method
@pytest.mark.parametrize(
    ("greeting", "shown"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2"), (b"<!DOCTYPE HTML>\n<html>", "<!DOCTYPE HTML>")],
)
async def test_a_server_of_another_protocol(method: str, greeting: bytes, shown: str) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(greeting)
            await stream.receive_some()

    async with peer(speak) as address:
        error = await failure(Grpc(address, method=method))
    assert isinstance(error, ConnectError)
    assert not error.retryable
    assert f"the server speaks another protocol on this port, not gRPC: {shown}. Check the port" in str(error)


@each_method
async def test_a_server_of_streamable_http(method: str) -> None:
    async with serving("http://127.0.0.1:0/mcp") as address:
        error = await failure(Grpc(f"grpc://{urlsplit(address).netloc}", method=method))
    assert isinstance(error, HTTPStatusError)
    assert error.status == 404
    assert "A web server answers, not one of gRPC: Streamable HTTP is written http(s)://HOST:PORT/PATH" in str(error)


@pytest.mark.parametrize(
    ("http2", "text"),
    [
        (False, "the server speaks HTTP/2 alone, as one of gRPC does, which is written grpc(s)://HOST:PORT"),
        (True, "415. Is it a server of gRPC? That is written grpc(s)://HOST:PORT"),
    ],
)
async def test_a_client_of_streamable_http(http2: bool, text: str) -> None:
    async with serving("grpc://127.0.0.1:0") as address:
        error = await failure(Http(address.replace("grpc", "http"), http2=http2))
    assert text in str(error)


async def test_the_legacy_era_has_no_unary_calls() -> None:
    async with serving("grpc://127.0.0.1:0") as address, open_transport(Grpc(address, method=CALL)) as (tx, rx):
        await tx.send(Request(1, "initialize", {}))
        refused = await rx.receive()
        assert isinstance(refused, Undelivered)
        assert isinstance(refused.cause, UsageError)
        assert "the unary method carries the modern era alone" in str(refused.cause)


@each_method
@pytest.mark.parametrize(("status", "text"), [(b"502", "502"), (b"200", "the answer is text/html, not gRPC: Welcome")])
async def test_a_page_of_a_gateway(method: str, status: bytes, text: str) -> None:
    page = b"<html><title>Welcome</title></html>"

    async def respond(stream: Http2Stream) -> None:
        with stream:
            await stream.send_headers([(b":status", status), (b"content-type", b"text/html")])
            await stream.send_data(page, end_stream=True)

    async def gateway(stream: trio.SocketStream) -> None:
        async with (
            stream,
            open_http2(stream, Http2Settings(), role="server") as connection,
            trio.open_nursery() as nursery,
        ):
            async for request in connection.requests:
                nursery.start_soon(respond, request)

    async with peer(gateway) as address:
        error = await failure(Grpc(address, method=method))
    assert isinstance(error, HTTPStatusError)
    assert error.status == int(status)
    assert text in str(error)
    assert "Welcome" in str(error)


@each_method
async def test_a_method_that_the_server_does_not_have(method: str) -> None:
    async with serving("grpc://127.0.0.1:0") as address:
        error = await failure(Grpc(address, method="other.Service/Method"))
        assert isinstance(error, ConnectError)
        assert "UNIMPLEMENTED: this server has no method other.Service/Method" in str(error)
        assert error.outcome == "not_sent"
    target = Grpc("grpc://127.0.0.1:0", method="other.Service/Method")
    async with serving(target) as address, open_transport(attrs.evolve(target, url=address)) as (tx, rx):
        await tx.send(Request(1, "x", {}))
        assert await rx.receive() == Response(1, {})


async def test_a_message_over_the_limit_of_the_server() -> None:
    """It costs the request alone: a unary call is refused, and a stream goes on."""
    limits = Limits(max_message_size=1000)
    large = Request(1, "x", {"text": "x" * 2000})
    async with serving("grpc://127.0.0.1:0", limits=limits) as address:
        for method in METHODS:
            async with open_transport(Grpc(address, method=method)) as (tx, rx):
                await tx.send(large)
                refused = await rx.receive()
                if method == CALL:
                    assert isinstance(refused, Undelivered)
                    assert isinstance(refused.cause, MessageTooLarge)
                    assert "RESOURCE_EXHAUSTED: Received message larger than max (1000)" in str(refused.cause)
                else:
                    assert isinstance(refused, ErrorResponse)
                await tx.send(Request(2, "x", {}))
                assert await rx.receive() == Response(2, {})


# Access


@each_method
async def test_tokens_and_rates(method: str) -> None:
    async def verify(token: str) -> str | None:
        if token == "narrow":
            raise PermissionDenied("not for this")
        return {"good": "ada"}.get(token)

    async def whoami(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            shown = {"principal": connection.info.principal, "token": connection.info.headers.get("authorization")}
            await connection.tx.send(Response(message.id, shown))

    server = Grpc("grpc://127.0.0.1:0", verify=verify, rate=Rate(1, per=3600))
    async with serving(server, whoami) as address:
        assert isinstance(await failure(Grpc(address, method=method)), AuthenticationError)
    async with serving(server, whoami) as address:
        assert isinstance(await failure(Grpc(address, method=method, auth=Bearer("narrow"))), PermissionDenied)
    async with serving(server, whoami) as address:
        target = Grpc(address, method=method, auth=Bearer("good"))
        async with open_transport(target) as (tx, rx):
            await tx.send(Request(1, "x"))
            assert await rx.receive() == Response(1, {"principal": "ada", "token": None})
        error = await failure(target)
        assert isinstance(error, RateLimited)
        assert error.retry_after


class Renewed:
    """Credentials whose token is a new one each time."""

    def __init__(self) -> None:
        self.tokens = 0

    async def headers(self) -> Mapping[str, str]:
        self.tokens += 1
        return {"authorization": f"Bearer {self.tokens}"}

    async def refused(self, headers: Mapping[str, str]) -> bool:
        return False


async def test_a_stream_ends_with_its_token_and_comes_back_with_another(jumping_clock: MockClock) -> None:
    async def verify(token: str) -> VerifiedToken:
        return VerifiedToken(token, expires_at=time.time() + 60 if token == "1" else None)

    async def whoami(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request) and message.method == "whoami":
                await connection.tx.send(Response(message.id, connection.info.principal))

    async with serving(Grpc("grpc://127.0.0.1:0", verify=verify), whoami, bound=math.inf) as address:
        credentials = Renewed()
        async with open_transport(Reconnecting(Grpc(address, auth=credentials))) as (tx, rx):
            await tx.send(Request(1, "whoami"))
            assert await rx.receive() == Response(1, "1")
            await tx.send(Request(2, "nothing"))
            unanswered = await rx.receive()
            assert trio.current_time() > 50
            assert isinstance(unanswered, Undelivered)
            assert unanswered.outcome == "unknown"
            assert "UNAUTHENTICATED: the token has expired" in str(unanswered.cause)
            await tx.send(Request(3, "whoami"))
            assert await rx.receive() == Response(3, "2")
        with pytest.raises(ConnectionLost, match="the token has expired"):
            async with open_transport(Grpc(address, auth=Bearer("1"))) as (_, rx):
                await rx.receive()


# Pings


@each_method
async def test_pings_that_are_answered_keep_a_connection(method: str, jumping_clock: MockClock) -> None:
    server = Grpc("grpc://127.0.0.1:0", keepalive=10.0)

    async def answer_late(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            await trio.sleep(60)
            await connection.tx.send(Response(message.id, {}))

    async with (
        serving(server, answer_late, bound=math.inf) as address,
        open_transport(Grpc(address, method=method, keepalive=10.0)) as (tx, rx),
    ):
        await tx.send(Request(1, "x"))
        assert await rx.receive() == Response(1, {})
        assert trio.current_time() >= 60


async def test_a_ping_that_is_not_answered_ends_the_connection(jumping_clock: MockClock) -> None:
    """It is not sent earlier than servers of gRPC accept."""

    async def be_mute(stream: trio.SocketStream) -> None:
        await stream.send_all(settings())
        async for _ in stream:
            pass

    async with peer(be_mute, bound=math.inf) as address, open_transport(address) as (tx, rx):
        began = trio.current_time()
        await tx.send(Request(1, "x"))
        assert isinstance(await rx.receive(), Undelivered)
        with pytest.raises(ConnectionLost, match="the peer did not answer a ping within 20 s"):
            await rx.receive()
        assert trio.current_time() - began > 5 * 60 + 20


async def test_a_client_that_is_gone_without_a_word_takes_no_place_for_ever(jumping_clock: MockClock) -> None:
    """Not even if it had no call: the pings of the server go to each client."""
    server = Grpc("grpc://127.0.0.1:0", keepalive=10.0, max_connections=1)
    async with serving(server, bound=math.inf) as address:
        stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(address).port or 0)
        async with stream:
            await stream.send_all(PREFACE + settings())
            with trio.move_on_after(100) as waiting:
                async for _ in stream:
                    pass
            assert not waiting.cancelled_caught
        async with open_transport(address) as (tx, rx):
            await tx.send(Request(1, "x", {}))
            assert await rx.receive() == Response(1, {})


# The unary method


async def test_a_cancelled_receive_loses_no_answer() -> None:
    numbers = range(50)
    answers: list[object] = []
    async with serving("grpc://127.0.0.1:0") as address, open_transport(Grpc(address, method=CALL)) as (tx, rx):
        for number in numbers:
            await tx.send(Request(number, "x", {"number": number}))
        while len(answers) < len(numbers):
            with trio.CancelScope() as scope:
                scope.cancel()
                await rx.receive()
            answers.append(await rx.receive())
    assert {answer.id for answer in answers if isinstance(answer, Response)} == set(numbers)


async def test_a_cancelled_request_cancels_its_handler_and_no_other() -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def wait(connection: Connection) -> None:
        request = await connection.rx.receive()
        assert isinstance(request, Request)
        if request.method == "wait":
            started.set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
        await connection.tx.send(Response(request.id, {}))

    async with (
        serving("grpc://127.0.0.1:0", wait) as address,
        open_transport(Grpc(address, method=CALL)) as (tx, rx),
    ):
        await tx.send(Request(1, "wait"))
        await started.wait()
        await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
        await cancelled.wait()
        await tx.send(Request(2, "echo"))
        assert await rx.receive() == Response(2, {})


async def test_a_unary_client_connects_again_after_the_server_was_stopped() -> None:
    async with trio.open_nursery() as nursery:
        stop = trio.CancelScope()
        address = await nursery.start(serve_until, "grpc://127.0.0.1:0", stop)
        async with open_transport(Grpc(address, method=CALL)) as (tx, rx):
            await tx.send(Request(1, "x", {}))
            assert await rx.receive() == Response(1, {})
            stop.cancel()
            await trio.testing.wait_all_tasks_blocked()  # the client has read the goodbye
            again = trio.CancelScope()
            await nursery.start(serve_until, address, again)
            await tx.send(Request(2, "x", {}))
            assert await rx.receive() == Response(2, {})
            await tx.send(Response(9, {}))
            refused = await rx.receive()
            assert isinstance(refused, Undelivered)
            assert isinstance(refused.cause, UsageError)
        again.cancel()


async def test_a_connection_that_is_made_again_has_its_time(tmp_path: Path, jumping_clock: MockClock) -> None:
    """A server that is there again, and says nothing, holds up requests for ``connect_timeout``, not for ever."""
    server, client = certificates(tmp_path)
    stop = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_until, Grpc("grpcs://127.0.0.1:0", tls=server), stop)
        target = Grpc(address, method=CALL, tls=client)
        async with open_transport(target, connect_timeout=5) as (tx, rx):
            await tx.send(Request(1, "x", {}))
            assert await rx.receive() == Response(1, {})
            stop.cancel()
            await trio.testing.wait_all_tasks_blocked(0.05)
            listeners = await trio.open_tcp_listeners(urlsplit(address).port or 0, host="127.0.0.1")
            began = trio.current_time()
            await tx.send(Request(2, "x", {}))
            with trio.fail_after(100):
                refused = await rx.receive()
            assert isinstance(refused, Undelivered)
            assert str(refused.cause).startswith(f"{address}: no connection within 5 s")
            assert trio.current_time() - began < 6
            for listener in listeners:
                await listener.aclose()


async def serve_until(url: Any, stop: trio.CancelScope, *, task_status: trio.TaskStatus[str]) -> None:
    """Serve until ``stop`` is cancelled."""
    with stop:
        async with serving(url) as address:
            task_status.started(address)
            await trio.sleep_forever()


# Options


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("grpc://127.0.0.1/path", {}, r"The method is an option"),
        ("grpc://user:secret@host:1", {}, "credentials in a URL"),
        ("http://host:1", {}, r"is written grpc\(s\)://HOST:PORT"),
        ("grpc://host:1", {"method": "no method"}, "is no method. Write it as mcp.grpc.v1.MCPTransport/Connect"),
        ("grpc://host:1", {"headers": {"grpc-timeout": "1S"}}, "is for gRPC to set"),
        ("grpc://host:1", {"deadline": 0}, "deadline has to be a finite number above 0"),
    ],
)
def test_options_that_cannot_work(url: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Grpc(url, **options)


@pytest.mark.parametrize(
    ("url", "method"),
    [
        ("grpc://host:1", "mcp.grpc.v1.MCPTransport/Connect"),
        ("grpcs://host:1/", "mcp.grpc.v1.MCPTransport/Connect"),
        ("grpc://host:1/mcp.MCPService/Call", "mcp.MCPService/Call"),
    ],
)
def test_the_path_of_a_url_is_the_method(url: str, method: str) -> None:
    found: Any = to_transport(url)
    assert (type(found), found.method, found.address) == (Grpc, method, ("host", 1))


async def test_plaintext_beyond_loopback_is_refused() -> None:
    with pytest.raises(UsageError, match="unencrypted traffic beyond this machine"):
        async with open_transport("grpc://192.0.2.1:1"):
            pass
