"""What the servers of this process's connections turned out to speak, so that the next connection need not find out.

Specification 2026-07-28, basic/versioning, section Backward Compatibility with Initialization-Based Versions. What is
known holds for an endpoint, its origin and its path: behind one origin there can be gateways to servers of both eras.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

Dialect: TypeAlias = Literal["modern", "legacy", "sse"]
"""``"legacy"`` and ``"sse"`` are of the legacy era; the latter is HTTP+SSE of 2024-11-05."""

REMEMBERED: Final = 1024
"""Endpoints; the one that was not used for the longest time is forgotten first."""

_known: Final[OrderedDict[str, Dialect]] = OrderedDict()


def known(url: str) -> Dialect | None:
    """What an endpoint spoke last, if there was a connection to it."""
    endpoint = _endpoint(url)
    if endpoint in _known:
        _known.move_to_end(endpoint)
    return _known.get(endpoint)


def learn(url: str, dialect: Dialect) -> None:
    """An endpoint answered in this dialect."""
    endpoint = _endpoint(url)
    _known[endpoint] = dialect
    _known.move_to_end(endpoint)
    if len(_known) > REMEMBERED:
        _known.popitem(last=False)


def forget(url: str) -> None:
    """What was known of an endpoint proved wrong."""
    _known.pop(_endpoint(url), None)


def forget_all() -> None:
    """Begin anew, as after a restart."""
    _known.clear()


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path or '/'}"
