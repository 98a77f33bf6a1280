"""What a connection's ``info`` says of the HTTP behind it."""

from __future__ import annotations

from trioxport.abc import Carries, ConnectionInfo, Era
from trioxport.transports.http.server._asgi import Exchange


def tell(info: ConnectionInfo, exchange: Exchange, era: Era, version: str | None, carries: Carries = "http") -> None:
    """Note what ``exchange`` tells about its connection."""
    info.peer = exchange.peer
    info.carries = carries
    info.era = era
    info.protocol_version = version
    info.headers = exchange.shown()
    info.principal = exchange.principal
    info.token = exchange.token
    info.tls = exchange.tls
