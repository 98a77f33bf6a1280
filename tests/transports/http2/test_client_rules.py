"""The rules of RFC 9113 for a client, one by one: what a server sends, and what becomes of the client's requests.

The client has a request on stream 1 that waits for its response, and one on stream 3 whose body goes on.
"""

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
    MOST,
    OPEN,
    PRIO,
    PROTOCOL,
    PUSH,
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
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Seen,
    block,
    data,
    frame,
    frames_in,
    goaway,
    only,
    ping,
    reset,
    settings,
    window,
)
from trioxport.transports._http2 import ConnectionEnded, Http2Connection, Http2Error, Http2Stream, open_http2

STATUS: Final = (b":status", b"200")
BLOCK: Final = block(STATUS, request=False)
LONG_BLOCK: Final = block(STATUS, (b"x", b"y" * 200), request=False)
HEAD: Final = only(STATUS, flags=OPEN)
RESPONSE: Final = only(STATUS)

BROKEN_RULE: Final = "the peer broke the rules of HTTP/2: "


@attrs.frozen
class Answered:
    """The requests on these streams are answered, the others still wait, and the connection goes on."""

    streams: tuple[int, ...] = (1,)


@attrs.frozen
class Fails:
    """The request on stream 1 fails with this code and outcome; the connection goes on."""

    code: int
    outcome: str = "unknown"


ANSWERED: Final = Answered()
IGNORED: Final = Answered(())

Case = tuple[str, str, bytes, "Ends | Resets | Answered | Fails"]

BAD_FIELDS: Final = [
    ("8.2.1", "a name in upper case", (b"X-Test", b"y")),
    ("8.2.1", "an empty name", (b"", b"y")),
    ("8.2.1", "a name with a blank", (b"x y", b"y")),
    ("8.2.1", "a name with a colon", (b"x:y", b"y")),
    ("8.2.1", "a name beyond ASCII", (b"x\xe4", b"y")),
    ("8.2.1", "a value with a NUL", (b"x", b"a\0b")),
    ("8.2.1", "a value with a line feed", (b"x", b"a\nb")),
    ("8.2.1", "a value with a carriage return", (b"x", b"a\rb")),
    ("8.2.1", "a value behind a blank", (b"x", b" a")),
    ("8.2.1", "a value before a tab", (b"x", b"a\t")),
    ("8.2.2", "a connection header", (b"connection", b"keep-alive")),
    ("8.2.2", "keep-alive", (b"keep-alive", b"timeout=5")),
    ("8.2.2", "a transfer coding", (b"transfer-encoding", b"chunked")),
    ("8.2.2", "an upgrade", (b"upgrade", b"websocket")),
    ("8.3", "an unknown pseudo-header field", (b":test", b"y")),
    ("8.3", "one of requests", (b":path", b"/")),
    ("8.3", "the status twice", STATUS),
]

