"""Envelopes around payloads that a layer transformed: ``~gzip~`` and then the bytes, for instance.

Between the two tildes stand fields of plain ASCII, separated by semicolons; the first is the name of the
transformation. No message of any codec begins with a tilde, so other payloads are not mistaken for envelopes. The head
holds no line feed: an envelope whose body has none either passes through newline framing.
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
    """A transformed payload, and the fields that describe the transformation.

    Args:
        fields: The name of the transformation, and its parameters; ASCII without blanks, ``;`` and ``~``.
        body: The transformed payload.
    """

    fields: Sequence[str]
    body: bytes

    def pack(self) -> bytes:
        """The payload that holds the envelope."""
        return b"~%b~%b" % (";".join(self.fields).encode("ascii"), self.body)


def open_envelope(payload: bytes) -> Envelope | None:
    """The envelope in ``payload``; None for any other payload."""
    head = _HEAD.match(payload) if payload.startswith(MARK) else None
    if head is None:
        return None
    return Envelope(head[1].decode("ascii").split(";"), payload[head.end() :])
