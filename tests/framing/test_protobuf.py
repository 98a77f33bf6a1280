"""The part of protocol buffers that gRPC needs, beside Google's own implementation."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BytesValue, UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from trioxport.framing.protobuf import MalformedProtobuf, bytes_field, bytes_of, number_field, number_of, varint

MISFITS = {
    "a tag without an end": b"\xff" * 11,
    "a tag that is cut": b"\x80",
    "a length without a value": b"\x0a\x05abc",
    "a length that is cut": b"\x0a\x80",
    "a number that is cut": b"\x10\x80",
    "a fixed number that is cut": b"\x15\x00\x00",
    "a group": b"\x0b\x0c",
    "a type that does not exist": b"\x0f",
}


@given(st.binary(max_size=300))
def test_bytes_are_written_and_read_like_googles(value: bytes) -> None:
    encoded = bytes_field(1, value)
    assert BytesValue.FromString(encoded).value == value
    assert bytes_of(BytesValue(value=value).SerializeToString(), 1) == value
    assert bytes_of(encoded, 1) == value


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_written_and_read_like_googles(value: int) -> None:
    assert UInt64Value.FromString(number_field(1, value)).value == value
    assert number_of(UInt64Value(value=value).SerializeToString(), 1) == value


def test_other_fields_are_skipped_and_the_last_of_several_counts() -> None:
    others = number_field(2, 300) + b"\x1d" + b"4444" + b"\x21" + b"88888888" + bytes_field(5, b"other")
    message = bytes_field(1, b"first") + others + bytes_field(1, b"last") + others
    assert bytes_of(message, 1) == b"last"
    assert BytesValue.FromString(message).value == b"last"
    assert number_of(message, 2) == 300
    assert bytes_of(message, 9) == b""
    assert number_of(message, 9) == 0


@pytest.mark.parametrize("message", MISFITS.values(), ids=MISFITS)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedProtobuf):
        bytes_of(message, 1)
    with pytest.raises(MalformedProtobuf):
        number_of(message, 1)


def test_a_message_of_nothing_but_fields_costs_little() -> None:
    """A few compressed kilobytes expand to millions of them."""
    with pytest.raises(MalformedProtobuf, match="more than 1000 fields"):
        bytes_of(b"\x12\x00" * 1_000_000, 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = bytes_of(data, 1)
    except MalformedProtobuf:
        return
    try:
        expected = BytesValue.FromString(data).value
    except DecodeError:  # it also reads what is skipped here: the numbers of fields, and groups
        return
    assert found == expected


@given(st.integers(0, 2**64 - 1))
def test_a_varint_takes_seven_bits_a_byte(number: int) -> None:
    assert len(varint(number)) == max(1, -(-number.bit_length() // 7))
