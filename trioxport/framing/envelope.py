"""Payloads in an envelope that says what a layer did to them: ``~gzip~`` and then the bytes, for instance.

Between the two tildes stand fields of plain ASCII, with semicolons between them, the name of what was done first. No
message of any codec begins with a tilde, so a payload that is in no envelope passes for what it is. The head holds no
line feed: with a body that has none either, an envelope passes through newline framing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

MARK: Final = b"~"
_HEAD: Final = re.compile(rb"~([!-}]{1,512}?)~")


@attrs.frozen
class Envelope:
    """What an envelope says.

    Args:
        fields: The name of what was done, and what else the layer needs to know; ASCII without blanks, ``;`` and ``~``.
        body: What the layer made of the payload.
    """

    fields: Sequence[str]
    body: bytes

    def pack(self) -> bytes:
        """The payload that stands for it."""
        return b"~%b~%b" % (";".join(self.fields).encode("ascii"), self.body)


def open_envelope(payload: bytes) -> Envelope | None:
    """The envelope that ``payload`` is; None if it is none."""
    head = _HEAD.match(payload) if payload.startswith(MARK) else None
    if head is None:
        return None
    return Envelope(head[1].decode("ascii").split(";"), payload[head.end() :])
