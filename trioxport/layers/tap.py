"""A recording of the frames of a connection, one line of JSON each, to read or to replay."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, TypeAlias

import attrs
import msgspec

from trioxport._diagnostics.message_redaction import Redaction, as_paths
from trioxport._diagnostics.text_redaction import redact_text
from trioxport._diagnostics.validators import COUNT, COUNT_OR_0, OptionCheck
from trioxport.abc import Codec, FrameChannels, Role, Scope
from trioxport.errors import TransportError
from trioxport.frames import MIB, Frame
from trioxport.layers._support import PassingReceive, PassingSend
from trioxport.layers.recording_files import open_recording

Write: TypeAlias = Callable[[bytes], object]
Direction: TypeAlias = Literal["sent", "received"]

_PATH_OR_FUNCTION: Final = OptionCheck(
    "a path, or a function", lambda to: isinstance(to, str | os.PathLike) or callable(to)
)

MAX_FILE_BYTES: Final = 64 * MIB


@attrs.frozen
class Tap:
    """Records every frame, in both directions, as lines of JSON.

    A line has ``time`` (seconds since the epoch), ``direction`` (``"sent"`` or ``"received"``), ``role``, the side that
    records (``"client"`` or ``"server"``), ``target``, ``connection``, an id of the connection, and ``payload``, the
    text of the frame; a payload that is not text has ``base64`` instead. ``error`` is the fault of a received
    payload, or the reason why a frame was not accepted for sending. Frames are
    recorded before they are passed on, so a frame that is not accepted has a second line.
    :class:`trioxport.testing.Replay` plays the peer of a recording.

    The tap records frames at its own place among the layers: above ``Compression`` they are readable, below they are
    those of the wire. Without ``redact`` the recording has the messages as they are, secrets included.

    Args:
        to: A file to append to, made for this user only, or a function that takes each line with its newline.
            The function must not block; its exception is raised by the ``send`` or ``receive`` that calls it. A slow
            reader of a FIFO or a terminal does not stop the connection: beyond 256 KiB lines are dropped, and a line
            with ``dropped_bytes`` replaces them.
        redact: Hide values that look like credentials, and the values at these places: names of members joined by dots,
            as ``"params.arguments.password"``, where ``*`` is any member or element. An empty tuple hides credentials
            only. Of a payload that cannot be decoded only the ``size`` is recorded.
        max_size: The size in bytes at which the file is renamed to ``NAME.1``, an older one to ``NAME.2`` and so on,
            and a new file begins.
        keep: The number of renamed files to keep.

    Raises:
        UsageError: On opening a connection, if the file cannot be written.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    to: str | os.PathLike[str] | Write = attrs.field(validator=_PATH_OR_FUNCTION)
    redact: tuple[str, ...] | None = attrs.field(
        default=None, kw_only=True, converter=attrs.converters.optional(as_paths)
    )
    max_size: int = attrs.field(default=MAX_FILE_BYTES, kw_only=True, validator=COUNT)
    keep: int = attrs.field(default=3, kw_only=True, validator=COUNT_OR_0)

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        if callable(self.to):
            write: Write = self.to
        else:
            write = open_recording(os.fspath(self.to), self.max_size, self.keep, scope)
        shown = None if self.redact is None else _Shown(Redaction.of(self.redact), scope.settings.codec)
        record = _Record(write, scope.settings.role, scope.settings.target, os.urandom(6).hex(), shown)
        return attrs.evolve(
            channels,
            send=PassingSend(channels.send, record.sent, record.not_sent),
            receive=PassingReceive(channels.receive, record.received),
        )


@attrs.frozen
class _Shown:
    """The redaction of the payloads to record."""

    redaction: Redaction
    codec: Codec

    def payload(self, frame: Frame) -> bytes | None:
        """The payload without secrets; None if it cannot be decoded."""
        try:
            return self.codec.encode(self.redaction.message(self.codec.decode(frame.payload)))
        except TransportError:
            return None


@attrs.frozen
class _Record:
    write: Write
    role: Role
    target: str
    connection: str
    shown: _Shown | None

    def sent(self, frame: Frame) -> Frame:
        self._add("sent", frame)
        return frame

    def not_sent(self, frame: Frame, error: BaseException) -> None:
        self._add("sent", frame, error)

    def received(self, frame: Frame) -> Frame:
        self._add("received", frame)
        return frame

    def _add(self, direction: Direction, frame: Frame, error: BaseException | None = None) -> None:
        line: dict[str, Any] = {
            "time": time.time(),
            "direction": direction,
            "role": self.role,
            "target": self.target,
            "connection": self.connection,
        }
        payload = frame.payload if self.shown is None else self.shown.payload(frame)
        if payload is None:
            line["size"] = len(frame.payload)
        else:
            try:
                line["payload"] = payload.decode()
            except UnicodeDecodeError:
                line["base64"] = base64.b64encode(payload).decode()
        if error := error or frame.error:
            text = str(error) or type(error).__name__
            line["error"] = text if self.shown is None else redact_text(text)
        self.write(msgspec.json.encode(line) + b"\n")
