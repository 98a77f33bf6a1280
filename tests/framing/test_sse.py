"""Server-sent events: any split of the bytes gives the same events, and they are those of the HTML standard."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioxport.frames import EXCERPT_BYTES
from trioxport.framing import Oversized
from trioxport.framing.sse import Event, EventDecoder

seeded = settings(derandomize=True, max_examples=300, deadline=None)

LIMIT = 64


def events_of(*chunks: bytes, limit: int = LIMIT) -> list[Event | Oversized]:
    decoder = EventDecoder(limit)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event(b"a")]),
        (b"data:a\n\n", [Event(b"a")]),
        (b"data:  a \n\n", [Event(b" a ")]),
        (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"data\n\ndata\ndata\n\ndata:", [Event(b""), Event(b"\n")]),
        (b"data:test\n\ndata: test\n\n", [Event(b"test"), Event(b"test")]),
        (b": test stream\n\ndata: first\nid: 1\n\n", [Event(b"first", id="1")]),
        (b"event: add\ndata: 7\n\ndata: 8\n\n", [Event(b"7", "add"), Event(b"8")]),
        (b"event: add\n\ndata: 8\n\n", [Event(b"8")]),
        (b"event\ndata: 8\n\n", [Event(b"8")]),
        (b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", [Event(b"a", id="1"), Event(b"b", id="1"), Event(b"c")]),
        (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [Event(b"a", id="1"), Event(b"b", id="1")]),
        (b"data : a\nDATA: b\n data: c\nother: d\nlone\n\n", []),
        (b"\n\n\n\r\n\r\r", []),
        (b"data: a\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [Event(b"b")]),
        (b"\xef\xbb", []),
        ("data: a\u2028b\u2029c\x85d\x0be\n\n".encode(), [Event("a\u2028b\u2029c\x85d\x0be".encode())]),
        (b"data: \xff\xfe\n\n", [Event(b"\xff\xfe")]),
        (b"event: \xff\nid: \xff\ndata: a\n\n", [Event(b"a", "\ufffd", "\ufffd")]),
    ],
)
def test_streams_mean_what_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert events_of(stream) == events
    assert events_of(*(stream[at : at + 1] for at in range(len(stream)))) == events


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_end_of_line(end: bytes) -> None:
    """A lone CR ends the line at once, without waiting for an LF that may never come."""
    stream = end.join([b"id: 1", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    expected = [Event(b"a\nb", id="1"), Event(b"c", id="1")]
    assert events_of(stream) == expected
    assert events_of(*(stream[at : at + 1] for at in range(len(stream)))) == expected


def test_ends_of_lines_are_mixed() -> None:
    assert events_of(b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\n\ndata: e\n\r") == [
        Event(b"a\nb\nc"),
        Event(b"d"),
        Event(b"e"),
    ]


@seeded
@given(data=st.data())
def test_any_split_into_chunks_gives_the_same_events(data: st.DataObject) -> None:
    fields = [b"data", b"data:", b"data: ", b"id: ", b"id", b"event: ", b"retry: ", b":", b"\xef\xbb\xbf", b"x" * 90]
    pieces = st.sampled_from([*fields, b"\n", b"\n\n", b"\r", b"\r\n", b"\0", b"7", "\u2028é".encode()]) | st.binary()
    stream = b"".join(data.draw(st.lists(pieces, max_size=30)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    whole, split = EventDecoder(LIMIT), EventDecoder(LIMIT)
    expected = whole.feed(stream)
    assert [e for start, end in pairwise([0, *cuts, len(stream)]) for e in split.feed(stream[start:end])] == expected
    assert (split.last_event_id, split.retry) == (whole.last_event_id, whole.retry)


@seeded
@given(payloads=st.lists(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=20)))
def test_what_is_written_is_read(payloads: list[str]) -> None:
    lines = (b"".join(b"data: %s\n" % line.encode() for line in payload.split("\n")) for payload in payloads)
    stream = b"".join(line + b"\n" for line in lines)
    assert events_of(stream, limit=1000) == [Event(payload.encode()) for payload in payloads]


def test_the_id_counts_once_its_event_is_complete() -> None:
    """A stream that breaks within an event is resumed before that event."""
    decoder = EventDecoder(LIMIT, last_event_id="0")
    assert decoder.last_event_id == "0"
    assert decoder.feed(b"id: 1\ndata: a\n") == []
    assert decoder.last_event_id == "0"
    assert decoder.feed(b"\n") == [Event(b"a", id="1")]
    assert decoder.feed(b"id: 2\n\n") == []
    assert decoder.last_event_id == "2"


def test_a_resumed_stream_goes_on_with_its_id() -> None:
    assert EventDecoder(LIMIT, last_event_id="7").feed(b"data: a\n\n") == [Event(b"a", id="7")]


@pytest.mark.parametrize(
    ("line", "retry"),
    [
        (b"retry: 0", 0),
        (b"retry:2500", 2500),
        (b"retry: -1", None),
        (b"retry: 1.5", None),
        (b"retry: 1s", None),
        (b"retry:", None),
        (b"retry", None),
        ("retry: ٣".encode(), None),
        (b"retry: " + b"9" * 50, 10**18),
    ],
)
def test_retry_is_digits_only(line: bytes, retry: int | None) -> None:
    decoder = EventDecoder(LIMIT)
    decoder.feed(line + b"\n")
    assert decoder.retry == retry


def test_the_limit_holds_to_the_byte() -> None:
    fitting, large = b"a" * LIMIT, b"a" * (LIMIT + 1)
    for field in (b"data: ", b"data:"):
        assert events_of(field + fitting + b"\n\n") == [Event(fitting)]
        assert events_of(field + large + b"\n\n") == [Oversized(LIMIT + 1, large)]
        longer = b"b" * 3 * EXCERPT_BYTES
        assert events_of(field + longer + b"\n\n") in (
            [Oversized(len(longer), longer[: 2 * EXCERPT_BYTES])],
            [Oversized(len(longer), longer[: 2 * EXCERPT_BYTES - len(field)])],
        )


def test_the_lines_of_an_event_count_together() -> None:
    lines = b"data: " + b"a" * 40 + b"\n"
    assert events_of(lines * 2 + b"\n") == [Oversized(81, b"a" * 40 + b"\n" + b"a" * 40)]
    assert events_of(lines * 2 + b"\n" + lines + b"\n")[1:] == [Event(b"a" * 40)]


@pytest.mark.parametrize("chunk", [7, 64, 100_000])
def test_what_is_too_large_is_skipped_and_the_next_is_read(chunk: int) -> None:
    stream = b"id: 1\ndata: " + b"x" * 50_000 + b"\n\n:" + b"y" * 50_000 + b"\nz" + b"z" * 5_000 + b": 1\ndata: a\n\n"
    first, second = events_of(*(stream[at : at + chunk] for at in range(0, len(stream), chunk)))
    assert isinstance(first, Oversized)
    assert first.size == 50_000
    assert set(first.excerpt) == set(b"x")
    assert second == Event(b"a", id="1")


def test_an_endless_line_takes_no_memory() -> None:
    decoder = EventDecoder(1000)
    decoder.feed(b"data: ")
    chunk = b"x" * 65536
    tracemalloc.start()
    for _ in range(500):
        assert decoder.feed(chunk) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("shape", [b"x", b"\n", b"data:\n", b"data: x\n\n", b"\r", b":\r\n"])
def test_the_work_is_linear(shape: bytes) -> None:
    """Four times the input takes less of this thread's time than the sixteen times that quadratic work would."""

    def seconds(size: int) -> float:
        stream = shape * (size // len(shape))
        decoder = EventDecoder(1 << 30)
        begin = time.thread_time()
        for at in range(0, len(stream), 4096):
            decoder.feed(stream[at : at + 4096])
        return time.thread_time() - begin

    small = min(seconds(100_000) for _ in range(3))
    assert min(seconds(400_000) for _ in range(3)) < 10 * small
