"""What clients of an HTTP server are held to, however slow, large or many they are."""

from __future__ import annotations

import attrs

from trioxport._diagnostics.validators import COUNT, SECONDS


@attrs.frozen
class Bounds:
    """What clients are held to; seconds and bytes.

    Args:
        head: Bytes of a request's line and headers.
        head_timeout: Seconds in which they have to arrive, and a TLS handshake before them.
        body_timeout: Seconds in which a body has to arrive.
        idle_timeout: Seconds that a connection may wait for its next request.
        write_timeout: Seconds that a client may take to make room for what is written to it.
        connections: How many there may be; one more is answered with 503.
        unfinished_bodies: Bytes of request bodies that may have arrived in part, on all connections together, besides
            the first 64 KiB of each; a request that needs more is answered with 503, unless it is the only one.
    """

    head: int = attrs.field(default=16 * 1024, validator=COUNT)
    head_timeout: float = attrs.field(default=10.0, validator=SECONDS)
    body_timeout: float = attrs.field(default=60.0, validator=SECONDS)
    idle_timeout: float = attrs.field(default=75.0, validator=SECONDS)
    write_timeout: float = attrs.field(default=30.0, validator=SECONDS)
    connections: int = attrs.field(default=4096, validator=COUNT)
    unfinished_bodies: int = attrs.field(default=256 * 1024 * 1024, validator=COUNT)
