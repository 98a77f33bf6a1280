"""The options in the URLs of stream targets, and those URLs."""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from trioxport._diagnostics.redaction import redact_url
from trioxport.errors import UsageError
from trioxport.framing import FramingName
from trioxport.transports._urls import authority
from trioxport.transports.unix_sockets import SocketFileOptions


@attrs.frozen
class StreamOptions:
    """The query of ``tcp://``."""

    framing: FramingName = "newline"


@attrs.frozen
class UnixStreamOptions(SocketFileOptions):
    """The query of ``unix://``."""

    framing: FramingName = "newline"


@attrs.frozen
class EncryptedStreamOptions(StreamOptions):
    """The query of ``tls://``."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of a URL. Raises ``UsageError`` for another form."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None or parts.path not in ("", "/"):
        raise UsageError(f"an address is written {parts.scheme}://HOST:PORT", target=redact_url(url))
    return parts.hostname, port


def url_of(scheme: str, host: str, port: int, framing: FramingName) -> str:
    query = "" if framing == "newline" else f"?framing={framing}"
    return f"{scheme}://{authority(host, port)}{query}"