CASES: Final[Sequence[Case]] = [
    # 3.4 preface
    ("3.4", "settings", b"", IGNORED),
    ("3.4", "settings and their acknowledgement", settings(flags=ACK), IGNORED),
    # 4.1 frame format
    ("4.1", "a frame of an unknown type", frame(0x16, b"12345678"), IGNORED),
    ("4.1", "a frame of an unknown type on a stream", frame(0xF0, b"x", stream=1) + RESPONSE, ANSWERED),
    ("4.1", "undefined flags", frame(PING, b"12345678", flags=0x16), IGNORED),
    ("4.1", "the reserved bit", frame(PING, b"12345678", stream=0x80000000), IGNORED),
    # 4.2 frame size
    ("4.2", "data of the largest size", HEAD + data(b"x" * 16384, end=True), ANSWERED),
    ("4.2", "data beyond the largest size", HEAD + data(b"x" * 16385), Ends(SIZE)),
    ("4.2", "a header beyond the largest size", frame(HEADERS, b"x" * 16385, stream=1), Ends(SIZE)),
    ("4.2", "settings beyond the largest size", frame(SETTINGS, b"\0" * 16386), Ends(SIZE)),
    ("4.2", "an unknown frame beyond the largest size", frame(0x20, b"\0" * 16385), Ends(SIZE)),
    # 4.3 header compression
    ("4.3", "a block that cannot be decoded", frame(HEADERS, b"\x40", stream=1, flags=WHOLE), Ends(CODING)),
    ("4.3", "another block within a block", only(STATUS, flags=0) + only(STATUS, stream=3), Ends(PROTOCOL)),
    ("4.3", "another frame within a block", only(STATUS, flags=0) + ping(), Ends(PROTOCOL)),
    ("4.3", "an unknown frame within a block", only(STATUS, flags=0) + frame(0x21), Ends(PROTOCOL)),
    ("4.3", "data within a block", only(STATUS, flags=0) + data(), Ends(PROTOCOL)),
    # 5.1 stream states
    ("5.1", "a response on an idle stream", only(STATUS, stream=5), Ends(PROTOCOL)),
    ("5.1", "a response on a stream of the server", only(STATUS, stream=2), Ends(PROTOCOL)),
    ("5.1", "data on an idle stream", data(stream=5), Ends(PROTOCOL)),
    ("5.1", "data on a stream of the server", data(stream=2), Ends(PROTOCOL)),
    ("5.1", "a reset of an idle stream", reset(stream=5), Ends(PROTOCOL)),
    ("5.1", "a reset of a stream of the server", reset(stream=2), Ends(PROTOCOL)),
    ("5.1", "a window for an idle stream", window(100, stream=5), Ends(PROTOCOL)),
    ("5.1", "a window for a stream of the server", window(100, stream=2), Ends(PROTOCOL)),
    ("5.1", "a continuation on an idle stream", frame(CONTINUATION, BLOCK, stream=5), Ends(PROTOCOL)),
    ("5.1", "a priority for an idle stream", frame(PRIORITY, PRIO, stream=99) + RESPONSE, ANSWERED),
    ("5.1", "data before the response", data(), Ends(PROTOCOL)),
    ("5.1", "data after the end", RESPONSE + data(), Resets(CLOSED)),
    ("5.1", "another response after the end", RESPONSE + RESPONSE, Ends(CLOSED)),
    ("5.1", "data after a reset", reset() + data(), Resets(CLOSED)),
    ("5.1", "a response after a reset", reset() + RESPONSE, Resets(CLOSED)),
    ("5.1", "a continuation after the end", RESPONSE + frame(CONTINUATION, BLOCK, stream=1), Ends(PROTOCOL)),
    ("5.1", "a window after the end", RESPONSE + window(10, stream=1), ANSWERED),
    ("5.1", "a reset after the end", RESPONSE + reset(), ANSWERED),
    ("5.1", "a priority after the end", RESPONSE + frame(PRIORITY, PRIO, stream=1), ANSWERED),
    # 5.3 priority, which is ignored
    ("5.3", "a response with a priority", frame(HEADERS, PRIO + BLOCK, stream=1, flags=WHOLE | PRIORITIZED), ANSWERED),
    ("5.3", "a priority that depends on itself", frame(PRIORITY, b"\0\0\0\1\x0f", stream=1), Ends(PROTOCOL)),
    # 5.4 errors
    ("5.4.1", "an invalid frame ends the connection", frame(PING, b"1"), Ends(SIZE)),
    # 6.1 DATA
    ("6.1", "data on stream 0", data(stream=0), Ends(PROTOCOL)),
    ("6.1", "padded data", HEAD + frame(DATA, b"\4body\0\0\0\0", stream=1, flags=END_STREAM | PADDED), ANSWERED),
    ("6.1", "more padding than data", HEAD + frame(DATA, b"\6body", stream=1, flags=PADDED), Ends(PROTOCOL)),
    ("6.1", "padded data without its length", HEAD + frame(DATA, stream=1, flags=PADDED), Ends(SIZE)),
    ("6.1", "empty data that ends", HEAD + data(b"", end=True), ANSWERED),
    # 6.2 HEADERS
    ("6.2", "a header on stream 0", only(STATUS, stream=0), Ends(PROTOCOL)),
    ("6.2", "a padded header", frame(HEADERS, b"\2" + BLOCK + b"\0\0", stream=1, flags=WHOLE | PADDED), ANSWERED),
    (
        "6.2",
        "more padding than header",
        frame(HEADERS, b"\xff" + BLOCK, stream=1, flags=WHOLE | PADDED),
        Ends(PROTOCOL),
    ),
    ("6.2", "too short for a priority", frame(HEADERS, b"\0", stream=1, flags=WHOLE | PRIORITIZED), Ends(SIZE)),
    # 6.3 PRIORITY
    ("6.3", "a priority on stream 0", frame(PRIORITY, PRIO), Ends(PROTOCOL)),
    ("6.3", "a priority of another length", frame(PRIORITY, b"\0\0\0\0", stream=1), Ends(SIZE)),
    # 6.4 RST_STREAM
    ("6.4", "a reset", reset(2), Fails(2)),
    ("6.4", "a reset of a request that was refused", reset(7), Fails(7, "not_sent")),
    ("6.4", "a reset with an unknown code", reset(0xDEAD), Fails(0xDEAD)),
    ("6.4", "a reset of stream 0", reset(stream=0), Ends(PROTOCOL)),
    ("6.4", "a reset of another length", frame(RST_STREAM, b"\0\0\0", stream=1), Ends(SIZE)),
    # 6.5 SETTINGS
    ("6.5", "an acknowledgement with a payload", frame(SETTINGS, b"\0" * 6, flags=ACK), Ends(SIZE)),
    ("6.5", "settings on a stream", frame(SETTINGS, stream=1), Ends(PROTOCOL)),
    ("6.5", "settings of another length", frame(SETTINGS, b"\0" * 5), Ends(SIZE)),
    ("6.5.2", "a server that allows pushes", settings((PUSH, 1)), Ends(PROTOCOL)),
    ("6.5.2", "a server that allows no pushes", settings((PUSH, 0)) + RESPONSE, ANSWERED),
    ("6.5.2", "push neither on nor off", settings((PUSH, 2)), Ends(PROTOCOL)),
    ("6.5.2", "no streams any more", settings((MOST, 0)) + RESPONSE, ANSWERED),
    ("6.5.2", "a window beyond the highest", settings((WINDOW, 2**31)), Ends(FLOW)),
    ("6.5.2", "a frame size below the lowest", settings((FRAME_SIZE, 16383)), Ends(PROTOCOL)),
    ("6.5.2", "a frame size beyond the highest", settings((FRAME_SIZE, 2**24)), Ends(PROTOCOL)),
    ("6.5.2", "an unknown setting", settings((0xFF, 1)), IGNORED),
    (
        "6.5.2",
        "the largest values",
        settings((HEAD_TABLE, 2**32 - 1), (FRAME_SIZE, 2**24 - 1), (LIST, 2**32 - 1)) + RESPONSE,
        ANSWERED,
    ),
    ("6.5.3", "an acknowledgement of nothing", settings(flags=ACK) * 2, IGNORED),
    # 6.6 PUSH_PROMISE, which the client's settings forbid
    ("6.6", "a promise", frame(PUSH_PROMISE, b"\0\0\0\2" + block(), stream=1, flags=END_HEADERS), Ends(PROTOCOL)),
    ("6.6", "a promise on stream 0", frame(PUSH_PROMISE, b"\0\0\0\2" + block(), flags=END_HEADERS), Ends(PROTOCOL)),
    (
        "6.6",
        "a promise of a client's stream",
        frame(PUSH_PROMISE, b"\0\0\0\5" + block(), stream=1, flags=END_HEADERS),
        Ends(PROTOCOL),
    ),
    # 6.7 PING
    ("6.7", "a ping", ping(), IGNORED),
    ("6.7", "an answer to no ping", ping(flags=ACK), IGNORED),
    ("6.7", "a ping on a stream", frame(PING, b"12345678", stream=1), Ends(PROTOCOL)),
    ("6.7", "a ping of another length", frame(PING, b"123456"), Ends(SIZE)),
    # 6.8 GOAWAY
    ("6.8", "an end on a stream", frame(GOAWAY, b"\0" * 8, stream=1), Ends(PROTOCOL)),
    ("6.8", "an end that is too short", frame(GOAWAY, b"\0" * 7), Ends(SIZE)),
    ("6.8", "an end before a response", goaway(3) + RESPONSE, ANSWERED),
    ("6.8", "an end in two steps", goaway(2**31 - 1) + goaway(3) + RESPONSE, ANSWERED),
    # 6.9 WINDOW_UPDATE
    ("6.9", "a window of 0 for the connection", window(0), Ends(PROTOCOL)),
    ("6.9", "a window of 0 for a stream", window(0, stream=3), Ends(PROTOCOL)),
    ("6.9", "a window of another length", frame(WINDOW_UPDATE, b"\0\0\1"), Ends(SIZE)),
    ("6.9.1", "the connection's window beyond the highest", window(2**31 - 1) * 2, Ends(FLOW)),
    ("6.9.1", "a stream's window beyond the highest", window(2**31 - 1, stream=3), Resets(FLOW, 3)),
    ("6.9.1", "data beyond the window of a stream", HEAD + data(b"x" * 16384) * 5, Ends(FLOW)),
    (
        "6.9.2",
        "settings that lift the window of a stream beyond the highest",
        window(2**31 - 65536, stream=3) + settings((WINDOW, 2**31 - 1)),
        Ends(FLOW),
    ),
    ("6.9.2", "a window that settings make negative", settings((WINDOW, 0)) + RESPONSE, ANSWERED),
    # 6.10 CONTINUATION
    (
        "6.10",
        "a response in parts",
        frame(HEADERS, LONG_BLOCK[:5], stream=1, flags=END_STREAM)
        + frame(CONTINUATION, LONG_BLOCK[5:100], stream=1)
        + frame(CONTINUATION, LONG_BLOCK[100:], stream=1, flags=END_HEADERS),
        ANSWERED,
    ),
    ("6.10", "a part behind the last one", HEAD + frame(CONTINUATION, BLOCK, stream=1), Ends(PROTOCOL)),
    ("6.10", "a part of stream 0", only(STATUS, flags=0) + frame(CONTINUATION, BLOCK), Ends(PROTOCOL)),
    ("6.10", "a part of another stream", only(STATUS, flags=0) + frame(CONTINUATION, BLOCK, stream=3), Ends(PROTOCOL)),
    ("6.10", "very many parts", only(STATUS, flags=0) + frame(CONTINUATION, b"", stream=1) * 40, Ends(CALM)),
    ("6.10", "no end of parts", frame(HEADERS, LONG, stream=1) + frame(CONTINUATION, LONG, stream=1) * 9, Ends(CALM)),
    # 8.1 messages
    ("8.1", "a response before the end of its request", only(STATUS, stream=3), Answered((3,))),
    ("8.1", "the same, and no more of the request", only(STATUS, stream=3) + reset(0, stream=3), Answered((3,))),
    ("8.1", "an early hint", only((b":status", b"103"), flags=OPEN) + RESPONSE, ANSWERED),
    ("8.1", "an early hint that ends", only((b":status", b"103")), Ends(PROTOCOL)),
    ("8.1", "trailers", HEAD + data() + only((b"x", b"y")), ANSWERED),
    ("8.1", "trailers without an end", HEAD + only((b"x", b"y"), flags=OPEN), Ends(PROTOCOL)),
    ("8.1", "a third header", HEAD + only((b"x", b"y")) + only((b"x", b"y")), Ends(CLOSED)),
    ("8.1", "a status in trailers", HEAD + data() + RESPONSE, Fails(PROTOCOL)),
    # 8.1.1 malformed messages
    (
        "8.1.1",
        "less data than announced",
        only(STATUS, (b"content-length", b"2"), flags=OPEN) + data(end=True),
        Ends(1),
    ),
    ("8.1.1", "more data than announced", only(STATUS, (b"content-length", b"1"), flags=OPEN) + data(b"xy"), Ends(1)),
    (
        "8.1.1",
        "less data than announced, before trailers",
        only(STATUS, (b"content-length", b"2"), flags=OPEN) + data() + only((b"x", b"y")),
        Fails(PROTOCOL),
    ),
    ("8.1.1", "no data at all", only(STATUS, (b"content-length", b"2")), Fails(PROTOCOL)),
    (
        "8.1.1",
        "a length without data where none is due",
        only((b":status", b"304"), (b"content-length", b"2")),
        ANSWERED,
    ),
    ("8.1.1", "data where none is due", only((b":status", b"304"), flags=OPEN) + data(end=True), Fails(PROTOCOL)),
    ("8.1.1", "a length that is no number", only(STATUS, (b"content-length", b"+1"), flags=OPEN), Ends(PROTOCOL)),
    # 8.2 and 8.3 fields
    *((section, name, only(STATUS, field), Fails(PROTOCOL)) for section, name, field in BAD_FIELDS),
    ("8.3", "the status behind other fields", only((b"x", b"y"), STATUS), Fails(PROTOCOL)),
    ("8.3.2", "no status", only((b"x", b"y")), Fails(PROTOCOL)),
    ("8.3.2", "no fields", only(), Fails(PROTOCOL)),
    ("8.3.2", "a status of letters", only((b":status", b"abc")), Fails(PROTOCOL)),
    ("8.3.2", "a status of two digits", only((b":status", b"20")), Fails(PROTOCOL)),
    ("8.3.2", "an empty status", only((b":status", b"")), Fails(PROTOCOL)),
    ("8.6", "a switch of protocols", only((b":status", b"101"), flags=OPEN), Fails(PROTOCOL)),
    # 10.5 denial of service
    ("10.5.1", "a header beyond the bound", only(STATUS, (b"x", b"y" * 16000), (b"z", b"y" * 400)), Ends(CALM)),
    (
        "10.5.1",
        "a header that grows when it is decoded",
        frame(HEADERS, b"\x40\x01x\x7f\x80\x1e" + b"y" * 3967 + b"\xbe" * 100, stream=1, flags=WHOLE),
        Ends(CALM),
    ),
    # RFC 7541
    ("7541 2.3.3", "an index beyond the table", frame(HEADERS, b"\xbf", stream=1, flags=WHOLE), Ends(CODING)),
    ("7541 6.1", "the index 0", frame(HEADERS, b"\x80", stream=1, flags=WHOLE), Ends(CODING)),
    (
        "7541 6.3",
        "a table beyond the bound",
        frame(HEADERS, b"\x3f\xe2\x7f" + BLOCK, stream=1, flags=WHOLE),
        Ends(CODING),
    ),
    (
        "7541 5.2",
        "a padding of Huffman's code",
        frame(1, b"\0\x85\xff\xff\xff\xff\xff\0", stream=1, flags=5),
        Ends(CODING),
    ),
    ("7541 4.2", "a table size behind a field", frame(HEADERS, BLOCK + b"\x20", stream=1, flags=WHOLE), Ends(CODING)),
]


