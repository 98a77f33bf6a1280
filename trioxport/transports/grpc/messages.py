"""The messages of a call: JSON-RPC payloads in the one field of a message, compressed or not."""

from __future__ import annotations

from collections import deque
from typing import Final

from trioxport.codecs.content_codings import Unexpanded, compress, expand
from trioxport.errors import DecodeError, MessageTooLarge
from trioxport.frames import Frame
from trioxport.framing.base import Oversized
from trioxport.framing.grpc import LengthPrefixedDecoder, LengthPrefixedMessage, length_prefixed
from trioxport.framing.protobuf import MalformedProtobuf, bytes_field, bytes_of, varint
from trioxport.transports._http2 import Http2Stream
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

    Compressed messages are expanded as they are asked for: those of a few bytes may have many megabytes together.

    Args:
        max_size: The most bytes of a payload.
        encoding: The coding that ``grpc-encoding`` of the peer names.
    """

    __slots__ = ("_decoder", "_max_size", "_waiting", "encoding")

    def __init__(self, max_size: int, encoding: str = "identity") -> None:
        self._max_size = max_size
        self._decoder = LengthPrefixedDecoder(max_size + FIELD_BYTES)
        self._waiting: deque[LengthPrefixedMessage] = deque()
        self.encoding = encoding

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes, or the first of them, before which :meth:`take` has to have none.

        Raises ``ValueError`` for data of another protocol.
        """
        self._waiting += self._decoder.feed(data)
        return self.take()

    @property
    def has_waiting(self) -> bool:
        """Whether messages have arrived that no one has taken."""
        return bool(self._waiting)

    def take(self) -> list[Frame]:
        """The next frames that have arrived: together not much larger than the largest one may be."""
        frames: list[Frame] = []
        size = 0
        while self._waiting and size <= self._max_size:
            frame = self._frame(self._waiting.popleft())
            frames.append(frame)
            size += len(frame.payload) if frame.error is None else self._max_size
        return frames

    async def only(self, stream: Http2Stream) -> list[Frame]:
        """The frames of a call that has one message. If there are more, it reads no further than into the second.

        Raises ``ValueError`` for data of another protocol, and ``Http2Error``.
        """
        frames: list[Frame] = []
        while len(frames) + len(self._waiting) < 2 and (data := await stream.receive_data()):
            frames += self.feed(data)
        return [*frames, *self.take()]

    def whole(self, data: bytes) -> list[Frame]:
        """The frames in data that are whole messages; empty for any other, which :meth:`feed` has to take."""
        messages = [] if self._waiting else self._decoder.whole(data)
        if self.encoding != "identity" and any(message.is_compressed for message in messages):
            return []
        return [self._frame(message) for message in messages]

    @property
    def pending(self) -> int:
        """Bytes of an incomplete message, and the number of those that no one has taken."""
        return self._decoder.pending + len(self._waiting)

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
