"""The errors of a client over HTTP/2 whose server speaks something else, or ends: one for each, with what to do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import pytest
import trio
import trustme

from tests.support.raw_http import modern
from tests.support.raw_http2 import goaway, settings
from trioxport import ConnectError, Request, TransportError, Undelivered, open_transport
from trioxport.transports._http2 import ErrorCodes
from trioxport.transports.http import Http

BOUND: Final = 60.0
REQUIRED: Final = ErrorCodes.HTTP_1_1_REQUIRED


@asynccontextmanager
async def replying(reply: bytes, context: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """The port of a server that sends ``reply`` to each client once it has read something, and then ends."""

    async def serve(stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            if await stream.receive_some():
                await stream.send_all(reply)
            if isinstance(stream, trio.SocketStream):
                await stream.send_eof()
                while await stream.receive_some():  # to close with unread bytes is to reset the connection
                    pass
        await trio.aclose_forcefully(stream)

    listeners: list[Any] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    if context is not None:
        listeners = [trio.SSLListener(listener, context) for listener in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        yield port
        nursery.cancel_scope.cancel()


async def failure_of(target: Http) -> tuple[TransportError, str]:
    """The error of a request, and its outcome."""
    async with open_transport(target) as (tx, rx):
        await tx.send(Request(1, "hello", modern("hello")["params"]))
        answer = await rx.receive()
        assert isinstance(answer, Undelivered)
        return answer.cause, answer.outcome


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS of a server and of a client that trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_a_server_of_tls_is_named_to_a_client_without() -> None:
    server, _ = contexts()
    with trio.fail_after(BOUND):
        async with replying(b"", server) as port:
            error, _ = await failure_of(Http(f"http://127.0.0.1:{port}/mcp", http2=True))
    assert "If the server speaks TLS on this port, use https://" in str(error)


@pytest.mark.parametrize("reply", [b"", settings()], ids=["a server that ends", "a server of HTTP/2 without TLS"])
async def test_a_server_without_tls_is_named_to_a_client_with_it(reply: bytes) -> None:
    with trio.fail_after(BOUND):
        async with replying(reply) as port:
            with pytest.raises(ConnectError, match="TLS"):
                await failure_of(Http(f"https://127.0.0.1:{port}/mcp", http2=True, tls=contexts()[1]))


@pytest.mark.parametrize("status", ["400 Bad Request", "505 HTTP Version Not Supported", "200 OK"])
async def test_a_server_of_http1_alone_is_named(status: str) -> None:
    with trio.fail_after(BOUND):
        async with replying(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode()) as port:
            error, _ = await failure_of(Http(f"http://127.0.0.1:{port}/mcp", http2=True))
    assert "it speaks HTTP/1.1 here" in str(error)
    assert "omit http2=True" in str(error)


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "in flight"])
@pytest.mark.parametrize("code", ErrorCodes, ids=lambda code: code.name)
async def test_the_code_of_a_server_that_ends_is_named(code: ErrorCodes, is_refused: bool) -> None:
    """It certainly has not acted on a request beyond its last stream; else nobody knows."""
    reply = settings() + goaway(0 if is_refused else 1, code, b"go away")
    with trio.fail_after(BOUND):
        async with replying(reply) as port:
            error, outcome = await failure_of(Http(f"http://127.0.0.1:{port}/mcp", http2=True))
    assert outcome == ("not_sent" if is_refused or code == REQUIRED else "unknown")
    if code == REQUIRED:
        assert "the server wants HTTP/1.1 for this request" in str(error)
    elif code or is_refused:
        assert f"the peer closes the connection ({code.name}): go away" in str(error)
    else:
        assert "the peer closed the connection" in str(error)
