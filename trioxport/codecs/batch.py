"""JSON-RPC batches, which revision 2025-03-26 has and no other: payloads in one array, taken apart and put together
without decoding them for good (specification 2025-03-26, basic/index, section Batching).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from trioxport.errors import DecodeError, ProtocolViolation

REVISION: Final = "2025-03-26"
"""The one revision of the protocol that has batches."""

MAX_BATCH_MESSAGES: Final = 1024
"""Limit for one batch: many small messages take many times their size in memory."""

_BEGINS: Final = re.compile(rb"[ \t\r\n]*\[")
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_scan: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def is_batch(payload: bytes) -> bool:
    """Whether a payload is an array, which no single message is."""
    return _BEGINS.match(payload) is not None


def split_batch(payload: bytes) -> list[bytes]:
    """The payloads in a batch, in order, each as it stands there.

    Elements that are no messages are included, for the codec to refuse one by one. Linear in the size of the payload.

    Raises:
        DecodeError: The payload is not JSON.
        ProtocolViolation: It is an array of no message at all, or of more than ``MAX_BATCH_MESSAGES`` elements.
    """
    try:
        elements = list(_elements(payload.decode()))
    except UnicodeDecodeError as error:
        raise DecodeError("the batch is not UTF-8") from error
    except RecursionError as error:
        raise DecodeError("the batch is nested too deep") from error
    except (ValueError, IndexError) as error:
        raise DecodeError("the batch is not JSON") from error
    if not any(element.startswith(b"{") for element in elements):
        raise ProtocolViolation("a batch has no message in it")
    return elements


def join_batch(payloads: Sequence[bytes]) -> bytes:
    """The batch of ``payloads``, each of which is one message in JSON."""
    return b"[" + b",".join(payloads) + b"]"


def _elements(text: str) -> Iterator[bytes]:
    """The elements of an array. Raises ``ValueError`` or ``IndexError`` where it is none."""
    place = _skip(text, 0)
    if text[place] != "[":
        raise ValueError(place)
    start = _skip(text, place + 1)
    for count in range(MAX_BATCH_MESSAGES):
        if count == 0 and text[start] == "]":
            place = start
            break
        _, place = _scan(text, start)
        yield text[start:place].encode()
        place = _skip(text, place)
        if text[place] != ",":
            break
        start = _skip(text, place + 1)
    else:
        raise ProtocolViolation(f"a batch of more than {MAX_BATCH_MESSAGES} messages")
    if text[place] != "]" or _skip(text, place + 1) != len(text):
        raise ValueError(place)


def _skip(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    return place if found is None else found.end()
