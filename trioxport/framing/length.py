"""Each payload after its length as four bytes, big-endian: any byte may occur in it."""

from __future__ import annotations

from typing import Final

from trioxport.framing.base import FramingName, Oversized, Partial

PREFIX: Final = 4


class _LengthDecoder:
    def __init__(self, max_size: int) -> None:
        self._prefix = b""
        self._missing: int | None = None
        self._partial = Partial(max_size)

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        payloads: list[bytes | Oversized] = []
        position = 0
        while True:
            if self._missing is None:
                part = data[position : position + PREFIX - len(self._prefix)]
                position += len(part)
                self._prefix += part
                if len(self._prefix) < PREFIX:
                    return payloads
                self._missing = int.from_bytes(self._prefix, "big")
            part = data[position : position + self._missing]
            position += len(part)
            self._missing -= len(part)
            self._partial.add(part)
            if self._missing:
                return payloads
            payloads.append(self._partial.take())
            self._prefix, self._missing = b"", None

    @property
    def pending(self) -> int:
        return len(self._prefix) + self._partial.size


class _LengthFraming:
    name: FramingName = "length"
    binary: bool = True

    def parts(self, payload: bytes) -> tuple[bytes, ...]:
        return (len(payload).to_bytes(PREFIX, "big"), payload)

    def decoder(self, max_size: int) -> _LengthDecoder:
        return _LengthDecoder(max_size)


LENGTH: Final = _LengthFraming()
