"""Compression of large messages, in the content codings of HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import ClassVar, Final, Literal

import attrs

from trioxport._diagnostics.validators import COUNT_OR_0, FLAG, WHOLE, one_of
from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.codecs.content_codings import (
    CODINGS,
    Coding,
    Unexpanded,
    accepts,
    check_effort,
    compress,
    expand,
    known,
    require,
)
from trioxport.errors import DecodeError, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.framing.envelope import Envelope, open_envelope
from trioxport.layers._support import PassingReceive, PassingSend
from trioxport.messages import ErrorResponse, Response

ENCODING: Final = "content-encoding"
ACCEPTED: Final = "accept-encoding"
_BASE64: Final = "base64"


@attrs.frozen
class Compression:
    """Compresses sent messages, and expands received ones in any coding that is installed.

    A message below ``min_size``, or one that does not become smaller, is sent unchanged, and uncompressed messages
    are received as they are. No message expands beyond ``Limits.max_message_size``: a larger one is a
    ``MessageTooLarge``, a damaged one a ``DecodeError``; either settles the request that the message answers, if the
    beginning of the message names it. Compressing runs in the caller's task, and other tasks wait meanwhile.

    Over HTTP the header is ``Content-Encoding``, and the peer needs no such layer (RFC 9110, section 12.5.3): a client
    compresses its requests once the server has sent ``Accept-Encoding`` in a response, and a server compresses its
    answers if the client has sent it, unless the answer is a stream of events. On other transports a compressed message
    stands in an envelope, and the peer needs this layer too; without it, it reports a message that it cannot decode.
    Where a payload has to be text, as over stdio, it is written in Base64.

    Do not send a secret and text of another party's choice in one message that is compressed and encrypted: its length
    reveals parts of the secret.

    Args:
        coding: ``"gzip"``, ``"deflate"``, ``"zstd"`` (``trioxport[zstd]``) or ``"br"`` (``trioxport[brotli]``).
        min_size: Bytes below which a message is left as it is.
        effort: The coding's own level: more is smaller and slower. By default 3 for zstd and 4 for the others.
        unasked: Whether a client of HTTP compresses before the server has said that it accepts the coding.

    Raises:
        UsageError: On opening a connection, if the coding is not installed.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    coding: Coding = attrs.field(default="gzip", validator=one_of(*CODINGS))
    min_size: int = attrs.field(default=1024, validator=COUNT_OR_0)
    effort: int | None = attrs.field(default=None, validator=WHOLE.or_none())
    unasked: bool = attrs.field(default=False, validator=FLAG)

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        require(self.coding)
        check_effort(self.coding, self.effort)
        compressor, expander = (
            _Compressor(self, scope, channels.carried),
            _Decompressor(scope.settings.limits.max_message_size),
        )
        return attrs.evolve(
            channels,
            send=PassingSend(channels.send, compressor.packed),
            receive=PassingReceive(channels.receive, expander.unpacked),
        )


class _Compressor:
    """Compresses the frames that one connection sends."""

    def __init__(self, layer: Compression, scope: Scope, carried: Callable[[], Carries]) -> None:
        self._layer = layer
        self._scope = scope
        self._carried = carried

    def packed(self, frame: Frame) -> Frame:
        if len(frame.payload) < self._layer.min_size:
            return frame
        carries = self._carried()
        if carries == "events":
            return frame
        if carries == "http":
            return self._packed_for_http(frame)
        coding = self._layer.coding
        body = compress(coding, frame.payload, self._layer.effort)
        if carries == "bytes":
            packed = Envelope([coding], body).pack()
        else:
            packed = Envelope([coding, _BASE64], base64.b64encode(body)).pack()
        return attrs.evolve(frame, payload=packed) if len(packed) < len(frame.payload) else frame

    def _packed_for_http(self, frame: Frame) -> Frame:
        headers = dict(frame.headers or {})
        if ENCODING in headers or not self._is_accepted(frame):
            return frame
        body = compress(self._layer.coding, frame.payload, self._layer.effort)
        if len(body) >= len(frame.payload):
            return frame
        return attrs.evolve(frame, payload=body, headers={**headers, ENCODING: self._layer.coding})

    def _is_accepted(self, frame: Frame) -> bool:
        accepted = self._scope.info.headers.get(ACCEPTED)
        if self._scope.settings.role == "server":  # what is no answer is an event
            is_answer = isinstance(frame.message, Response | ErrorResponse)
            return is_answer and accepted is not None and accepts(accepted, self._layer.coding)
        return self._layer.unasked if accepted is None else accepts(accepted, self._layer.coding)


@attrs.frozen
class _Decompressor:
    """Expands the frames that one connection receives."""

    max_size: int

    def unpacked(self, frame: Frame) -> Frame:
        envelope = open_envelope(frame.payload) if frame.error is None else None
        return frame if envelope is None else self._expanded(frame, envelope)

    def _expanded(self, frame: Frame, envelope: Envelope) -> Frame:
        name, *rest = envelope.fields
        coding = known(name)
        if coding is None:
            return frame
        try:
            expanded = expand(coding, _bytes_of(envelope.body, rest), self.max_size)
        except (DecodeError, UsageError) as error:
            return _refused(
                frame, DecodeError(f"a message in {coding} cannot be read: {error.reason}", hint=error.hint)
            )
        if isinstance(expanded, Unexpanded):
            return _refused(frame, expanded.error, expanded.excerpt)
        return attrs.evolve(frame, payload=expanded)


def _bytes_of(body: bytes, how: list[str]) -> bytes:
    if not how:
        return body
    if how != [_BASE64]:
        raise DecodeError("the envelope is of another kind")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise DecodeError(str(error)) from error


def _refused(frame: Frame, error: TransportError, excerpt: bytes = b"") -> Frame:
    """The frame of a message that cannot be read: by its excerpt, the request may be found that it answers."""
    return attrs.evolve(frame, payload=excerpt, error=error)
