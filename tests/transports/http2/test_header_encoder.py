"""Header blocks that are sent: any decoder reads them, and fields that come again take a byte each."""

from __future__ import annotations

from typing import Final

from hpack import Decoder, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from trioxport.transports._http2.header_encoder import HeaderEncoder

REQUEST: Final = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"localhost"),
    (b":path", b"/mcp"),
    (b"mcp-protocol-version", b"2026-07-28"),
]
NAMES: Final = st.sampled_from([b":status", b"content-length", b"mcp-name", b"x", b"accept", b"traceparent"])
VALUES: Final = st.sampled_from([b"", b"200", b"a", b"y" * 130, b"z" * 300]) | st.binary(max_size=5)
BLOCKS: Final = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, 0, 64, 200, 4096]), BLOCKS), max_size=8))
def test_a_decoder_reads_every_block(blocks: list[tuple[int | None, list[tuple[bytes, bytes, bool]]]]) -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    for table_size, fields in blocks:
        if table_size is not None:
            for _ in range(2):  # as a peer may repeat a setting
                encoder.header_table_size = decoder.max_allowed_table_size = table_size
        sent = [NeverIndexedHeaderTuple(*field[:2]) if field[2] else field[:2] for field in fields]
        received = decoder.decode(encoder.encode(sent), raw=True)
        assert [tuple(field) for field in received] == [field[:2] for field in fields]
        assert not any(field.indexable for field, (*_, secret) in zip(received, fields, strict=True) if secret)


def test_fields_that_come_again_take_a_byte_each() -> None:
    encoder = HeaderEncoder()
    encoder.encode([*REQUEST, (b"content-length", b"1")])
    varying = [(b"content-length", b"1234"), (b"traceparent", b"00-1-2-01"), (b"mcp-name", b"tool")]
    assert encoder.encode(varying[:1]) == b"\x0f\x0d\x041234"
    for number in range(100):
        assert len(encoder.encode(REQUEST)) == len(REQUEST)
        encoder.encode([*varying, (b"content-length", b"%d" % number)])


def test_the_table_is_small_whatever_the_peer_allows() -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    encoder.header_table_size = decoder.max_allowed_table_size = 2**32 - 1
    for number in range(200):
        field = (b"x", b"%d" % number * 100)
        assert [tuple(each) for each in decoder.decode(encoder.encode([field]), raw=True)] == [field]
    kept = sum(len(name) + len(value) + 32 for name, value in encoder.header_table.dynamic_entries)
    assert kept <= 4096


def test_a_secret_stays_out_of_the_table_though_a_plain_field_is_the_same() -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    for _ in range(2):
        decoder.decode(encoder.encode([(b"x", b"y")]), raw=True)
    [field] = decoder.decode(encoder.encode([NeverIndexedHeaderTuple(b"x", b"y")]), raw=True)
    assert not field.indexable
