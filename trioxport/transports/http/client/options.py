"""What the parts of a client are told of how to behave."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

Binding: TypeAlias = Literal["auto", "streamable", "sse"]
"""Streamable HTTP, HTTP+SSE, or the first and then the second if the server does not speak it."""


@attrs.frozen
class ClientSettings:
    """How much a client bears, and what it does of its own accord.

    Args:
        connect: Seconds until an HTTP+SSE stream is there.
        total: Seconds for the whole of a request.
        pool: Seconds that a request may wait for others to end.
        concurrency: Requests in flight at the same time.
        binding: What to speak.
        renew_session: Whether to begin a new session when the server forgot the old one.
    """

    connect: float
    total: float
    pool: float
    concurrency: int
    binding: Binding
    renew_session: bool
