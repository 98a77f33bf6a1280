"""The messages in a stream of gRPC: a byte that says whether it is compressed, four bytes of length, and the message.

gRPC over HTTP/2, section Length-Prefixed-Message.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from trioxport.framing.base import Oversized, Partial

PREFIX_BYTES: Final = 5


class LengthPrefixedMessage(NamedTuple):
    """One message as it arrived.

    Args:
        content: Its bytes, or the two ends of one over the limit.
        is_compressed: Whether it is in the coding that ``grpc-encoding`` names.
    """

    content: bytes | Oversized
    is_compressed: bool


def length_prefixed(message: bytes, *, is_compressed: bool = False) -> bytes:
    """The bytes of a message on the wire."""
    return b"%c%b%b" % (is_compressed, len(message).to_bytes(4, "big"), message)


class LengthPrefixedDecoder:
    """The decoder of one stream; messages of more than ``max_size`` bytes are skipped."""

    __slots__ = ("_is_compressed", "_max_size", "_missing", "_partial", "_prefix")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._partial = Partial(max_size)
        self._prefix = b""
        self._missing: int | None = None
        self._is_compressed = False

    def feed(self, data: bytes) -> list[LengthPrefixedMessage]:
        """Return the messages that ``data`` completes, in order. Raises ``ValueError`` for data of another protocol."""
        messages: list[LengthPrefixedMessage] = []
        position = 0 if self.is_within else self._take_whole(data, messages)
        while True:
            if self._missing is None:
                part = data[position : position + PREFIX_BYTES - len(self._prefix)]
                position += len(part)
                self._prefix += part
                if len(self._prefix) < PREFIX_BYTES:
                    return messages
                self._begin(self._prefix)
            assert self._missing is not None
            part = data[position : position + self._missing]
            position += len(part)
            self._missing -= len(part)
            self._partial.add(part)
            if self._missing:
                return messages
            messages.append(LengthPrefixedMessage(self._partial.take(), self._is_compressed))
            self._prefix, self._missing = b"", None

    def whole(self, data: bytes) -> list[LengthPrefixedMessage]:
        """The messages in ``data``; empty unless it begins and ends with one, and :meth:`feed` has to take it."""
        messages: list[LengthPrefixedMessage] = []
        if self.is_within or self._take_whole(data, messages) < len(data):
            return []
        return messages

    @property
    def is_within(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._prefix)

    def _take_whole(self, data: bytes, messages: list[LengthPrefixedMessage]) -> int:
        """Add the messages at the beginning of ``data`` that are complete; returns the position behind them."""
        position = 0
        while len(data) - position >= PREFIX_BYTES:
            begin = position + PREFIX_BYTES
            size = int.from_bytes(data[position + 1 : begin], "big")
            if size > self._max_size or begin + size > len(data) or data[position] > 1:
                break
            messages.append(LengthPrefixedMessage(data[begin : begin + size], data[position] == 1))
            position = begin + size
        return position

    def _begin(self, prefix: bytes) -> None:
        if prefix[0] > 1:
            raise ValueError(f"the first byte of a message is {prefix[0]}, neither 0 nor 1")
        self._is_compressed = prefix[0] == 1
        self._missing = int.from_bytes(prefix[1:], "big")

    @property
    def pending(self) -> int:
        """Bytes of an incomplete message."""
        return len(self._prefix) + self._partial.size
