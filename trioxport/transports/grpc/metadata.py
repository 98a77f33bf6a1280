"""The methods of gRPC that carry MCP, and the headers of a call: deadlines, and metadata (gRPC over HTTP/2)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from trioxport._version import __version__

CONNECT: Final = "mcp.grpc.v1.MCPTransport/Connect"
STREAM: Final = "mcp.MCPService/Stream"
CALL: Final = "mcp.MCPService/Call"
"""The one unary method: each request is a call of its own."""
HEALTH_CHECK: Final = "grpc.health.v1.Health/Check"
HEALTH_WATCH: Final = "grpc.health.v1.Health/Watch"

METHOD: Final = re.compile(r"[A-Za-z_][\w.]*/[A-Za-z_]\w*", re.ASCII)
"""The name of a method: a service with its package, and a method of it."""

PAYLOAD: Final = 1
"""The number of the one field of a message, with the payload."""

CONTENT_TYPE: Final = b"application/grpc"
ACCEPTED_ENCODINGS: Final = b"identity,gzip"
GZIP: Final = b"gzip"
RESERVED: Final = frozenset({"content-type", "host", "te", "user-agent", "connection", "transfer-encoding", "upgrade"})
"""Headers that are not for an application to set, besides those that begin with ``grpc-`` or a colon."""

_TIMEOUT: Final = re.compile("([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LARGEST: Final = 99_999_999
_SHOWN_TO_NO_APPLICATION: Final = ("grpc-", ":")


def request_fields(
    path: bytes, authority: str, scheme: str, metadata: Mapping[str, str], *, gzip: bool, deadline: float | None
) -> list[tuple[bytes, bytes]]:
    """The header of a call.

    Args:
        path: The path of the method.
        authority: The server, as HTTP's Host names it.
        scheme: ``"http"`` or ``"https"``.
        metadata: The metadata, by names in lower case.
        gzip: Whether messages may be compressed.
        deadline: Seconds that the call may take; None for no limit.
    """
    fields = [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path),
        (b":authority", authority.encode("ascii")),
        (b"te", b"trailers"),
        (b"content-type", CONTENT_TYPE),
        (b"user-agent", f"trioxport/{__version__}".encode()),
        (b"grpc-accept-encoding", ACCEPTED_ENCODINGS),
    ]
    if gzip:
        fields.append((b"grpc-encoding", GZIP))
    if deadline is not None:
        fields.append((b"grpc-timeout", timeout_text(deadline)))
    return [*fields, *((name.encode("ascii"), value.encode("latin-1")) for name, value in metadata.items())]


def response_fields(*, gzip: bool) -> list[tuple[bytes, bytes]]:
    """The header of a response."""
    fields = [(b":status", b"200"), (b"content-type", CONTENT_TYPE), (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)]
    return [*fields, (b"grpc-encoding", GZIP)] if gzip else fields


def is_grpc(content_type: str) -> bool:
    """Whether a media type is that of gRPC, with protocol buffers or without saying so."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("application/grpc", "application/grpc+proto")


def timeout_text(seconds: float) -> bytes:
    """``grpc-timeout`` for a number of seconds, in the smallest unit that has room for it."""
    for unit, factor in ((b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0)):
        if (count := math.ceil(seconds / factor)) <= _LARGEST:
            return b"%d%b" % (max(1, count), unit)
    return b"%dH" % min(_LARGEST, math.ceil(seconds / 3600))


def timeout_of(text: str | None) -> float:
    """Seconds in ``grpc-timeout``; infinity without one. Raises ``ValueError`` for another text."""
    if text is None:
        return math.inf
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise ValueError("grpc-timeout is no number with a unit")
    return int(found[1]) * _UNITS[found[2]]


def metadata_of(fields: Mapping[str, str], hidden: Iterable[str] = ()) -> dict[str, str]:
    """The metadata in the headers of the peer: without those of gRPC itself, and without ``hidden``."""
    return {
        name: value
        for name, value in fields.items()
        if not name.startswith(_SHOWN_TO_NO_APPLICATION) and name not in RESERVED and name not in hidden
    }


def services_of(methods: frozenset[str]) -> frozenset[str]:
    """The names of the services that have some methods."""
    return frozenset(method.partition("/")[0] for method in methods)


def path_of(method: str) -> bytes:
    """The path of a method in a request."""
    return b"/" + method.encode("ascii")
