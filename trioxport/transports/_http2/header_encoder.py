"""The compression of header fields that this side sends (RFC 7541), quick for fields that come again and again.

``hpack`` searches its table for each field. Here the bytes of an indexed field are kept until the table changes, and
fields whose value is another one each time stay out of the table, from which they would push the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hpack import Encoder, HeaderTuple
from hpack.hpack import INDEX_NEVER, encode_integer

_NAMES_THAT_VARY: Final = (
    *(b"traceparent", b"tracestate", b"baggage", b"grpc-timeout", b"grpc-message", b"last-event-id"),
    *(b"retry-after", b"mcp-name"),
)
_VARYING: Final = {
    b"content-length": b"\x0f\x0d",  # by its number in the static table
    **{name: bytes((0, len(name))) + name for name in _NAMES_THAT_VARY},
}
"""The beginning of a field that is not indexed (section 6.2.2), by its name."""
INDEXED: Final = 0x80
MOST_SHORT: Final = 126
"""Bytes of the longest value whose length takes one byte."""
MAX_TABLE_BYTES: Final = 4096
"""Bytes of the table, if the peer allows more: it would choose how much memory this side takes."""


class HeaderEncoder(Encoder):
    """The encoder of one connection."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, bytes] = {}

    @property
    def header_table_size(self) -> int:
        """Bytes of the table. A value that is set is the peer's limit."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, MAX_TABLE_BYTES)
        if size != self.header_table.maxsize:
            self.header_table.maxsize = size
            self.table_size_changes.append(size)

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        """Encode a header block. A ``NeverIndexedHeaderTuple`` is in no table, here or at any later hop."""
        parts: list[bytes] = []
        if self.table_size_changes:
            self._known.clear()
            parts.append(self._encode_table_size_change())
        for field in headers:
            if isinstance(field, HeaderTuple) and not field.indexable:
                parts.append(self._encode_literal(field[0], field[1], INDEX_NEVER))
            else:
                parts.append(self._known.get(field) or self._new(field))
        return b"".join(parts)

    def _new(self, field: tuple[bytes, bytes]) -> bytes:
        """Encode a field whose bytes are not known, and keep them if they stay the same."""
        name, value = field
        beginning = _VARYING.get(name)
        if beginning is not None:
            size = bytes((len(value),)) if len(value) <= MOST_SHORT else bytes(encode_integer(len(value), 7))
            return beginning + size + value
        encoded = self.add((name, value), False, True)
        if encoded[0] & INDEXED:
            self._known[field] = encoded
        else:
            self._known.clear()  # the numbers of the others have changed
        return encoded
