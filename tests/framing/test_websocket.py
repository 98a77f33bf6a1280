"""WebSocket frames, sans-IO: every cut of every stream, what peers must not send, and wsproto as a second opinion."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from trioxport._masking import mask, mask_in_python
from trioxport.framing import Oversized
from trioxport.framing.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    CloseReason,
    Control,
    Found,
    MessageDecoder,
    Violation,
    close_payload,
    close_reason,
    frame,
    opcode_of,
)

KEY = b"\x01\x20\xfe\x80"
LIMIT = 1000
GIB = 1024**3


def written(opcode: int, payload: bytes, key: bytes | None = None, *, final: bool = True) -> bytes:
    header, body = frame(opcode, payload, key)
    return bytes([header[0] if final else header[0] & 0x7F]) + header[1:] + body


def decoded(*chunks: bytes, masked: bool = False, limit: int = LIMIT) -> list[Found]:
    decoder = MessageDecoder(limit, masked=masked)
    return [found for chunk in chunks for found in decoder.feed(chunk)]


FRAGMENTED = b"".join(
    [
        written(TEXT, "né".encode()[:2], KEY, final=False),
        written(PING, b"in between", KEY),
        written(CONTINUATION, b"", KEY, final=False),
        written(CONTINUATION, "né".encode()[2:], KEY),
        written(BINARY, b"\xff" * 300, KEY),
        written(PONG, b"", KEY),
        written(TEXT, b"", KEY),
        written(CLOSE, close_payload(1001, "bye"), KEY),
    ]
)
WHAT_IT_SAYS = [
    Control(PING, b"in between"),
    "né".encode(),
    b"\xff" * 300,
    Control(PONG, b""),
    b"",
    Control(CLOSE, b"\x03\xe9bye"),
]


@pytest.mark.parametrize("cut", range(len(FRAGMENTED) + 1))
def test_cut_at_every_byte(cut: int) -> None:
    assert decoded(FRAGMENTED[:cut], FRAGMENTED[cut:], masked=True) == WHAT_IT_SAYS


def test_byte_by_byte() -> None:
    assert decoded(*(bytes([byte]) for byte in FRAGMENTED), masked=True) == WHAT_IT_SAYS


def test_frames_of_one_byte_each() -> None:
    text = b'{"jsonrpc":"2.0"}'
    frames = [written(CONTINUATION if at else TEXT, text[at : at + 1], final=False) for at in range(len(text))]
    assert decoded(b"".join(frames), written(CONTINUATION, b"")) == [text]


@given(st.lists(st.binary(max_size=70_000), max_size=4), st.lists(st.integers(0, 200_000)), st.booleans())
def test_whatever_is_written_is_read(payloads: list[bytes], cuts: list[int], masked: bool) -> None:
    stream = b"".join(written(opcode_of(payload), payload, KEY if masked else None) for payload in payloads)
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(at)]
    assert decoded(*chunks, masked=masked, limit=70_000) == payloads


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_reverse(data: bytes, key: bytes) -> None:
    masked = bytes(byte ^ key[at % 4] for at, byte in enumerate(data))
    for form in (mask, mask_in_python):
        assert form(data, key) == masked
        assert form(masked, key) == data


@pytest.mark.parametrize(("installed", "form"), [("websockets", "apply_mask"), ("nothing", "mask_in_python")])
def test_masks_are_made_in_c_where_websockets_is_installed(installed: str, form: str) -> None:
    hide = "" if installed == "websockets" else "sys.modules['websockets.speedups'] = None; "
    program = f"import sys; {hide}from trioxport._masking import mask; print(mask.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.strip() == form


@given(st.binary(max_size=600), st.booleans())
def test_another_library_reads_what_is_written_and_writes_what_is_read(payload: bytes, client: bool) -> None:
    theirs = FrameProtocol(client=not client, extensions=[])
    theirs.receive_bytes(written(BINARY, payload, KEY if client else None))
    [read] = theirs.received_frames()
    assert (read.opcode, bytes(read.payload), read.message_finished) == (BINARY, payload, True)  # type: ignore[arg-type]  # it is binary
    assert decoded(bytes(theirs.send_data(payload)), masked=not client) == [payload]


UNMASKED_TEXT = written(TEXT, b"hello")
VIOLATIONS = {
    "a reserved bit": (b"\xc1\x00", 1002),
    "an unknown kind of message": (b"\x83\x00", 1002),
    "an unknown kind of control frame": (b"\x8b\x00", 1002),
    "a masked frame of a server": (written(TEXT, b"hello", KEY), 1002),
    "a continuation of nothing": (written(CONTINUATION, b"hello"), 1002),
    "a message within another": (written(TEXT, b"he", final=False) + UNMASKED_TEXT, 1002),
    "a control frame in parts": (written(PING, b"", final=False), 1002),
    "a large control frame": (b"\x89\x7e\x00\x7e", 1002),
    "a short length written long": (b"\x81\x7e\x00\x7d", 1002),
    "a middling length written long": (b"\x81\x7f" + (0xFFFF).to_bytes(8, "big"), 1002),
    "a negative length": (b"\x81\x7f" + b"\xff" * 8, 1002),
    "a text that is no UTF-8": (written(TEXT, b"\xff"), 1007),
    "a text in parts that is no UTF-8": (written(TEXT, b"\xc3", final=False) + written(CONTINUATION, b"\x28"), 1007),
    "a text that ends within a character": (written(TEXT, b"\xc3"), 1007),
    "a surrogate": (written(TEXT, b"\xed\xa0\x80"), 1007),
    "1 GiB announced": (b"\x82\x7f" + GIB.to_bytes(8, "big"), 1009),
    "parts of which each could be skipped": (
        written(BINARY, bytes(3 * LIMIT), final=False) + b"\x80\x7e" + (LIMIT + 1).to_bytes(2, "big"),
        1009,
    ),
    "1 GiB in parts": (written(BINARY, b"x" * LIMIT, final=False) + b"\x80\x7f" + GIB.to_bytes(8, "big"), 1009),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation(name: str) -> None:
    stream, code = VIOLATIONS[name]
    for chunks in ([UNMASKED_TEXT + stream + UNMASKED_TEXT], [bytes([byte]) for byte in UNMASKED_TEXT + stream]):
        hello, violation = decoded(*chunks)
        assert hello == b"hello"
        assert isinstance(violation, Violation) and violation.code == code and violation.reason


def test_an_unmasked_frame_of_a_client() -> None:
    [violation] = decoded(UNMASKED_TEXT, masked=True)
    assert isinstance(violation, Violation) and violation.code == 1002


def test_nothing_is_read_after_a_violation_or_a_close_frame() -> None:
    for last in (b"\xc1\x00", written(CLOSE, b"")):
        decoder = MessageDecoder(LIMIT, masked=False)
        assert len(decoder.feed(last + UNMASKED_TEXT)) == 1
        assert decoder.feed(UNMASKED_TEXT) == []
        assert decoder.pending == 0


def test_what_is_announced_takes_no_memory() -> None:
    decoder = MessageDecoder(16 * 1024**2, masked=False)
    tracemalloc.start()
    try:
        decoder.feed(b"\x82\x7f" + (60 * 1024**2).to_bytes(8, "big"))
        for _ in range(1000):
            decoder.feed(b"x" * 1024)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_what_is_over_the_limit_is_skipped(parts: int) -> None:
    payload = b"first" + b"x" * LIMIT + b"last"
    size = len(payload) // parts + 1
    stream = b""
    for start in range(0, len(payload), size):
        opcode = CONTINUATION if start else BINARY
        stream += written(opcode, payload[start : start + size], final=start + size >= len(payload))
    oversized, after = decoded(stream + UNMASKED_TEXT)
    assert isinstance(oversized, Oversized) and oversized.size == len(payload)
    assert oversized.excerpt.startswith(b"first") and oversized.excerpt.endswith(b"last")
    assert after == b"hello"


def test_what_is_at_the_limit_is_not() -> None:
    assert decoded(written(BINARY, b"x" * LIMIT)) == [b"x" * LIMIT]


def test_pending_counts_what_is_incomplete() -> None:
    decoder = MessageDecoder(LIMIT, masked=False)
    decoder.feed(UNMASKED_TEXT)
    assert decoder.pending == 0
    for incomplete in (b"\x81", b"\x05hel", b"lo" + written(TEXT, b"more", final=False)):
        decoder.feed(incomplete)
        assert decoder.pending > 0


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", CloseReason(1005)),
        (b"\x03\xe8", CloseReason(1000)),
        (close_payload(4321, "why not"), CloseReason(4321, "why not")),
        (b"\x03", 1002),
        (close_payload(1005), 1002),
        (close_payload(1006), 1002),
        (close_payload(999), 1002),
        (close_payload(1015), 1002),
        (close_payload(5000), 1002),
        (b"\x03\xe8\xff", 1007),
    ],
)
def test_close_frames(payload: bytes, said: CloseReason | int) -> None:
    found = close_reason(payload)
    assert found == said or (isinstance(found, Violation) and found.code == said)


def test_a_long_reason_is_cut_between_characters() -> None:
    payload = close_payload(1000, "x" + "é" * 100)
    assert len(payload) <= 125
    assert close_reason(payload) == CloseReason(1000, "x" + "é" * 61)
