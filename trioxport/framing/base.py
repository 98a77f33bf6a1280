"""The interface of framings, and payloads that are too large."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import attrs

from trioxport.frames import EXCERPT_BYTES

FramingName: TypeAlias = Literal["newline", "length"]


@attrs.frozen
class Oversized:
    """A payload over the limit, which was skipped.

    Args:
        size: Its bytes.
        excerpt: Its first and its last bytes.
    """

    size: int
    excerpt: bytes


class Decoder(Protocol):
    """A decoder of the payloads in one stream of bytes."""

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        """Return the payloads that ``data`` completes, in order."""
        ...

    @property
    def pending(self) -> int:
        """Bytes of an incomplete payload; at the end of the stream anything but 0 is a loss."""
        ...


class Framing(Protocol):
    """A way to delimit payloads.

    Attributes:
        name: As it stands in a URL, ``?framing=newline``.
        binary: Whether payloads may contain any byte.
    """

    @property
    def name(self) -> FramingName: ...
    @property
    def binary(self) -> bool: ...

    def parts(self, payload: bytes) -> tuple[bytes, ...]:
        """The payload and its delimiters, in the order in which they are written."""
        ...

    def decoder(self, max_size: int) -> Decoder:
        """A new decoder that skips payloads of more than ``max_size`` bytes."""
        ...


class Partial:
    """An incomplete payload: kept whole up to the limit, beyond it only its two ends."""

    __slots__ = ("_head", "_kept", "_max_size", "_tail", "size")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._reset()

    def _reset(self) -> None:
        self.size = 0
        self._kept = bytearray()  # many small parts would take several times their size in a list
        self._head = b""
        self._tail = b""

    def add(self, part: bytes | memoryview) -> None:
        self.size += len(part)
        if self.size <= self._max_size:
            self._kept.extend(part)
            return
        if self._kept:
            self._keep_ends(self._kept)
            self._kept = bytearray()
        self._keep_ends(part)

    def take(self, last: bytes | memoryview = b"") -> bytes | Oversized:
        """Return the complete payload, which ends with ``last``, and begin the next one."""
        payload: bytes | Oversized
        if self.size + len(last) <= self._max_size:
            payload = b"".join((self._kept, last))
        else:
            self.add(last)
            payload = Oversized(self.size, self._head + self._tail)
        self._reset()
        return payload

    def _keep_ends(self, part: bytes | bytearray | memoryview) -> None:
        missing = EXCERPT_BYTES - len(self._head)
        self._head += part[:missing]
        self._tail = (self._tail + part[max(missing, len(part) - EXCERPT_BYTES) :])[-EXCERPT_BYTES:]
