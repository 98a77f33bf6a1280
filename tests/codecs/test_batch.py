"""Batches: what is taken apart is what was put together, byte by byte."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioxport import DecodeError, ProtocolViolation
from trioxport.codecs.batch import MAX_BATCH_MESSAGES, is_batch, join_batch, split_batch

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
messages = st.dictionaries(st.text(), values, max_size=4)
blanks = st.text(" \t\r\n", max_size=3)


@given(batch=st.lists(messages, min_size=1, max_size=6), ascii_only=st.booleans(), indent=st.none() | st.integers(0, 2))
def test_each_payload_comes_out_byte_by_byte(batch: list[dict[str, Any]], ascii_only: bool, indent: int | None) -> None:
    payloads = [
        json.dumps(message, ensure_ascii=ascii_only, indent=indent).encode(errors="replace") for message in batch
    ]
    joined = join_batch(payloads)
    assert is_batch(joined)
    assert split_batch(joined) == payloads


@given(batch=st.lists(messages, min_size=1, max_size=4), blank=blanks)
def test_blanks_between_payloads_are_dropped(batch: list[dict[str, Any]], blank: str) -> None:
    payloads = [json.dumps(message).encode() for message in batch]
    spaced = blank.join(["", "[", *(f"{blank},{blank}".join(map(bytes.decode, payloads)).join([blank, blank]),), "]"])
    assert is_batch(spaced.encode())
    assert split_batch((spaced + blank).encode()) == payloads


@given(garbage=st.binary(max_size=200) | st.text('[]{},:" \\tu0', max_size=60).map(str.encode))
def test_garbage_is_refused_as_such_and_valid_arrays_only_are_split(garbage: bytes) -> None:
    try:
        found = split_batch(b"[" + garbage)
    except (DecodeError, ProtocolViolation):
        return
    assert [json.loads(element) for element in found] == json.loads(b"[" + garbage)


@pytest.mark.parametrize(
    "payload", [b"[{}", b"[{},]", b"[,{}]", b"[{} {}]", b"[{}]]", b"[{}] x", b"[", b"[{]", b'["', b" "]
)
def test_what_is_no_array_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        split_batch(payload)


@pytest.mark.parametrize("payload", [b"[]", b"[ ]", b'["not","an","object"]', b"[1,[2]]"])
def test_an_array_without_a_message_is_no_batch(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="no message"):
        split_batch(payload)


def test_what_is_no_message_among_messages_is_for_the_codec_to_refuse() -> None:
    assert split_batch(b'[1, {"a":"\\ud800"}, 1e999, NaN]') == [b"1", b'{"a":"\\ud800"}', b"1e999", b"NaN"]


def test_text_that_is_not_utf_8_or_nested_too_deep_is_refused() -> None:
    with pytest.raises(DecodeError, match="UTF-8"):
        split_batch(b'["\xff"]')
    with pytest.raises(DecodeError, match="deep"):
        split_batch(b"[" * 100_000)


def test_how_many_messages_a_batch_holds_is_bounded() -> None:
    assert len(split_batch(join_batch([b"{}"] * MAX_BATCH_MESSAGES))) == MAX_BATCH_MESSAGES
    with pytest.raises(ProtocolViolation, match="more than 1024"):
        split_batch(join_batch([b"{}"] * (MAX_BATCH_MESSAGES + 1)))


def test_a_million_elements_are_never_held() -> None:
    payload = b"[" + b"0," * 1_000_000 + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation):
            split_batch(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(payload)


@pytest.mark.parametrize("payload", [b"{}", b' {"a":[1]}', b"", b"\xef\xbb\xbf[]", b"x["])
def test_a_single_message_is_no_batch(payload: bytes) -> None:
    assert not is_batch(payload)
