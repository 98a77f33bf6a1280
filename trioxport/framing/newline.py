"""One payload a line, as stdio has it (specification 2026-07-28, basic/transports/stdio).

A line ends with LF; a CR before it is white space to JSON and stays. Empty lines are skipped.
"""

from __future__ import annotations

from typing import Final

from trioxport.framing.base import Oversized, Partial


class _NewlineDecoder:
    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._partial = Partial(max_size)

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        first, *lines = data.split(b"\n")
        if first:
            self._partial.add(first)
        if not lines:
            return []
        rest = lines.pop()
        payloads = [self._partial.take(), *map(self._limited, lines)]
        if rest:
            self._partial.add(rest)
        return [payload for payload in payloads if isinstance(payload, Oversized) or not _is_blank(payload)]

    @property
    def pending(self) -> int:
        return self._partial.size

    def _limited(self, line: bytes) -> bytes | Oversized:
        if len(line) <= self._max_size:
            return line
        self._partial.add(line)
        return self._partial.take()


def _is_blank(line: bytes) -> bool:
    return len(line) < 2 and line in (b"", b"\r")


class _Newline:
    name: Final = "newline"
    binary: Final = False

    def parts(self, payload: bytes) -> tuple[bytes, ...]:
        return (payload, b"\n")

    def decoder(self, max_size: int) -> _NewlineDecoder:
        return _NewlineDecoder(max_size)


NEWLINE: Final = _Newline()