class Client:
    """A client with two requests, and a server that sends what it is told to.

    Attributes:
        answered: The streams whose responses have arrived as a whole.
        failures: The failures of the others, by their streams.
        seen: The frames that the client has sent.
        has_ended: Whether it has ended the connection.
    """

    def __init__(self) -> None:
        self.answered: set[int] = set()
        self.failures: dict[int, Http2Error] = {}
        self.seen: Sequence[Seen] = []
        self.has_ended = False

    async def meet(self, sent: bytes, opening: bytes) -> None:
        near, server = memory_stream_pair()
        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:

                async def run() -> None:
                    async with near, open_http2(near, LIMITED, role="client") as client, trio.open_nursery() as asking:
                        for ends in (True, False):
                            asking.start_soon(self._ask, await client.request(REQUEST, end_stream=ends), client)

                nursery.start_soon(run)
                await wait_all_tasks_blocked()
                await server.send_all(opening + sent)
                await wait_all_tasks_blocked()
                with suppress(trio.BrokenResourceError):
                    await server.send_all(frame(PING, MARK))
                await self._read(server)
                nursery.cancel_scope.cancel()

    async def _ask(self, stream: Http2Stream, client: Http2Connection) -> None:
        with stream:
            try:
                await stream.response_head()
                while await stream.receive_data():
                    pass
                self.answered.add(stream.id)
            except Http2Error as error:
                self.failures[stream.id] = error
            if client.failure is None:
                await trio.sleep_forever()

    async def _read(self, server: trio.abc.ReceiveStream) -> None:
        """Read up to the answer to the ping, or to the end."""
        received = b""
        while not any(each.type == PING and each.payload == MARK for each in self.seen) and not self.has_ended:
            part = await server.receive_some()
            self.has_ended = not part
            received += part
            self.seen, _ = frames_in(received[len(PREFACE) :])

    def codes(self, kind: int) -> dict[int, int]:
        """The error codes of the frames of a kind, by their streams."""
        return {each.stream: each.code for each in self.seen if each.type == kind}


