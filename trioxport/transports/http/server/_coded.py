"""Answers that a frame layer compressed: which coding they are in, and what they are without it."""

from __future__ import annotations

import sys

from trioxport._codings import Coding, expand, known
from trioxport.errors import UsageError
from trioxport.frames import Frame


def coding_of(frame: Frame) -> Coding | None:
    """The content coding of a frame to be sent. Raises ``UsageError`` for one that is not known here."""
    name = (frame.headers or {}).get("content-encoding")
    if name is None:
        return None
    coding = known(name)
    if coding is None:
        raise UsageError(f"{name!r} is no content coding known here")
    return coding


def plain(data: bytes, coding: Coding | None) -> bytes:
    """``data`` without its coding: for a client that does not take it, and for events, which have no place for one.

    It is this side's own, so there is no limit to keep.
    """
    if coding is None:
        return data
    expanded = expand(coding, data, sys.maxsize)
    if isinstance(expanded, bytes):
        return expanded
    raise UsageError(f"an answer is not in its content coding: {expanded.error.reason}")
