"""What the listening sides of the socket transports have in common."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

import trio

from trioxport.abc import Accept, Transport
from trioxport.errors import UsageError


async def serve_streams(
    listeners: Sequence[trio.SocketListener],
    bind: Callable[[trio.SocketStream], Transport],
    accept: Accept,
) -> None:
    """Accept ``bind(stream)`` for each stream that ``listeners`` yield, until cancelled."""

    async def serve_stream(stream: trio.SocketStream) -> None:
        await accept(bind(stream))

    await trio.serve_listeners(serve_stream, list(listeners))


def is_loopback(host: str) -> bool:
    """Whether traffic to ``host`` stays on this machine, as far as its spelling says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_plaintext(host: str, target: str, allowed: bool) -> None:
    """Refuse unencrypted traffic beyond this machine, as every transport without encryption is to do.

    Args:
        host: The host to connect to, or to listen on.
        target: What the error names: ``scope.target`` of a client, ``str(self)`` of a listener.
        allowed: ``scope.allow_plaintext``, or the ``allow_plaintext`` of ``listen``.

    Raises:
        UsageError: The host is not on this machine, and it is not allowed.
    """
    if not allowed and not is_loopback(host):
        raise UsageError(
            f"unencrypted traffic beyond this machine ({host})",
            target=target,
            hint="Use an encrypted target, or say allow_plaintext=True",
        )
