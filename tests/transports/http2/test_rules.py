"""The rules of RFC 9113 for a server, one by one, as h2spec tries them: what the peer sends, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.support.http2_rules import (
    BOUND,
    CALM,
    CLOSED,
    CODING,
    FLOW,
    FRAME_SIZE,
    HEAD_TABLE,
    LIMITED,
    LIST,
    LONG,
    MARK,
    OPEN,
    PRIO,
    PROTOCOL,
    PUSH,
    REFUSED,
    SIZE,
    WHOLE,
    WINDOW,
    Ends,
    Resets,
)
from tests.support.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Seen,
    block,
    data,
    frame,
    frames_in,
    goaway,
    headers,
    only,
    ping,
    reset,
    settings,
    window,
)
from trioxport.transports._http2 import Http2Error, Http2Stream, open_http2

OPENING: Final = PREFACE + settings()


@attrs.frozen
class Answered:
    """The requests on these streams are answered, and the connection goes on."""

    streams: tuple[int, ...] = (1,)


ANSWERED: Final = Answered()
IGNORED: Final = Answered(())

Case = tuple[str, str, bytes, "Ends | Resets | Answered"]

CASES: Final[Sequence[Case]] = [
    # 3.4 preface
    ("3.4", "a preface and settings", b"", IGNORED),
    ("3.4", "settings with an acknowledgement at once", settings(flags=ACK), IGNORED),
    # 4.1 frame format
    ("4.1", "a frame of an unknown type", frame(0x16, b"12345678"), IGNORED),
    ("4.1", "a frame of an unknown type on a stream", frame(0xF0, b"x", stream=7) + headers(), ANSWERED),
    ("4.1", "undefined flags", frame(PING, b"12345678", flags=0x16), IGNORED),
    ("4.1", "the reserved bit", frame(PING, b"12345678", stream=0x80000000), IGNORED),
    # 4.2 frame size
    ("4.2", "data of the largest size", headers(flags=OPEN) + data(b"x" * 16384, end=True), ANSWERED),
    ("4.2", "data beyond the largest size", headers(flags=OPEN) + data(b"x" * 16385), Ends(SIZE)),
    ("4.2", "a header beyond the largest size", frame(HEADERS, b"x" * 16385, stream=1), Ends(SIZE)),
    ("4.2", "settings beyond the largest size", frame(SETTINGS, b"\0" * 16386), Ends(SIZE)),
    ("4.2", "an unknown frame beyond the largest size", frame(0x20, b"\0" * 16385), Ends(SIZE)),
    # 4.3 header compression
    ("4.3", "a block that cannot be decoded", frame(HEADERS, b"\x40", stream=1, flags=WHOLE), Ends(CODING)),
    (
        "4.3",
        "a block in another frame's place",
        headers(flags=0) + headers(stream=3),
        Ends(PROTOCOL),
    ),
    ("4.3", "another frame within a block", headers(flags=0) + ping(), Ends(PROTOCOL)),
    ("4.3", "an unknown frame within a block", headers(flags=0) + frame(0x21), Ends(PROTOCOL)),
    ("4.3", "data within a block", headers(flags=0) + data(), Ends(PROTOCOL)),
    # 5.1 stream states
    ("5.1", "data on an idle stream", data(), Ends(PROTOCOL)),
    ("5.1", "a reset of an idle stream", reset(), Ends(PROTOCOL)),
    ("5.1", "a window for an idle stream", window(100, stream=1), Ends(PROTOCOL)),
    ("5.1", "a continuation on an idle stream", frame(CONTINUATION, block(), stream=1), Ends(PROTOCOL)),
    ("5.1", "a priority for an idle stream", frame(PRIORITY, PRIO, stream=1) + headers(stream=3), Answered((3,))),
    ("5.1", "data after the end", headers() + data(), Resets(CLOSED)),
    ("5.1", "a header after the end", headers() + headers(), Resets(CLOSED)),
    ("5.1", "a continuation after the end", headers() + frame(CONTINUATION, block(), stream=1), Ends(PROTOCOL)),
    ("5.1", "data after a reset", headers(flags=OPEN) + reset() + data(), Resets(CLOSED)),
    ("5.1", "a header after a reset", headers(flags=OPEN) + reset() + headers(), Resets(CLOSED)),
    ("5.1", "a continuation after a reset", headers(flags=OPEN) + reset() + frame(9, b"", stream=1), Ends(1)),
    ("5.1", "a reset after a reset", headers(flags=OPEN) + reset() + reset(), IGNORED),
    ("5.1", "a window after the end", headers() + window(10, stream=1), ANSWERED),
    ("5.1", "a reset after the end", headers() + reset(), IGNORED),
    ("5.1", "a priority after a reset", headers(flags=OPEN) + reset() + frame(PRIORITY, PRIO, stream=1), IGNORED),
    # 5.1.1 stream identifiers
    ("5.1.1", "an even stream of a client", headers(stream=2), Ends(PROTOCOL)),
    ("5.1.1", "a stream below an earlier one", headers(stream=5) + headers(stream=3), Ends(PROTOCOL)),
    ("5.1.1", "a stream that skips others", headers(stream=5) + headers(stream=101), Answered((5, 101))),
    ("5.1.1", "the highest stream", headers(stream=2**31 - 1), Answered((2**31 - 1,))),
    # 5.1.2 concurrency
    (
        "5.1.2",
        "more streams than allowed",
        headers(flags=OPEN) + headers(stream=3, flags=OPEN) + headers(stream=5),
        Resets(REFUSED, 5),
    ),
    (
        "5.1.2",
        "a stream after one that ended",
        headers(flags=OPEN) + headers(stream=3, flags=OPEN) + reset() + headers(stream=5),
        Answered((5,)),
    ),
    # 5.3 priority, which is ignored
    ("5.3", "a header with a priority", frame(HEADERS, PRIO + block(), stream=1, flags=WHOLE | PRIORITIZED), ANSWERED),
    (
        "5.3",
        "a header that depends on itself",
        frame(HEADERS, b"\0\0\0\1\x0f" + block(), stream=1, flags=WHOLE | PRIORITIZED),
        Ends(PROTOCOL),
    ),
    ("5.3", "a priority that depends on itself", frame(PRIORITY, b"\0\0\0\1\x0f", stream=1), Ends(PROTOCOL)),
    ("5.3", "a priority for a stream that does not exist", frame(PRIORITY, PRIO, stream=99), IGNORED),
    # 5.4 errors
    ("5.4.1", "an invalid frame ends the connection", frame(PING, b"1"), Ends(SIZE)),
    # 6.1 DATA
    ("6.1", "data on stream 0", data(stream=0), Ends(PROTOCOL)),
    (
        "6.1",
        "padded data",
        headers(flags=OPEN) + frame(DATA, b"\4body\0\0\0\0", stream=1, flags=END_STREAM | PADDED),
        ANSWERED,
    ),
    (
        "6.1",
        "more padding than data",
        headers(flags=OPEN) + frame(DATA, b"\6body", stream=1, flags=END_STREAM | PADDED),
        Ends(PROTOCOL),
    ),
    (
        "6.1",
        "padding as long as the frame",
        headers(flags=OPEN) + frame(DATA, b"\5body\0", stream=1, flags=PADDED | END_STREAM),
        ANSWERED,
    ),
    ("6.1", "padded data without its length", headers(flags=OPEN) + frame(0, stream=1, flags=PADDED), Ends(SIZE)),
    ("6.1", "empty data that ends", headers(flags=OPEN) + data(b"", end=True), ANSWERED),
    # 6.2 HEADERS
    ("6.2", "a header on stream 0", headers(stream=0), Ends(PROTOCOL)),
    ("6.2", "a padded header", frame(HEADERS, b"\2" + block() + b"\0\0", stream=1, flags=WHOLE | PADDED), ANSWERED),
    (
        "6.2",
        "more padding than header",
        frame(HEADERS, b"\xff" + block(), stream=1, flags=WHOLE | PADDED),
        Ends(PROTOCOL),
    ),
    (
        "6.2",
        "too short for a priority",
        frame(1, b"\0", stream=1, flags=WHOLE | PRIORITIZED),
        Ends(SIZE),
    ),
    # 6.3 PRIORITY
    ("6.3", "a priority on stream 0", frame(PRIORITY, PRIO), Ends(PROTOCOL)),
    ("6.3", "a priority of another length", headers() + frame(PRIORITY, b"\0\0\0\0", stream=1), Ends(SIZE)),
    # 6.4 RST_STREAM
    ("6.4", "a reset of stream 0", reset(stream=0), Ends(PROTOCOL)),
    (
        "6.4",
        "a reset of another length",
        headers(flags=OPEN) + frame(RST_STREAM, b"\0\0\0", stream=1),
        Ends(SIZE),
    ),
    ("6.4", "a reset with an unknown code", headers(flags=OPEN) + reset(0xDEAD), IGNORED),
    ("6.4", "a reset of a stream of this side that was never opened", reset(stream=2), Ends(PROTOCOL)),
    # 6.5 SETTINGS
    ("6.5", "an acknowledgement with a payload", frame(SETTINGS, b"\0" * 6, flags=ACK), Ends(SIZE)),
    ("6.5", "settings on a stream", frame(SETTINGS, stream=1), Ends(PROTOCOL)),
    ("6.5", "settings of another length", frame(SETTINGS, b"\0" * 5), Ends(SIZE)),
    ("6.5", "empty settings", settings(), IGNORED),
    ("6.5.2", "push neither on nor off", settings((PUSH, 2)), Ends(PROTOCOL)),
    ("6.5.2", "a window beyond the highest", settings((WINDOW, 2**31)), Ends(FLOW)),
    ("6.5.2", "a frame size below the lowest", settings((FRAME_SIZE, 16383)), Ends(PROTOCOL)),
    ("6.5.2", "a frame size beyond the highest", settings((FRAME_SIZE, 2**24)), Ends(PROTOCOL)),
    ("6.5.2", "an unknown setting", settings((0xFF, 1)), IGNORED),
    (
        "6.5.2",
        "the largest values",
        settings((HEAD_TABLE, 2**32 - 1), (FRAME_SIZE, 2**24 - 1), (LIST, 2**32 - 1)),
        IGNORED,
    ),
    ("6.5.3", "the last of two values counts", settings((WINDOW, 100), (WINDOW, 1)) + headers(), ANSWERED),
    ("6.5.3", "an acknowledgement of nothing", settings(flags=ACK) + settings(flags=ACK), IGNORED),
    # 6.6 PUSH_PROMISE
    (
        "6.6",
        "a promise of a client",
        headers() + frame(PUSH_PROMISE, b"\0\0\0\2" + block(), stream=1, flags=4),
        Ends(1),
    ),
    # 6.7 PING
    ("6.7", "a ping", ping(), IGNORED),
    ("6.7", "an answer to no ping", ping(flags=ACK), IGNORED),
    ("6.7", "a ping on a stream", frame(PING, b"12345678", stream=1), Ends(PROTOCOL)),
    ("6.7", "a ping of another length", frame(PING, b"123456"), Ends(SIZE)),
    # 6.8 GOAWAY
    ("6.8", "an end on a stream", frame(GOAWAY, b"\0" * 8, stream=1), Ends(PROTOCOL)),
    ("6.8", "an end that is too short", frame(GOAWAY, b"\0" * 7), Ends(SIZE)),
    ("6.8", "requests before an end", headers() + goaway(), ANSWERED),
    ("6.8", "an end with an explanation", goaway(code=2, text=b"tired\0\n"), IGNORED),
    # 6.9 WINDOW_UPDATE
    ("6.9", "a window of 0 for the connection", window(0), Ends(PROTOCOL)),
    ("6.9", "a window of 0 for a stream", headers(flags=OPEN) + window(0, stream=1), Ends(PROTOCOL)),
    ("6.9", "a window of another length", frame(WINDOW_UPDATE, b"\0\0\1"), Ends(SIZE)),
    (
        "6.9.1",
        "the connection's window beyond the highest",
        window(2**31 - 1) + window(2**31 - 1),
        Ends(FLOW),
    ),
    (
        "6.9.1",
        "a stream's window beyond the highest",
        headers(flags=OPEN) + window(2**31 - 1, stream=1),
        Resets(FLOW),
    ),
    ("6.9.1", "data beyond the window of a stream", headers(flags=OPEN) + data(b"x" * 16384) * 5, Ends(FLOW)),
    (
        "6.9.2",
        "settings that lift the window of a stream beyond the highest",
        headers(flags=OPEN) + window(2**31 - 65536, stream=1) + settings((WINDOW, 2**31 - 1)),
        Ends(FLOW),
    ),
    (
        "6.9.2",
        "a window that settings make negative",
        settings((WINDOW, 3))
        + headers(flags=OPEN)
        + settings((WINDOW, 0))
        + window(64, stream=1)
        + data(b"", end=True),
        ANSWERED,
    ),
    # 6.10 CONTINUATION
    (
        "6.10",
        "a header in parts",
        frame(HEADERS, block()[:5], stream=1, flags=END_STREAM)
        + frame(CONTINUATION, block()[5:9], stream=1)
        + frame(CONTINUATION, block()[9:], stream=1, flags=END_HEADERS),
        ANSWERED,
    ),
    ("6.10", "a part behind the last one", headers(flags=OPEN) + frame(CONTINUATION, block(), stream=1), Ends(1)),
    ("6.10", "a part of stream 0", headers(flags=0) + frame(CONTINUATION, block()), Ends(PROTOCOL)),
    (
        "6.10",
        "a part of another stream",
        headers(flags=0) + frame(CONTINUATION, block(), stream=3),
        Ends(PROTOCOL),
    ),
    (
        "6.10",
        "a header in very many parts",
        headers(flags=0) + frame(CONTINUATION, b"", stream=1) * 40,
        Ends(CALM),
    ),
    (
        "6.10",
        "a header that does not end",
        frame(HEADERS, LONG, stream=1) + frame(CONTINUATION, LONG, stream=1) * 9,
        Ends(CALM),
    ),
    # 7 error codes
    ("7", "an end with an unknown code", goaway(code=0xFF), IGNORED),
    # 8.1 messages
    ("8.1", "trailers without an end", headers(flags=OPEN) + only((b"x", b"y"), flags=OPEN), Ends(PROTOCOL)),
    ("8.1", "trailers", headers(flags=OPEN) + data() + only((b"x", b"y")), ANSWERED),
    ("8.1", "a third header", headers(flags=OPEN) + only((b"x", b"y")) + only((b"x", b"y")), Resets(CLOSED)),
    # 8.1.1 malformed messages
    (
        "8.1.1",
        "less data than announced",
        headers((b"content-length", b"2"), flags=OPEN) + data(b"x", end=True),
        Ends(1),
    ),
    (
        "8.1.1",
        "more data than announced",
        headers((b"content-length", b"1"), flags=OPEN) + data(b"xy", end=True),
        Ends(1),
    ),
    (
        "8.1.1",
        "more data than announced, in parts",
        headers((b"content-length", b"3"), flags=OPEN) + data(b"xy") + data(b"zz", end=True),
        Ends(PROTOCOL),
    ),
    (
        "8.1.1",
        "less data than announced, before trailers",
        headers((b"content-length", b"3"), flags=OPEN) + data(b"xy") + only((b"x", b"y")),
        Resets(PROTOCOL),
    ),
    ("8.1.1", "no data at all", headers((b"content-length", b"2")), Resets(PROTOCOL)),
    ("8.1.1", "a length that is no number", headers((b"content-length", b"+1"), flags=OPEN), Ends(PROTOCOL)),
    ("8.1.1", "two lengths", headers((b"content-length", b"1"), (b"content-length", b"2")), Ends(PROTOCOL)),
    # 8.2 fields
    ("8.2.1", "a name in upper case", headers((b"X-Test", b"y")), Resets(PROTOCOL)),
    ("8.2.1", "an empty name", headers((b"", b"y")), Resets(PROTOCOL)),
    ("8.2.1", "a name with a blank", headers((b"x y", b"y")), Resets(PROTOCOL)),
    ("8.2.1", "a name with a colon", headers((b"x:y", b"y")), Resets(PROTOCOL)),
    ("8.2.1", "a name beyond ASCII", headers((b"x\xe4", b"y")), Resets(PROTOCOL)),
    ("8.2.1", "a value with a NUL", headers((b"x", b"a\0b")), Resets(PROTOCOL)),
    ("8.2.1", "a value with a line feed", headers((b"x", b"a\nb")), Resets(PROTOCOL)),
    ("8.2.1", "a value with a carriage return", headers((b"x", b"a\rb")), Resets(PROTOCOL)),
    ("8.2.1", "a value behind a blank", headers((b"x", b" a")), Resets(PROTOCOL)),
    ("8.2.1", "a value before a tab", headers((b"x", b"a\t")), Resets(PROTOCOL)),
    ("8.2.2", "a connection header", headers((b"connection", b"keep-alive")), Resets(PROTOCOL)),
    ("8.2.2", "a proxy's connection header", headers((b"proxy-connection", b"close")), Resets(PROTOCOL)),
    ("8.2.2", "keep-alive", headers((b"keep-alive", b"timeout=5")), Resets(PROTOCOL)),
    ("8.2.2", "a transfer coding", headers((b"transfer-encoding", b"chunked")), Resets(PROTOCOL)),
    ("8.2.2", "an upgrade", headers((b"upgrade", b"websocket")), Resets(PROTOCOL)),
    ("8.2.2", "te: gzip", headers((b"te", b"gzip")), Resets(PROTOCOL)),
    ("8.2.2", "te: trailers", headers((b"te", b"trailers")), ANSWERED),
    ("8.2.3", "cookies in parts", headers((b"cookie", b"a=1"), (b"cookie", b"b=2")), ANSWERED),
    # 8.3 pseudo-header fields
    ("8.3", "an unknown one", headers((b":test", b"y")), Resets(PROTOCOL)),
    ("8.3", "one of responses", only((b":status", b"200"), (b":path", b"/")), Resets(PROTOCOL)),
    ("8.3", "one behind other fields", only((b"x", b"y"), (b":method", b"GET"), (b":path", b"/")), Resets(PROTOCOL)),
    ("8.3", "one in trailers", headers(flags=OPEN) + data() + only((b":method", b"GET")), Resets(PROTOCOL)),
    ("8.3", "one twice", headers((b":path", b"/")), Resets(PROTOCOL)),
    ("8.3.1", "an empty path", only((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"")), Resets(PROTOCOL)),
    ("8.3.1", "no method", only((b":scheme", b"http"), (b":path", b"/")), Resets(PROTOCOL)),
    ("8.3.1", "no scheme", only((b":method", b"GET"), (b":path", b"/")), Resets(PROTOCOL)),
    ("8.3.1", "no path", only((b":method", b"GET"), (b":scheme", b"http")), Resets(PROTOCOL)),
    ("8.3.1", "no fields", only(), Resets(PROTOCOL)),
    ("8.3.1", "no authority", only((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")), ANSWERED),
    (
        "8.3.1",
        "a method that is no token",
        only((b":method", b"G T"), (b":scheme", b"http"), (b":path", b"/")),
        Resets(1),
    ),
    ("8.3.1", "a path without a slash", only((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"x")), Resets(1)),
    ("8.3.1", "a path with a blank", only((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a b")), Resets(1)),
    ("8.3.1", "another host than the authority", headers((b"host", b"evil.example")), Resets(PROTOCOL)),
    ("8.3.1", "the authority as a host", headers((b"host", b"host")), ANSWERED),
    ("8.3.1", "two hosts", headers((b"host", b"host"), (b"host", b"host")), Resets(PROTOCOL)),
    ("8.5", "CONNECT with a path", only((b":method", b"CONNECT"), (b":authority", b"a"), (b":path", b"/")), Resets(1)),
    # 10.5 denial of service
    ("10.5.1", "a header beyond the bound", headers((b"x", b"y" * 16000), (b"z", b"y" * 200)), Ends(CALM)),
    (
        "10.5.1",
        "a header that grows when it is decoded",
        frame(HEADERS, b"\x40\x01x\x7f\x80\x1e" + b"y" * 3967 + b"\xbe" * 100, stream=1, flags=WHOLE),
        Ends(CALM),
    ),
    # RFC 7541
    (
        "7541 2.3.3",
        "an index beyond the table",
        frame(HEADERS, b"\xbf", stream=1, flags=WHOLE),
        Ends(CODING),
    ),
    ("7541 6.1", "the index 0", frame(HEADERS, b"\x80", stream=1, flags=WHOLE), Ends(CODING)),
    (
        "7541 6.3",
        "a table beyond the bound",
        frame(HEADERS, b"\x3f\xe2\x7f" + block(), stream=1, flags=WHOLE),
        Ends(9),
    ),
    (
        "7541 5.2",
        "a padding of Huffman's code",
        frame(1, b"\0\x85\xff\xff\xff\xff\xff\0", stream=1, flags=5),
        Ends(9),
    ),
    (
        "7541 4.2",
        "a table size behind a field",
        frame(HEADERS, block() + b"\x20", stream=1, flags=WHOLE),
        Ends(9),
    ),
]


async def answer(stream: Http2Stream) -> None:
    with stream:
        try:
            while await stream.receive_data():
                pass
            await stream.send_headers([(b":status", b"200")], end_stream=True)
        except Http2Error:
            return


async def replies(sent: bytes, opening: bytes = OPENING) -> tuple[Sequence[Seen], bool]:
    """The frames that a server sends back, up to its answer to a ping or its end; and whether it has ended."""
    peer, far = memory_stream_pair()
    received = b""
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                async with far, open_http2(far, LIMITED, role="server") as connection:
                    async for stream in connection.requests:
                        nursery.start_soon(answer, stream)

            nursery.start_soon(serve)
            await peer.send_all(opening + sent)
            await wait_all_tasks_blocked()
            with suppress(trio.BrokenResourceError):
                await peer.send_all(frame(PING, MARK))
            found: Sequence[Seen] = []
            has_ended = False
            while not any(each.type == PING and each.payload == MARK for each in found) and not has_ended:
                part = await peer.receive_some()
                has_ended = not part
                received += part
                found, _ = frames_in(received)
            nursery.cancel_scope.cancel()
    return found, has_ended


@pytest.mark.parametrize(
    ("sent", "expected"), [case[2:] for case in CASES], ids=[f"{case[0]} {case[1]}" for case in CASES]
)
async def test_a_server_keeps_the_rules(sent: bytes, expected: Ends | Resets | Answered) -> None:
    found, has_ended = await replies(sent)
    ends = [each.code for each in found if each.type == GOAWAY]
    resets = {each.stream: each.code for each in found if each.type == RST_STREAM}
    if isinstance(expected, Ends):
        assert (ends, has_ended) == ([expected.code], True)
        return
    assert (ends, has_ended) == ([], False)
    if isinstance(expected, Resets):
        assert resets[expected.id] == expected.code
    else:
        answered = {each.stream for each in found if each.type == HEADERS}
        assert answered == set(expected.streams)
        assert not {stream: code for stream, code in resets.items() if code}


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize(
    "opening",
    [b"GET / HTTP/1.1\r\nhost: host\r\n\r\n", PREFACE.replace(b"SM", b"MS"), PREFACE + ping(), PREFACE + headers()],
    ids=["HTTP/1.1", "another preface", "a ping before settings", "a header before settings"],
)
async def test_a_client_that_begins_otherwise_is_refused(opening: bytes) -> None:
    found, has_ended = await replies(b"", opening)
    assert ([each.code for each in found if each.type == GOAWAY], has_ended) == ([PROTOCOL], True)


async def test_settings_and_pings_are_answered() -> None:
    found, _ = await replies(settings((WINDOW, 1)) + ping(b"abcdefgh"))
    assert sum(1 for each in found if each.type == SETTINGS and each.flags == ACK) == 2
    assert [each.payload for each in found if each.type == PING and each.flags == ACK] == [b"abcdefgh", MARK]


async def test_a_byte_at_a_time_is_as_good() -> None:
    peer, far = memory_stream_pair()
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery, open_http2(far, LIMITED, role="server") as connection:
            for byte in OPENING + headers((b"x", b"y" * 100), flags=OPEN) + data(end=True):
                await peer.send_all(bytes([byte]))
            stream = await anext(connection.requests)
            assert await stream.receive_data() == b"x"
            stream.close()
            nursery.cancel_scope.cancel()
