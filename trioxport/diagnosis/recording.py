"""The messages of a recording that a :class:`~trioxport.layers.Tap` made, read one by one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec

from trioxport.codecs.json import JSON
from trioxport.errors import TransportError, UsageError
from trioxport.layers.recording_files import parts_of
from trioxport.messages import Message

MAX_TIME: Final = 32503680000.0
"""The first second of the year 3000."""

_record: Final = msgspec.json.Decoder(dict[str, Any]).decode


@attrs.frozen
class RecordedMessage:
    """A message of a recording.

    Args:
        time: Seconds since the epoch.
        session: The number of its connection in the recording, from 1.
        target: The target of the connection, as the recording has it.
        from_client: Whether the client sent it.
        payload: Its text; the text ``(N bytes)`` if the recording does not have it.
        size: Its size in bytes.
        message: The message; None if the payload is none.
        error: The fault of the payload, or the reason why it was not sent; None if there is none.
    """

    time: float
    session: int
    target: str
    from_client: bool
    payload: str
    size: int
    message: Message | None
    error: str | None


class Recording:
    """A recording, read once by iteration.

    A line that cannot be read, such as the last one of a program that was killed, is counted and left out.

    Args:
        path: The file; the renamed ones beside it, ``NAME.1`` and so on, are its beginning.

    Attributes:
        damaged: The number of lines that could not be read.
        dropped: The number of bytes that were not recorded, because the destination was too slow or full.
    """

    def __init__(self, path: str) -> None:
        self.damaged = 0
        self.dropped = 0
        self._path = path
        self._sessions: dict[str, int] = {}

    def __iter__(self) -> Iterator[RecordedMessage]:
        """The messages in the order of the file. Blocks while the file is read.

        Raises:
            UsageError: The file cannot be read, or has no line of a recording.
        """
        found = False
        for line in self._lines():
            if (message := self._message(line)) is not None:
                found = True
                yield message
        if self.damaged and not found:
            raise UsageError(
                f"{self._path!r} is no recording", hint="Record one by: trioxport tap LISTEN TARGET -o FILE"
            )

    def _lines(self) -> Iterator[bytes]:
        try:
            for part in parts_of(self._path):
                with open(part, "rb") as file:
                    yield from file
        except OSError as error:
            raise UsageError(f"cannot read the recording {self._path!r}: {error.strerror}") from error

    def _message(self, line: bytes) -> RecordedMessage | None:
        try:
            record = _record(line)
            if "dropped_bytes" in record:
                self.dropped += int(record["dropped_bytes"])
                return None
            return self._as_message(record)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            self.damaged += bool(line.strip())
            return None

    def _as_message(self, record: dict[str, Any]) -> RecordedMessage:
        payload = _payload_of(record)
        connection = str(record.get("connection", ""))
        is_sent = {"sent": True, "received": False}[record["direction"]]
        time = float(record["time"])
        if not 0 <= time < MAX_TIME:
            raise ValueError("no time")
        return RecordedMessage(
            time=time,
            session=self._sessions.setdefault(connection, len(self._sessions) + 1),
            target=str(record.get("target", "")),
            from_client=is_sent == (record.get("role", "client") == "client"),
            payload=f"({record['size']} bytes)" if payload is None else payload.decode("utf-8", "replace"),
            size=int(record["size"]) if payload is None else len(payload),
            message=None if payload is None else _decoded(payload),
            error=None if record.get("error") is None else str(record["error"]),
        )


def _payload_of(record: dict[str, Any]) -> bytes | None:
    """The payload; None if the recording has its size alone."""
    if "payload" in record:
        return str(record["payload"]).encode("utf-8", "replace")
    if "base64" in record:
        try:
            return base64.b64decode(record["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError("no base64") from error
    return None


def _decoded(payload: bytes) -> Message | None:
    try:
        return JSON.decode(payload)
    except TransportError:
        return None
