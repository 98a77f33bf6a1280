"""TCP connections, with TLS or without; failures of the system become errors of this library."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import trio

from trioxport._core.error_mapping import system_reason
from trioxport.abc import Acceptor, ConnectionSettings, Transport
from trioxport.errors import ConnectError, NameResolutionError, ServerUnreachable, TLSError, UsageError
from trioxport.transports._tls import NO_TLS, TLSStream, tls_reason
from trioxport.transports._urls import authority, is_loopback

_PLAIN: Final = {
    "tls": "tcp",
    "wss": "ws",
    "https": "http",
    "grpcs": "grpc",
    "rediss": "redis",
    "rediss+stream": "redis+stream",
}
"""The unencrypted scheme for each encrypted one."""


async def connect(host: str, port: int, target: str) -> trio.SocketStream:
    """Open a TCP connection. Raises ``ConnectError``, about ``target``."""
    try:
        return await trio.open_tcp_stream(host, port)
    except socket.gaierror as error:
        raise NameResolutionError(f"cannot resolve {host!r}: {error.strerror}", target=target) from error
    except UnicodeError as error:
        raise NameResolutionError(f"{host!r} is no host name", target=target, retryable=False) from error
    except OSError as error:
        raise ServerUnreachable(f"cannot connect: {system_reason(error)}", target=target) from error


async def secure(stream: TLSStream, target: str) -> None:
    """Do the TLS handshake. Raises ``TLSError``, or ``ConnectError`` if the connection breaks, about ``target``."""
    try:
        await stream.do_handshake()
    except ssl.SSLError as error:
        raise _handshake_error(error, target, serving=stream.is_server) from error
    except trio.BrokenResourceError as error:
        raise ConnectError(
            "the peer closed the connection during the TLS handshake",
            target=target,
            hint="Try again; if it goes on, check that the peer speaks TLS on this port",
        ) from error


def _handshake_error(error: ssl.SSLError, target: str, *, serving: bool) -> TLSError:
    if error.reason not in NO_TLS:
        return TLSError(f"the TLS handshake failed: {tls_reason(error)}", target=target)
    if serving:
        return TLSError("the client does not speak TLS", target=target, hint="It has to connect with encryption")
    scheme = target.partition(":")[0]
    return TLSError(
        "the server does not speak TLS on this port",
        target=target,
        hint=f"Check the port. Is it {_PLAIN[scheme]}://?" if scheme in _PLAIN else "Check the port",
    )


def peer_of(stream: trio.SocketStream) -> str | None:
    """The peer's address, as ``ConnectionInfo.peer`` has it; None if the peer left already."""
    try:
        name: tuple[str, int] | str = stream.socket.getpeername()
    except OSError:
        return None
    return authority(*name[:2]) if isinstance(name, tuple) else None


async def serve_streams(
    listeners: Sequence[trio.SocketListener],
    bind: Callable[[trio.SocketStream], Transport],
    acceptor: Acceptor,
) -> None:
    """Accept ``bind(stream)`` for each stream that ``listeners`` yield, until cancelled."""

    async def serve_stream(stream: trio.SocketStream) -> None:
        await acceptor.serve(bind(stream), peer_of(stream))

    await trio.serve_listeners(serve_stream, list(listeners))


def refuse_plaintext(host: str, settings: ConnectionSettings) -> None:
    """Refuse unencrypted traffic beyond this machine, as every transport without encryption has to.

    Args:
        host: The host to connect to, or to listen on.
        settings: ``scope.settings`` of a client, the ``settings`` of ``listen``.

    Raises:
        UsageError: The host is not on this machine, and it is not allowed.
    """
    if not settings.allow_plaintext and not is_loopback(host):
        raise UsageError(
            f"unencrypted traffic beyond this machine ({host})",
            target=settings.target,
            hint="Use an encrypted target, or say allow_plaintext=True",
        )
