"""Accepting many connections: one that fails does not take the others with it, and a socket server's loop."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from trioxport.abc import Accept, Transport
from trioxport.errors import ConnectError, ConnectionLost, UsageError

logger: Final = logging.getLogger("trioxport")


async def contained(accept: Accept, transport: Transport) -> None:
    """Accept one connection of many: what goes wrong with it is logged, and ends there."""
    try:
        await accept(transport)
    except ConnectError as error:
        logger.info("a client did not get through: %s", error)
    except ConnectionLost as error:
        logger.info("a client went away: %s", error)
    except Exception:
        logger.exception("a connection's handler failed; its connection is closed")


async def serve_streams(
    listeners: Sequence[trio.SocketListener],
    bind: Callable[[trio.SocketStream], Transport],
    accept: Accept,
) -> None:
    """Accept ``bind(stream)`` for each stream that ``listeners`` yield, until cancelled."""

    async def serve_stream(stream: trio.SocketStream) -> None:
        await contained(accept, bind(stream))

    await trio.serve_listeners(serve_stream, list(listeners))


def is_loopback(host: str) -> bool:
    """Whether traffic to ``host`` stays on this machine, as far as its spelling says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_plaintext(host: str, target: str, allowed: bool) -> None:
    """Raise ``UsageError`` for unencrypted traffic beyond this machine that nobody allowed."""
    if not allowed and not is_loopback(host):
        raise UsageError(
            f"unencrypted traffic beyond this machine ({host})",
            target=target,
            hint="Use an encrypted target, or say allow_plaintext=True",
        )
