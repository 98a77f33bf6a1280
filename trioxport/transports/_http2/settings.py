"""The settings of HTTP/2 connections: windows, bounds and times."""

from __future__ import annotations

import math
from typing import Final, Self

import attrs

from trioxport._diagnostics.validators import COUNT, SECONDS, SECONDS_OR_0, whole_between
from trioxport.abc import ConnectionSettings
from trioxport.frames import MIB

MIN_WINDOW: Final = 64 * 1024
MAX_WINDOW: Final = 2**31 - 1

WINDOW: Final = whole_between(MIN_WINDOW, MAX_WINDOW)


@attrs.frozen
class Http2Settings:
    """The settings of one side of a connection.

    Args:
        max_concurrent_streams: The streams that the peer may have open at once; more are refused.
        stream_window: Bytes of one stream that may have arrived and are not received by the application yet.
        connection_window: Bytes of all streams that may have arrived and are not received yet. Streams that are not
            read hold up others once they have filled it, so that it should be several times the stream window.
        max_headers: Bytes of a header list, as RFC 9113, section 6.5.2 counts them; with more the connection ends.
        frame_timeout: Seconds for the preface, and for a header block or a frame that has begun.
        idle_timeout: Seconds that a connection may have no stream; then it ends in order.
        write_timeout: Seconds that the peer may take to make room for what is written: on one stream, which is then
            reset, or on the connection, which then ends.
        keepalive: Seconds without a byte from the peer after which it is pinged, by a client while it has a stream, and
            by a server at any time; ``math.inf`` never pings.
        keepalive_timeout: Seconds that the peer has to answer a ping.
        close_timeout: Seconds that closing may take.
    """

    max_concurrent_streams: int = attrs.field(default=128, validator=COUNT, kw_only=True)
    stream_window: int = attrs.field(default=MIB // 4, validator=WINDOW, kw_only=True)
    connection_window: int = attrs.field(default=16 * MIB, validator=WINDOW, kw_only=True)
    max_headers: int = attrs.field(default=64 * 1024, validator=COUNT, kw_only=True)
    frame_timeout: float = attrs.field(default=10.0, validator=SECONDS, kw_only=True)
    idle_timeout: float = attrs.field(default=math.inf, validator=SECONDS, kw_only=True)
    write_timeout: float = attrs.field(default=30.0, validator=SECONDS, kw_only=True)
    keepalive: float = attrs.field(default=math.inf, validator=SECONDS, kw_only=True)
    keepalive_timeout: float = attrs.field(default=20.0, validator=SECONDS, kw_only=True)
    close_timeout: float = attrs.field(default=5.0, validator=SECONDS_OR_0, kw_only=True)

    @classmethod
    def of(cls, settings: ConnectionSettings) -> Self:
        """The settings that the limits and times of a connection mean."""
        window = min(max(settings.limits.max_message_size, 4 * MIB), MAX_WINDOW)
        return cls(stream_window=MIB, connection_window=window, close_timeout=settings.close_timeout)
