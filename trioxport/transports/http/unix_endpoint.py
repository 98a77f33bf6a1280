"""Endpoints of HTTP on a Unix socket, written ``http+unix:///PATH#/ENDPOINT``."""

from __future__ import annotations

from typing import Final, Self
from urllib.parse import unquote, urlsplit

import attrs

from trioxport._diagnostics.redaction import redact_url
from trioxport.errors import UsageError
from trioxport.targets import options_of
from trioxport.transports._urls import is_printable_ascii
from trioxport.transports.unix_sockets import SocketFile, SocketFileOptions

SCHEME: Final = "http+unix"
AUTHORITY: Final = "localhost:80"
"""The Host of requests over a Unix socket. With a port: servers of the official SDK refuse ``localhost`` alone."""


@attrs.frozen
class UnixEndpoint:
    """An endpoint on a Unix socket.

    Args:
        path: The socket file.
        file: The permissions of the file, for a server.
        url: The URL of requests: the endpoint's path at ``localhost``.
    """

    path: str
    file: SocketFile
    url: str

    @classmethod
    def of(cls, url: object) -> Self | None:
        """The endpoint of a URL; None for one of another scheme. Raises ``UsageError`` for an invalid one."""
        if not isinstance(url, str) or url.partition(":")[0].lower() != SCHEME:
            return None
        parts = urlsplit(url)
        endpoint = parts.fragment or "/"
        is_address = parts.path and "@" not in parts.netloc and "%2f" not in parts.netloc.lower()
        if not is_address or not endpoint.startswith("/") or "#" in endpoint or not is_printable_ascii(url):
            raise UsageError(
                f"HTTP over a Unix socket is written {SCHEME}:///PATH#/ENDPOINT, in ASCII", target=redact_url(url)
            )
        file = options_of(url, SocketFileOptions).socket_file()
        return cls(unquote(parts.netloc + parts.path), file, f"http://{AUTHORITY}{endpoint}")
