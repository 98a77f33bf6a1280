"""Links over HTTP for ``check_transport``, in both eras.

A legacy session is open before the check sees it: it takes a handshake in JSON-RPC, of which the checks know nothing.
So a transport of the client's makes it before it yields, and one of the server's answers it.

A modern client's transport adds the ``_meta`` that each request has to have. To the server each one is a connection of
its own, which has nothing to say first, and remembers nothing: the checks see the client's side only.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio
import trustme
from trio.abc import SendChannel

from tests.support import links
from tests.support.raw_http import INITIALIZE, modern
from trioxport import Message, Notification, Request, Response, serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, InlineTransport, Listener, Scope, Transport
from trioxport.frames import Frame
from trioxport.protocol import members_of
from trioxport.testing import MakePair, TransportPair, tcp_pair
from trioxport.testing.peer import LIMITS, RAW, check_peer
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer


def _frame(scope: Scope, message: Message) -> Frame:
    return Frame(scope.settings.codec.encode(message), message)


async def _received(scope: Scope, channels: FrameChannels) -> Message:
    """Receive a message, which not every transport has decoded."""
    frame = await channels.receive.receive()
    return frame.message or scope.settings.codec.decode(frame.payload)


@attrs.frozen
class InSession:
    """A client's transport that opens a session."""

    inner: Transport

    def __str__(self) -> str:
        return str(self.inner)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with self.inner(scope) as channels:
            await channels.send.send(_frame(scope, Request("opening", "initialize", INITIALIZE)))
            assert isinstance(await _received(scope, channels), Response)
            await channels.send.send(_frame(scope, Notification("notifications/initialized")))
            yield channels


@attrs.frozen
class _Opened:
    inner: Transport

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with self.inner(scope) as channels:
            opening = await _received(scope, channels)
            assert isinstance(opening, Request)
            await channels.send.send(_frame(scope, Response(opening.id, {"protocolVersion": "2025-11-25"})))
            assert isinstance(await _received(scope, channels), Notification)
            yield channels


@attrs.frozen
class _Opening:
    inner: Listener

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await self.inner.listen(_OpeningAcceptor(acceptor), settings, task_status=task_status)


@attrs.frozen
class _OpeningAcceptor:
    inner: Acceptor

    async def serve(self, transport: Transport, peer: str | None = None) -> None:
        await self.inner.serve(_Opened(transport), peer)

    async def serve_only(self, transport: Transport, peer: str | None = None) -> None:
        raise NotImplementedError

    async def serve_inline(self, transport: InlineTransport, peer: str | None = None) -> None:
        await self.inner.serve(_Opened(transport), peer)


@attrs.frozen
class ServedInSession:
    """A server whose handlers get sessions that are open."""

    inner: Listener

    def __str__(self) -> str:
        return str(self.inner)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await _Opening(self.inner).listen(acceptor, settings, task_status=task_status)


@attrs.frozen
class Stateless:
    """A client's transport whose requests are modern ones."""

    inner: Http

    def __str__(self) -> str:
        return str(self.inner)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with self.inner(scope) as channels:
            yield attrs.evolve(channels, send=_WithMeta(channels.send, scope))


class _WithMeta(SendChannel[Frame]):
    def __init__(self, inner: SendChannel[Frame], scope: Scope) -> None:
        self._inner = inner
        self._scope = scope

    async def send(self, value: Frame) -> None:
        if isinstance(value.message, Request):
            params = {**members_of(value.message.params), "_meta": modern("")["params"]["_meta"]}
            value = _frame(self._scope, attrs.evolve(value.message, params=params))
        await self._inner.send(value)

    async def aclose(self) -> None:
        await self._inner.aclose()


def modern_http_link(tmp_path: Path, *, http2: bool = False) -> MakePair:
    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        serve = partial(serve_transport, check_peer, layers=[RAW], limits=LIMITS, close_timeout=1.0)
        async with open_bare_nursery() as tasks:
            [url] = await tasks.start(serve, "http://127.0.0.1:0/mcp")
            unreachable = Stateless(Http("http://127.0.0.1:1/mcp", http2=http2))
            yield TransportPair(open=Stateless(Http(url, http2=http2)), unreachable=unreachable, continuous=False)
            tasks.cancel_scope.cancel()

    return make


def http_unix_link(tmp_path: Path, *, http2: bool = False) -> MakePair:
    return links.unix_pair(
        tmp_path,
        lambda path: InSession(Http(f"http+unix://{path}#/mcp", http2=http2)),
        lambda path: ServedInSession(HttpServer(f"http+unix://{path}#/mcp")),
        continuous=False,
    )


def http_link(tmp_path: Path, *, http2: bool = False) -> MakePair:
    return tcp_pair(
        lambda port: InSession(Http(f"http://127.0.0.1:{port}/mcp", http2=http2)),
        serve=lambda port: ServedInSession(HttpServer(f"http://127.0.0.1:{port}/mcp")),
        continuous=False,
    )


def https_link(tmp_path: Path, *, http2: bool = False) -> MakePair:
    """With TLS, on which both sides agree on HTTP/2, if at all, by ALPN."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(certified)
    return tcp_pair(
        lambda port: InSession(Http(f"https://127.0.0.1:{port}/mcp", http2=http2, tls=trusting)),
        serve=lambda port: ServedInSession(HttpServer(f"https://127.0.0.1:{port}/mcp", tls=certified)),
        continuous=False,
    )
