"""The log on standard error that ``--verbose`` asks for: all messages, and the records of the library."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Final

import msgspec

from trioxport.cli._output import escaped
from trioxport.layers import Tap

MAX_PAYLOAD_CHARACTERS: Final = 4096
_ARROWS: Final = {"sent": "-->", "received": "<--"}


def wire_log() -> Tap:
    """The layer that writes each message in a line of its own, without credentials; it also shows the library's log."""
    library = logging.getLogger("trioxport")
    if not library.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(asctime)s.%(msecs)03d  .  %(message)s", "%H:%M:%S"))
        library.addHandler(handler)
        library.setLevel(logging.DEBUG)
    return Tap(_write, redact=())


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


def _write(line: bytes) -> None:
    record: dict[str, Any] = msgspec.json.decode(line)
    payload = str(record.get("payload", record.get("base64", f"({record.get('size')} bytes that are no message)")))
    if len(payload) > MAX_PAYLOAD_CHARACTERS:
        payload = f"{payload[:MAX_PAYLOAD_CHARACTERS]}... ({len(payload)} characters)"
    error = f"  [{record['error']}]" if "error" in record else ""
    clock = f"{time.strftime('%H:%M:%S', time.localtime(record['time']))}.{int(record['time'] % 1 * 1000):03d}"
    sys.stderr.write(escaped(f"{clock} {_ARROWS[record['direction']]} {payload.strip()}{error}") + "\n")
    sys.stderr.flush()
