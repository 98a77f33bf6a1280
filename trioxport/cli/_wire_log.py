"""The log on standard error: that of a server, and the one of all messages that ``--verbose`` asks for."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Final

import msgspec

from trioxport.cli._output import escaped
from trioxport.layers import Tap

MAX_PAYLOAD_CHARACTERS: Final = 4096
SERVER_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
WORKERS_FORMAT: Final = "%(asctime)s %(process)d %(levelname)s %(message)s"
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


def log_server(*, has_workers: bool) -> None:
    """Write the library's log from INFO on, access log included.

    It does not pass on to the root logger: servers of the SDKs configure that one for themselves.
    """
    library = logging.getLogger("trioxport")
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(WORKERS_FORMAT if has_workers else SERVER_FORMAT, "%H:%M:%S"))
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    library.propagate = False


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
