"""URLs of targets: their parts, default ports and hosts."""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from typing import Final
from urllib.parse import SplitResult, urlsplit

HTTP_PORTS: Final = {"http": 80, "https": 443}
WEBSOCKET_PORTS: Final = {"ws": 80, "wss": 443}
"""The default port of each scheme."""


def split_url(url: str, schemes: Container[str]) -> SplitResult | None:
    """Split a URL that has one of ``schemes``, a host, and no port or a valid one; return None for another."""
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port >= 0)
    except ValueError:
        return None
    return parts if is_known else None


def is_printable_ascii(url: str) -> bool:
    """Whether a URL can be written into a request as it is."""
    return url.isascii() and url.isprintable() and " " not in url


def bracketed(host: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def authority(host: str, port: int) -> str:
    """A host and a port as they stand in a URL, and in ``ConnectionInfo.peer``."""
    return f"{bracketed(host)}:{port}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by its spelling: ``localhost``, or an address of loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unspecified(host: str) -> bool:
    """Whether ``host`` stands for all addresses of a machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host
