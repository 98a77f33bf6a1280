"""Records the frames that pass, one line of JSON each."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

import attrs
import msgspec
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.frames import Frame

Write: TypeAlias = Callable[[bytes], object]
Direction: TypeAlias = Literal["sent", "received"]


@attrs.frozen
class Tap:
    """Records every frame, in both directions, as lines of JSON.

    A line has ``time`` (seconds since the epoch), ``direction`` (``"sent"`` or ``"received"``), ``target``, and
    ``payload``, the text of the frame; a payload that is not text has ``base64`` in its place. ``error`` says why
    something received was no message, or why something sent was not accepted: then it is the second line about it,
    because a frame is recorded before it is handed on, and so before its answer.

    What is recorded is what travels: place the tap above a compressing layer to read it, below to see what the wire
    sees. It holds whatever the messages hold, secrets included.

    Args:
        to: A file to append to, made for this user only, or a function that takes each line with its newline.
            A function that raises makes the ``send`` or ``receive`` that it was called from raise.

    Raises:
        UsageError: On opening a connection, if the file cannot be written.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    to: str | os.PathLike[str] | Write

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        write = self.to if callable(self.to) else _append_to(self.to, scope)
        record = _Record(write, scope.target)
        return FrameChannels(_TapSend(channels.send, record), _TapReceive(channels.receive, record))


def _append_to(path: str | os.PathLike[str], scope: Scope) -> Write:
    """Each line goes out in one write, so that connections, and programs, can share the file."""
    try:
        file = open(path, "ab", buffering=0, opener=_private)  # noqa: SIM115 (closed with the connection)
    except OSError as error:
        raise UsageError(f"cannot write the tap file {os.fspath(path)!r}: {error.strerror}") from error
    scope.defer(file.close)
    return file.write


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@attrs.frozen
class _Record:
    write: Write
    target: str

    def add(self, direction: Direction, frame: Frame, error: BaseException | None = None) -> None:
        line: dict[str, Any] = {"time": time.time(), "direction": direction, "target": self.target}
        try:
            line["payload"] = frame.payload.decode()
        except UnicodeDecodeError:
            line["base64"] = base64.b64encode(frame.payload).decode()
        if error := error or frame.error:
            line["error"] = str(error) or type(error).__name__
        self.write(msgspec.json.encode(line) + b"\n")


class _TapSend(SendChannel[Frame]):
    def __init__(self, inner: SendChannel[Frame], record: _Record) -> None:
        self._inner = inner
        self._record = record

    async def send(self, value: Frame) -> None:
        self._record.add("sent", value)
        try:
            await self._inner.send(value)
        except BaseException as error:
            self._record.add("sent", value, error)
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()


class _TapReceive(ReceiveChannel[Frame]):
    def __init__(self, inner: ReceiveChannel[Frame], record: _Record) -> None:
        self._inner = inner
        self._record = record

    async def receive(self) -> Frame:
        frame = await self._inner.receive()
        self._record.add("received", frame)
        return frame

    async def aclose(self) -> None:
        await self._inner.aclose()
