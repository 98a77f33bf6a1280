"""Proxies of the environment: the requests that they see, and those that cannot be used."""

from __future__ import annotations

import base64
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import pytest
import trio
import trustme

from tests.support.scripted_http import Reply, Server
from trioxport import (
    NameResolutionError,
    Request,
    Response,
    ServerUnreachable,
    TLSError,
    Undelivered,
    UsageError,
    open_transport,
)
from trioxport.auth import Bearer
from trioxport.transports.http import Http

BOUND: Final = 15.0
URL: Final = "https://somewhere.invalid/mcp"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def tunnelling(context: ssl.SSLContext, refusal: bytes = b"") -> AsyncGenerator[tuple[str, Server, list[bytes]]]:
    """A proxy that leads every tunnel to one server; yields its address, the server and the proxy's requests."""
    asked: list[bytes] = []

    async def script(reply: Reply) -> None:
        await reply.result("fine")

    server = Server(script, 0)

    async def handler(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:  # a client that only looks who is there
                await stream.aclose()
                return
            head += data
        asked.append(head)
        await stream.send_all(refusal or b"HTTP/1.1 200 Connected\r\n\r\n")
        if refusal:
            await stream.aclose()
        else:
            await server.serve(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"http://me:pw@127.0.0.1:{listeners[0].socket.getsockname()[1]}", server, asked
        nursery.cancel_scope.cancel()


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of a server and of a client."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("somewhere.invalid").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_a_proxy_sees_where_a_tunnel_leads_and_none_of_the_credentials(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(BOUND):
        async with tunnelling(contexts[0]) as (address, server, asked):
            monkeypatch.setenv("https_proxy", address)
            async with open_transport(Http(URL, tls=contexts[1], auth=Bearer("hunter2"))) as connection:
                for number in range(2):
                    await connection.tx.send(Request(number, "tools/call"))
                    assert await connection.rx.receive() == Response(number, "fine")
                assert connection.info.peer == address.partition("@")[2]
    assert len(asked) == 1
    assert asked[0].startswith(b"CONNECT somewhere.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:pw") in asked[0]
    assert b"hunter2" not in asked[0]
    assert [one.headers["authorization"] for one in server.asked] == ["Bearer hunter2"] * 2


async def test_the_certificate_is_checked_through_a_tunnel(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(BOUND):
        async with tunnelling(contexts[0]) as (address, server, _):
            monkeypatch.setenv("https_proxy", address)
            async with open_transport(Http(URL, auth=Bearer("hunter2"))) as (tx, rx):
                await tx.send(Request(1, "tools/call"))
                refused = await rx.receive()
    assert isinstance(refused, Undelivered)
    assert type(refused.cause) is TLSError
    assert refused.outcome == "not_sent"
    assert server.asked == []


async def test_a_proxy_that_refuses(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    with trio.fail_after(BOUND):
        async with tunnelling(contexts[0], refusal) as (address, _, _):
            monkeypatch.setenv("https_proxy", address)
            async with open_transport(Http(URL, tls=contexts[1])) as (tx, rx):
                await tx.send(Request(1, "tools/call"))
                refused = await rx.receive()
    assert isinstance(refused, Undelivered)
    assert type(refused.cause) is ServerUnreachable
    assert "407" in str(refused.cause)
    assert refused.outcome == "not_sent"


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "127.0.0.1:1")
    with pytest.raises(ServerUnreachable):
        async with open_transport(URL):
            pass


@pytest.mark.parametrize(
    ("proxy", "text"),
    [("ftp://me:hunter2@127.0.0.1:1", "unknown kind 'ftp'"), ("socks5://127.0.0.1:1", "SOCKS is not")],
)
async def test_proxies_that_cannot_be_used(proxy: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(UsageError, match=text) as caught:
        async with open_transport(URL):
            pass
    assert "hunter2" not in str(caught.value)


async def test_hosts_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "somewhere.invalid")
    with pytest.raises(NameResolutionError):
        async with open_transport(URL):
            pass
