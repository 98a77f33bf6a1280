"""What a connection's ``info`` says of the HTTP behind it."""

from __future__ import annotations

from typing import Final

from trioxport.abc import ConnectionInfo, Era
from trioxport.transports.http.server._asgi import Exchange

SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers that nobody is shown: who the client is, ``info.principal`` says."""


def shown(exchange: Exchange) -> dict[str, str]:
    """The headers of a request without its credentials."""
    return {name: value for name, value in exchange.headers.items() if name not in SECRET}


def tell(info: ConnectionInfo, exchange: Exchange, era: Era, version: str | None) -> None:
    """Note what ``exchange`` tells about its connection."""
    info.peer = exchange.peer
    info.era = era
    info.protocol_version = version
    info.headers = shown(exchange)
    info.principal = exchange.principal
    info.tls = exchange.tls
