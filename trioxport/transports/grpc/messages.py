"""The messages of a call: JSON-RPC payloads in the one field of a message, compressed or not."""

from __future__ import annotations

from typing import Final

from trioxport.codecs.content_codings import Unexpanded, compress, expand
from trioxport.errors import DecodeError, MessageTooLarge
from trioxport.frames import Frame
from trioxport.framing.base import Oversized
from trioxport.framing.grpc import LengthPrefixedDecoder, LengthPrefixedMessage, length_prefixed
from trioxport.framing.protobuf import MalformedProtobuf, bytes_field, bytes_of, varint
from trioxport.transports.byte_stream import frame_of
from trioxport.transports.grpc.metadata import PAYLOAD

MIN_GZIP_BYTES: Final = 1024
"""Bytes of a message below which compression is not worth its time."""
FIELD_BYTES: Final = 16
"""Bytes that the field around a payload may take."""

_TAG: Final = bytes_field(PAYLOAD, b"")[:1]


class MessageWriter:
    """Writes payloads as messages.

    Attributes:
        gzip: Whether large ones are compressed.
    """

    __slots__ = ("gzip",)

    def __init__(self, *, gzip: bool) -> None:
        self.gzip = gzip

    def encode(self, payload: bytes) -> bytes:
        """The bytes of one message on the wire."""
        size = len(payload)
        if self.gzip and size >= MIN_GZIP_BYTES:
            return length_prefixed(compress("gzip", bytes_field(PAYLOAD, payload)), is_compressed=True)
        header = _TAG + varint(size)
        return b"\0%b%b%b" % ((len(header) + size).to_bytes(4, "big"), header, payload)


class MessageReader:
    """Reads messages as frames; one that cannot be read is a frame with an error.

    Args:
        max_size: The most bytes of a payload.
        encoding: The coding that ``grpc-encoding`` of the peer names.
    """

    __slots__ = ("_decoder", "_max_size", "encoding")

    def __init__(self, max_size: int, encoding: str = "identity") -> None:
        self._max_size = max_size
        self._decoder = LengthPrefixedDecoder(max_size + FIELD_BYTES)
        self.encoding = encoding

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes. Raises ``ValueError`` for data of another protocol."""
        return [self._frame(message) for message in self._decoder.feed(data)]

    def whole(self, data: bytes) -> list[Frame]:
        """The frames in data that are whole messages; empty for any other, which :meth:`feed` has to take."""
        return [self._frame(message) for message in self._decoder.whole(data)]

    @property
    def pending(self) -> int:
        """Bytes of an incomplete message."""
        return self._decoder.pending

    def _frame(self, message: LengthPrefixedMessage) -> Frame:
        content = message.content
        if isinstance(content, Oversized):
            excerpt = b"" if message.is_compressed else _without_tag(content.excerpt)
            return frame_of(Oversized(content.size, excerpt))
        if message.is_compressed:
            expanded = self._expanded(content)
            if isinstance(expanded, Unexpanded):
                return Frame(_without_tag(expanded.excerpt), error=expanded.error)
            content = expanded
        try:
            payload = bytes_of(content, PAYLOAD)
        except MalformedProtobuf as error:
            return Frame(content[:FIELD_BYTES], error=DecodeError(f"this is no message of protocol buffers: {error}"))
        if len(payload) > self._max_size:
            return Frame(payload[:512] + payload[-512:], error=MessageTooLarge("a message is over the limit"))
        return Frame(payload)

    def _expanded(self, content: bytes) -> bytes | Unexpanded:
        if self.encoding != "gzip":
            reason = f"a message is compressed, in {self.encoding!r}, which is not understood here"
            return Unexpanded(DecodeError(reason), b"")
        return expand("gzip", content, self._max_size + FIELD_BYTES)


def _without_tag(excerpt: bytes) -> bytes:
    """The beginning of a payload, without the tag and the length of its field."""
    if not excerpt.startswith(_TAG):
        return excerpt
    length = next((at for at, byte in enumerate(excerpt[1:11], 2) if byte < 0x80), 1)
    return excerpt[length:]
