"""The protocol that each endpoint spoke last in this process, so that the next connection need not find it out.

Specification 2026-07-28, basic/versioning, section Backward Compatibility with Initialization-Based Versions. An
endpoint is an origin, or a Unix socket, and a path: one origin can be a gateway to servers of both eras.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

Dialect: TypeAlias = Literal["modern", "legacy", "sse"]
"""``"legacy"`` and ``"sse"`` are of the legacy era; the latter is HTTP+SSE of 2024-11-05."""

MAX_ENDPOINTS: Final = 1024
"""The endpoints that are kept; the least recently used one is dropped first."""

_known: Final[OrderedDict[str, Dialect]] = OrderedDict()


def known(url: str) -> Dialect | None:
    """The dialect that an endpoint spoke last, or None if it is not known."""
    endpoint = _endpoint(url)
    if endpoint in _known:
        _known.move_to_end(endpoint)
    return _known.get(endpoint)


def learn(url: str, dialect: Dialect) -> None:
    """Store the dialect in which an endpoint answered."""
    endpoint = _endpoint(url)
    _known[endpoint] = dialect
    _known.move_to_end(endpoint)
    if len(_known) > MAX_ENDPOINTS:
        _known.popitem(last=False)


def forget(url: str) -> None:
    """Drop the dialect of an endpoint, which proved wrong."""
    _known.pop(_endpoint(url), None)


def forget_all() -> None:
    """Drop everything, as a restart does."""
    _known.clear()


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path or '/'}#{parts.fragment.partition('?')[0]}"
