"""One payload a line, as stdio has it (specification 2026-07-28, basic/transports/stdio).

A line ends with LF; a CR before it is white space to JSON and stays. Empty lines are skipped.
"""

from __future__ import annotations

from typing import Final

from trioxport.framing.base import FramingName, Oversized, Partial


class _NewlineDecoder:
    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._partial = Partial(max_size)

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        payloads: list[bytes | Oversized] = []
        partial, max_size = self._partial, self._max_size
        start = 0
        while (end := data.find(b"\n", start)) >= 0:  # split() takes many times as long for a long line
            payload: bytes | Oversized
            if partial.size or end - start > max_size:
                payload = partial.take(memoryview(data)[start:end])
            else:
                payload = data[start:end]
            if end > start + 1 or payload not in _BLANK:
                payloads.append(payload)
            start = end + 1
        if start < len(data):
            partial.add(memoryview(data)[start:])
        return payloads

    @property
    def pending(self) -> int:
        return self._partial.size


_BLANK: Final = (b"", b"\r")


class _Newline:
    name: FramingName = "newline"
    binary: bool = False

    def parts(self, payload: bytes) -> tuple[bytes, ...]:
        return (payload, b"\n")

    def decoder(self, max_size: int) -> _NewlineDecoder:
        return _NewlineDecoder(max_size)


NEWLINE: Final = _Newline()
