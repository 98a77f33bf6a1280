"""Framing: any split of the bytes gives the same payloads, limits hold to the byte, and the work is linear."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioxport.frames import EXCERPT_BYTES
from trioxport.framing import FRAMINGS, LENGTH, NEWLINE, Framing, Oversized
from trioxport.framing.base import Decoder

seeded = settings(derandomize=True, max_examples=100, deadline=None)
both = pytest.mark.parametrize("framing", [NEWLINE, LENGTH], ids=lambda framing: framing.name)

LIMIT = 20


def wire(framing: Framing, payloads: list[bytes]) -> bytes:
    return b"".join(part for payload in payloads for part in framing.parts(payload))


def fed(decoder: Decoder, chunks: list[bytes]) -> list[bytes | Oversized]:
    return [payload for chunk in chunks for payload in decoder.feed(chunk)]


def expected(framing: Framing, payloads: list[bytes], limit: int) -> list[bytes | Oversized]:
    return [
        payload if len(payload) <= limit else Oversized(len(payload), ends(payload))
        for payload in payloads
        if framing is LENGTH or payload not in (b"", b"\r")
    ]


def ends(payload: bytes) -> bytes:
    return payload[:EXCERPT_BYTES] + payload[EXCERPT_BYTES:][-EXCERPT_BYTES:]


@both
@seeded
@given(data=st.data())
def test_any_split_into_chunks_gives_the_same_payloads(framing: Framing, data: st.DataObject) -> None:
    sizes = st.integers(0, 40) | st.sampled_from(
        [LIMIT - 1, LIMIT, LIMIT + 1, 2 * EXCERPT_BYTES - 1, 2 * EXCERPT_BYTES + 9]
    )
    shapes = data.draw(st.lists(st.tuples(st.binary(min_size=1, max_size=5), sizes), max_size=8))
    payloads = [(seed * size)[:size] for seed, size in shapes]
    if framing is NEWLINE:
        payloads = [payload.replace(b"\n", b"-") for payload in payloads]
    stream = wire(framing, payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    decoder = framing.decoder(LIMIT)
    assert fed(decoder, chunks) == expected(framing, payloads, LIMIT)
    assert decoder.pending == 0


@both
def test_one_byte_at_a_time(framing: Framing) -> None:
    payloads = [b"a", b"b" * LIMIT, b"c" * (LIMIT + 1), b"", b"\r", b"d" * 3 * EXCERPT_BYTES, b"e"]
    stream = wire(framing, payloads)
    decoder = framing.decoder(LIMIT)
    assert fed(decoder, [bytes([byte]) for byte in stream]) == expected(framing, payloads, LIMIT)


@both
@pytest.mark.parametrize("limit", [1, 5, EXCERPT_BYTES, 2 * EXCERPT_BYTES, 5000])
def test_the_limit_is_exact_and_the_stream_goes_on_after_it(framing: Framing, limit: int) -> None:
    exact, over, far_over = b"x" * limit, b"y" * (limit + 1), bytes(range(65, 90)) * limit
    stream = wire(framing, [exact, over, b"z", far_over, b"z"])
    for chunks in ([stream], [stream[:7], stream[7:]], [stream[i : i + 100] for i in range(0, len(stream), 100)]):
        assert fed(framing.decoder(limit), chunks) == [
            exact,
            Oversized(limit + 1, ends(over)),
            b"z",
            Oversized(len(far_over), ends(far_over)),
            b"z",
        ]


@both
def test_an_excerpt_has_both_ends(framing: Framing) -> None:
    payload = b"<" + b"-" * 5000 + b">"
    [skipped] = framing.decoder(100).feed(wire(framing, [payload]))
    assert isinstance(skipped, Oversized)
    assert skipped.size == 5002
    assert skipped.excerpt[:1] + skipped.excerpt[-1:] == b"<>"
    assert len(skipped.excerpt) == 2 * EXCERPT_BYTES


@both
def test_what_is_incomplete_is_pending(framing: Framing) -> None:
    decoder = framing.decoder(LIMIT)
    assert decoder.pending == 0
    stream = wire(framing, [b"abc"])
    assert decoder.feed(stream[:2]) == []
    assert decoder.pending == 2
    assert decoder.feed(stream[2:]) == [b"abc"]
    assert decoder.pending == 0
    decoder.feed(wire(framing, [b"x" * 100])[:60])
    assert decoder.pending == 60


def test_a_line_may_end_with_cr_lf_and_empty_lines_are_nothing() -> None:
    assert NEWLINE.decoder(LIMIT).feed(b"\n\r\n{}\r\n\n\n[]\n\r\n") == [b"{}\r", b"[]"]


def test_a_length_says_what_is_empty_and_what_holds_newlines() -> None:
    decoder = LENGTH.decoder(LIMIT)
    assert decoder.feed(b"\0\0\0\0\0\0\0\3a\nb\0\0") == [b"", b"a\nb"]
    assert decoder.pending == 2


def test_a_huge_length_is_no_reason_to_reserve_anything() -> None:
    decoder = LENGTH.decoder(LIMIT)
    assert decoder.feed(b"\xff\xff\xff\xff" + b"x" * 5000) == []
    assert decoder.pending == 5004


def test_framings_are_known_by_their_names() -> None:
    assert {name: framing.name for name, framing in FRAMINGS.items()} == {"newline": "newline", "length": "length"}
    assert [framing.binary for framing in FRAMINGS.values()] == [False, True]


class Counted(bytes):
    """Bytes that count how many of them are looked at or copied; what is cut from them counts on."""

    work = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        found = super().find(sub, start, end)
        Counted.work += (len(self) if found < 0 else found) - start
        return found

    def split(self, *args: Any) -> list[bytes]:
        Counted.work += len(self)
        return [Counted(part) for part in super().split(*args)]

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, int):
            return found
        Counted.work += len(found)
        return Counted(found)

    def __add__(self, other: bytes) -> Counted:  # type: ignore[override]  # as above
        Counted.work += len(self) + len(other)
        return Counted(super().__add__(other))

    def __radd__(self, other: bytes) -> Counted:
        Counted.work += len(self) + len(other)
        return Counted(other.__add__(self))


@both
@pytest.mark.parametrize("limit", [1 << 30, 1000], ids=["kept", "skipped"])
def test_the_work_grows_with_the_input_and_not_with_its_square(framing: Framing, limit: int) -> None:
    """A line of n KiB in chunks of 1 KiB: each byte is handled a fixed number of times, however large n is."""
    per_byte: list[float] = []
    for kibibytes in (64, 1024):
        stream = wire(framing, [b"x" * 1024 * kibibytes])
        decoder = framing.decoder(limit)
        Counted.work = 0
        for start in range(0, len(stream), 1024):
            decoder.feed(Counted(stream[start : start + 1024]))
        per_byte.append(Counted.work / len(stream))
    assert per_byte[1] < per_byte[0] * 1.1
    assert per_byte[1] < 10


@both
def test_a_line_of_16_mib_in_small_chunks_arrives_whole(framing: Framing) -> None:
    payload = b"0123456789abcdef" * (1 << 20)
    stream = wire(framing, [payload])
    chunks = [stream[start : start + 1024] for start in range(0, len(stream), 1024)]
    assert fed(framing.decoder(len(payload)), chunks) == [payload]