@pytest.mark.parametrize(
    ("sent", "expected"), [case[2:] for case in CASES], ids=[f"{case[0]} {case[1]}" for case in CASES]
)
async def test_a_client_keeps_the_rules(sent: bytes, expected: Ends | Resets | Answered | Fails) -> None:
    client = Client()
    await client.meet(sent, settings())
    if isinstance(expected, Ends):
        assert (client.codes(GOAWAY), client.has_ended) == ({0: expected.code}, True)
        waiting = {1, 3} - client.answered
        assert all(isinstance(client.failures[stream], ConnectionEnded) for stream in waiting)
        reasons = {client.failures[stream].reason.removeprefix(BROKEN_RULE) for stream in waiting}
        assert all(" " in reason for reason in reasons), "a reason is told in words"
        return
    assert (client.codes(GOAWAY), client.has_ended) == ({}, False)
    if isinstance(expected, Resets):
        assert client.codes(RST_STREAM)[expected.id] == expected.code
        assert expected.id in client.answered | client.failures.keys()
    elif isinstance(expected, Fails):
        failure = client.failures[1]
        assert (failure.code, failure.outcome) == (expected.code, expected.outcome)
    else:
        assert client.answered == set(expected.streams)
        assert not client.failures


@pytest.mark.parametrize(
    "opening",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\0\2\2\x46", ping(), RESPONSE, settings(flags=ACK), goaway()],
    ids=["HTTP/1.1", "TLS", "a ping", "a response", "an acknowledgement", "an end"],
)
async def test_a_server_that_begins_otherwise_is_left(opening: bytes) -> None:
    client = Client()
    await client.meet(b"", opening)
    assert (client.codes(GOAWAY), client.has_ended) == ({0: PROTOCOL}, True)
    assert client.failures.keys() == {1, 3}


async def test_requests_beyond_the_last_stream_of_an_end_were_not_sent() -> None:
    client = Client()
    await client.meet(goaway(1) + RESPONSE, settings())
    assert client.answered == {1}
    assert client.failures[3].outcome == "not_sent"
