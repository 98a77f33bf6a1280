"""A listener on loopback for one redirect of a browser (RFC 8252, section 7.3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from trioxport.errors import OAuthError

MAX_HEAD: Final = 16384
"""Bytes of the head of a request."""
HEAD_SECONDS: Final = 10.0
"""The time that a client has for the head of its request."""

_HOSTS: Final = ("127.0.0.1", "::1")
_PAGE: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Signed in</title>"
    "<body style='font-family:system-ui;margin:4em'><p>You may close this page and return to the application.</p>"
)
_HEADERS: Final = (
    "content-type: text/html; charset=utf-8\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
    "content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\nx-content-type-options: nosniff\r\n"
    "connection: close\r\n"
)


class LoopbackListener:
    """A listener that waits for one redirect.

    Args:
        listeners: The bound sockets, on the same port.
        path: The path of the redirect URI.
    """

    def __init__(self, listeners: Sequence[trio.SocketListener], path: str) -> None:
        self._listeners = listeners
        self._path = path
        self._found: str | None = None
        self.redirect_uri = f"http://localhost:{listeners[0].socket.getsockname()[1]}{path}"

    async def wait(self, begin: Callable[[], Awaitable[None]]) -> str:
        """Listen, call ``begin``, and return the URL of the first request for the path, with its query.

        Raises what ``begin`` raises.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, nursery.cancel_scope)
            try:
                await begin()
            except Exception as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        assert self._found is not None
        return f"{self.redirect_uri}{self._found[len(self._path) :]}"

    async def _serve(self, scope: trio.CancelScope) -> None:
        """Answer requests until one is for the path; any other gets 404."""

        async def answer(stream: trio.SocketStream) -> None:
            async with stream:
                target = await _request_target(stream)
                arrived = target is not None and target.partition("?")[0] == self._path
                with trio.move_on_after(HEAD_SECONDS), suppress(trio.BrokenResourceError):
                    await stream.send_all(_response(arrived=arrived))
            if arrived and self._found is None:
                self._found = target
                scope.cancel()

        await trio.serve_listeners(answer, list(self._listeners))


@asynccontextmanager
async def open_listener(ports: Sequence[int], path: str) -> AsyncGenerator[LoopbackListener]:
    """Listen on loopback, on one of ``ports`` if one is free, and else on any. Raises ``OAuthError``."""
    listeners = await _bound(ports)
    try:
        yield LoopbackListener(listeners, path)
    finally:
        for listener in listeners:
            listener.socket.close()


async def _bound(ports: Sequence[int]) -> list[trio.SocketListener]:
    """Listeners on the same port of IPv4, and of IPv6 where this machine has it: ``localhost`` may be either."""
    for port in (*ports, 0):
        with suppress(OSError):
            [first] = await trio.open_tcp_listeners(port, host=_HOSTS[0], backlog=8)
            with suppress(OSError):
                [second] = await trio.open_tcp_listeners(first.socket.getsockname()[1], host=_HOSTS[1], backlog=8)
                return [first, second]
            return [first]
    raise OAuthError("no port on loopback is free for the redirect", step="redirect listener")


async def _request_target(stream: trio.SocketStream) -> str | None:
    """The target of a GET request; None for anything else."""
    head = bytearray()
    with trio.move_on_after(HEAD_SECONDS), suppress(trio.BrokenResourceError):
        while b"\r\n\r\n" not in head and len(head) <= MAX_HEAD:
            chunk = await stream.receive_some()
            if not chunk:
                break
            head += chunk
    words = bytes(head).partition(b"\r\n")[0].split(b" ")
    if b"\r\n\r\n" not in head or len(words) != 3 or words[0] != b"GET" or not words[1].startswith(b"/"):
        return None
    return words[1].decode("latin-1")


def _response(*, arrived: bool) -> bytes:
    status, page = ("200 OK", _PAGE) if arrived else ("404 Not Found", "")
    return f"HTTP/1.1 {status}\r\n{_HEADERS}content-length: {len(page)}\r\n\r\n{page}".encode()
