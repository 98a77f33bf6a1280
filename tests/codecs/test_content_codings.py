"""Content codings: payloads come back unchanged, and damaged or too large ones are bounded and reported."""

from __future__ import annotations

import gzip
import random
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioxport import DecodeError, MessageTooLarge, UsageError
from trioxport.codecs.content_codings import (
    CODINGS,
    PIECE_BYTES,
    Coding,
    Unexpanded,
    check_effort,
    compress,
    expand,
    expander,
    require,
)

MIB = 1024 * 1024
TEXT = b'{"jsonrpc":"2.0","id":7,"result":{"text":"' + b"a line of text\\n" * 5000 + b'"}}'

each_coding = pytest.mark.parametrize("coding", CODINGS)


def refused(coding: Coding, payload: bytes, max_size: int = MIB) -> Unexpanded:
    found = expand(coding, payload, max_size)
    assert isinstance(found, Unexpanded)
    return found


@each_coding
@given(payload=st.binary(max_size=2000), repeated=st.integers(1, 200))
def test_what_goes_in_comes_out(coding: Coding, payload: bytes, repeated: int) -> None:
    payload *= repeated
    assert expand(coding, compress(coding, payload), len(payload)) == payload


@each_coding
@given(garbage=st.binary(max_size=300), seed=st.integers(0, 50))
def test_garbage_is_refused_and_raises_nothing_else(coding: Coding, garbage: bytes, seed: int) -> None:
    found = expand(coding, garbage, MIB)
    assert isinstance(found, bytes | Unexpanded)
    damaged = bytearray(compress(coding, TEXT))
    damaged[random.Random(seed).randrange(len(damaged))] ^= 0xFF
    found = expand(coding, bytes(damaged), MIB)
    assert isinstance(found, bytes | Unexpanded)


@each_coding
def test_a_stream_that_is_cut_short_is_refused_with_what_it_begins_with(coding: Coding) -> None:
    compressed = compress(coding, TEXT + random.Random(1).randbytes(3 * PIECE_BYTES))
    found = refused(coding, compressed[:-5])
    assert isinstance(found.error, DecodeError)
    assert found.excerpt.startswith(b'{"jsonrpc":"2.0","id":7,"result"')
    assert isinstance(refused(coding, b"").error, DecodeError)


@each_coding
@pytest.mark.parametrize("surplus", [b"x", b"x" * 3 * PIECE_BYTES, b"\0"], ids=len)
def test_what_follows_the_stream_is_refused(coding: Coding, surplus: bytes) -> None:
    assert isinstance(refused(coding, compress(coding, TEXT) + surplus).error, DecodeError)
    assert isinstance(refused(coding, compress(coding, b"") + surplus).error, DecodeError)


@each_coding
def test_a_second_member_is_refused(coding: Coding) -> None:
    assert isinstance(refused(coding, compress(coding, TEXT) * 2).error, DecodeError)


@each_coding
def test_the_limit_is_exact(coding: Coding) -> None:
    for size in (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES):
        compressed = compress(coding, b"x" * size)
        assert expand(coding, compressed, size) == b"x" * size
        if size:
            assert isinstance(refused(coding, compressed, size - 1).error, MessageTooLarge)


@each_coding
def test_a_bomb_stays_within_the_limit(coding: Coding) -> None:
    bomb = compress(coding, bytes(64 * MIB))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        found = refused(coding, bomb, MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(found.error, MessageTooLarge)
    assert peak < 4 * MIB


@each_coding
def test_a_large_payload_that_does_not_shrink_takes_linear_time(coding: Coding) -> None:
    """Each piece of output would else copy all the input that is left: gigabytes here."""
    payload = random.Random(2).randbytes(8 * MIB)
    compressed = compress(coding, payload, 1)
    tracemalloc.start()
    try:
        assert expand(coding, compressed, len(payload)) == payload
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(payload)


@each_coding
def test_a_stream_can_be_expanded_as_it_comes(coding: Coding) -> None:
    compressed = compress(coding, TEXT)
    stream = expander(coding)
    expanded = b""
    for place in range(0, len(compressed), 7):
        assert not stream.over
        stream.feed(compressed[place : place + 7])
        while piece := stream.read():
            expanded += piece
    assert stream.over
    assert not stream.surplus
    assert expanded == TEXT


def test_other_programs_read_and_write_the_same() -> None:
    assert gzip.decompress(compress("gzip", TEXT)) == TEXT
    assert zlib.decompress(compress("deflate", TEXT)) == TEXT
    assert expand("gzip", gzip.compress(TEXT), MIB) == TEXT


def test_a_window_that_takes_much_memory_is_refused() -> None:
    zstd: Any = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    greedy = b"".join(compressor.compress(bytes([number]) * 1000, compressor.FLUSH_BLOCK) for number in range(9))
    assert "too much memory" in str(refused("zstd", greedy + compressor.flush()).error)


@pytest.mark.parametrize("coding", ["zstd", "br"])
def test_a_coding_that_is_not_installed_says_what_to_install(coding: Coding, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brotli", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"Install it: pip install '(backports.zstd|brotli)>="):
        require(coding)


def test_a_coding_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="Use one of gzip, deflate, zstd, br"):
        require("lzw")  # type: ignore[arg-type]  # the mistake under test


@each_coding
def test_an_effort_that_the_coding_does_not_have_is_refused(coding: Coding) -> None:
    check_effort(coding, None)
    check_effort(coding, 1)
    with pytest.raises(UsageError, match="the effort of"):
        check_effort(coding, 99)
