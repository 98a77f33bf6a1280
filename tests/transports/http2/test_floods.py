"""Peers that tie up a server or a client: floods end their connection, within bounds, and harm no other one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Final

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair, wait_all_tasks_blocked

from tests.support.raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
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
from trioxport.transports._http2 import (
    ConnectionEnded,
    ErrorCodes,
    Http2Error,
    Http2Settings,
    Http2Stream,
    open_http2,
)

BOUND: Final = 60.0
MAX_FRAMES: Final = 3000
FRAMES_AT_ONCE: Final = 50
MAX_BYTES: Final = 8 * 1024 * 1024
OPEN: Final = END_HEADERS


def rapid_resets() -> Iterator[bytes]:
    """CVE-2023-44487."""
    return (headers(stream=number) + reset(stream=number) for number in count(1, 2))


def provoked_resets() -> Iterator[bytes]:
    """CVE-2025-8671: the server resets the streams, for faults of the client."""
    return (headers((b"X", b"y"), stream=number) for number in count(1, 2))


def overflowing_windows() -> Iterator[bytes]:
    return (headers(stream=number, flags=OPEN) + window(2**31 - 1, stream=number) for number in count(1, 2))


def refused_streams() -> Iterator[bytes]:
    """More streams than the server allows, none of which ends."""
    return (headers(stream=number, flags=OPEN) for number in count(1, 2))


def endless_header() -> Iterator[bytes]:
    """CVE-2024-27316 and its kind."""
    yield frame(HEADERS, block()[:5], stream=1)
    for _ in count():
        yield frame(CONTINUATION, b"\x10\x01x\x01y" * 1000, stream=1)


def empty_parts() -> Iterator[bytes]:
    yield frame(HEADERS, block()[:5], stream=1)
    for _ in count():
        yield frame(CONTINUATION, b"", stream=1)


def on_one_stream(sent: bytes) -> Callable[[], Iterator[bytes]]:
    def frames() -> Iterator[bytes]:
        yield headers(flags=OPEN)
        for _ in count():
            yield sent

    return frames


def again(sent: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: (sent for _ in count())


FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "pings": again(ping()),
    "answers to no ping": again(ping(flags=ACK)),
    "settings": again(settings((4, 65535))),
    "settings of many values": again(settings(*[(0xF000 + number, 1) for number in range(1000)])),
    "answers to no settings": again(settings(flags=ACK)),
    "priorities": again(frame(PRIORITY, b"\0\0\0\0\1", stream=1)),
    "unknown frames": again(frame(0x77, b"x" * 100)),
    "windows of the connection": again(window(1)),
    "windows of a stream": on_one_stream(window(1, stream=1)),
    "empty data": on_one_stream(data(b"")),
    "padding": on_one_stream(frame(DATA, b"\xff" + b"\0" * 255, stream=1, flags=PADDED)),
    "data after a reset": on_one_stream(reset() + data(b"x")),
    "rapid resets": rapid_resets,
    "provoked resets": provoked_resets,
    "overflowing windows": overflowing_windows,
    "refused streams": refused_streams,
    "a header that does not end": endless_header,
    "empty parts of a header": empty_parts,
    "trailers without fields": on_one_stream(frame(HEADERS, b"", stream=1, flags=END_HEADERS | END_STREAM)),
}


def on_a_response(sent: bytes) -> Callable[[], Iterator[bytes]]:
    def frames() -> Iterator[bytes]:
        yield HEAD
        for _ in count():
            yield sent

    return frames


def responses_without_requests() -> Iterator[bytes]:
    return (only(STATUS, stream=number, flags=OPEN) for number in count(2, 2))


def resets_and_more() -> Iterator[bytes]:
    yield reset()
    for _ in count():
        yield data(b"x")


def endless_response() -> Iterator[bytes]:
    yield frame(HEADERS, block(STATUS, request=False), stream=1)
    for _ in count():
        yield frame(CONTINUATION, b"\x10\x01x\x01y" * 1000, stream=1)


def empty_parts_of_a_response() -> Iterator[bytes]:
    yield frame(HEADERS, block(STATUS, request=False), stream=1)
    for _ in count():
        yield frame(CONTINUATION, b"", stream=1)


STATUS: Final = (b":status", b"200")
HEAD: Final = only(STATUS, flags=OPEN)
EITHER: Final = (
    *("pings", "answers to no ping", "settings", "settings of many values", "answers to no settings"),
    *("priorities", "unknown frames", "windows of the connection"),
)
"""Floods that a server can send as well."""
CLIENT_FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    **{name: FLOODS[name] for name in EITHER},
    "windows of a stream": again(window(1, stream=1)),
    "ends": again(goaway(2**31 - 1)),
    "early hints": again(only((b":status", b"103"), flags=OPEN)),
    "empty data": on_a_response(data(b"")),
    "padding": on_a_response(frame(DATA, b"\xff" + b"\0" * 255, stream=1, flags=PADDED)),
    "data after a reset": resets_and_more,
    "responses without requests": responses_without_requests,
    "promises": again(frame(PUSH_PROMISE, b"\0\0\0\2" + block(), stream=1, flags=END_HEADERS)),
    "a header that does not end": endless_response,
    "empty parts of a header": empty_parts_of_a_response,
}


async def wait(stream: Http2Stream) -> None:
    """A handler that goes on until its client leaves."""
    with stream:
        await stream.gone()


async def echo(stream: Http2Stream) -> None:
    with stream, suppress(Http2Error):
        await stream.send_headers([(b":status", b"200")])
        while received := await stream.receive_data():
            await stream.send_data(received)
        await stream.send_data(b"", end_stream=True)


async def flood(frames: Iterator[bytes], peer: trio.abc.Stream, opening: bytes = PREFACE) -> int:
    """Send frames until the other side ends the connection, and return their number."""
    await peer.send_all(opening + settings())
    for sent in range(0, MAX_FRAMES, FRAMES_AT_ONCE):
        try:
            await peer.send_all(b"".join(islice(frames, FRAMES_AT_ONCE)))
        except trio.BrokenResourceError:
            return sent
        await wait_all_tasks_blocked()
    raise AssertionError("the flood goes on")


async def everything(peer: trio.abc.ReceiveStream, into: bytearray) -> None:
    async for part in peer:
        into += part


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_ends_its_connection(kind: str) -> None:
    peer, far = memory_stream_pair()
    received = bytearray()
    tracemalloc.start()
    try:
        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    async with far, open_http2(far, Http2Settings(), role="server") as connection:
                        async for stream in connection.requests:
                            nursery.start_soon(wait, stream)

                nursery.start_soon(serve)
                nursery.start_soon(everything, peer, received)
                await flood(FLOODS[kind](), peer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ends = [each.code for each in frames_in(bytes(received))[0] if each.type == GOAWAY]
    assert ends in ([ErrorCodes.ENHANCE_YOUR_CALM], [ErrorCodes.PROTOCOL_ERROR], [ErrorCodes.STREAM_CLOSED])
    assert peak < MAX_BYTES


@pytest.mark.parametrize("kind", CLIENT_FLOODS)
async def test_a_flood_of_a_server_ends_its_connection(kind: str) -> None:
    near, server = memory_stream_pair()
    received = bytearray()
    tracemalloc.start()
    try:
        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    async with near, open_http2(near, Http2Settings(), role="client") as client:
                        await wait(await client.request(REQUEST))
                        await client.until_closing()

                nursery.start_soon(ask)
                nursery.start_soon(everything, server, received)
                await flood(CLIENT_FLOODS[kind](), server, opening=b"")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ends = [each.code for each in frames_in(bytes(received)[len(PREFACE) :])[0] if each.type == GOAWAY]
    assert ends in ([ErrorCodes.ENHANCE_YOUR_CALM], [ErrorCodes.PROTOCOL_ERROR], [ErrorCodes.STREAM_CLOSED])
    assert peak < MAX_BYTES


async def test_a_flood_harms_no_other_connection() -> None:
    """While one client floods, another one of the same program is answered at its usual pace."""
    with trio.fail_after(3 * BOUND):
        async with trio.open_nursery() as nursery:

            async def serve(far: trio.StapledStream[MemorySendStream, MemoryReceiveStream]) -> None:
                async with far, open_http2(far, Http2Settings(), role="server") as connection:
                    async for stream in connection.requests:
                        nursery.start_soon(echo, stream)

            async def attack() -> None:
                for kind in ("pings", "rapid resets", "settings of many values"):
                    peer, far = memory_stream_pair()
                    nursery.start_soon(serve, far)
                    nursery.start_soon(everything, peer, bytearray())
                    await flood(FLOODS[kind](), peer)

            near, far = memory_stream_pair()
            nursery.start_soon(serve, far)
            async with (
                near,
                open_http2(near, Http2Settings(), role="client") as client,
                trio.open_nursery() as attackers,
            ):
                attackers.start_soon(attack)
                for _ in range(20):
                    began = trio.current_time()
                    with await client.request(
                        [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
                    ) as stream:
                        await stream.send_data(b"hello", end_stream=True)
                        assert await stream.receive_data() == b"hello"
                        assert await stream.receive_data() == b""
                    assert trio.current_time() - began < BOUND / 6


async def test_a_client_that_reads_nothing_loses_its_connection(autojump_clock: trio.testing.MockClock) -> None:
    """What a server owes such a client is bounded: it stops reading, and then ends the connection."""
    peer, far = memory_stream_pair()
    far.send_stream.send_all_hook = trio.sleep_forever
    began = trio.current_time()
    async with far, open_http2(far, Http2Settings(write_timeout=7), role="server") as server:
        await peer.send_all(PREFACE + settings() + ping() * 900)
        with trio.move_on_after(60):
            assert [stream async for stream in server.requests] == []
        assert trio.current_time() - began == pytest.approx(7)
        assert str(server.failure) == "the peer took no data for 7 s"


async def test_settings_that_mean_nothing_are_not_kept() -> None:
    peer, far = memory_stream_pair()
    with trio.fail_after(BOUND):
        async with far, open_http2(far, Http2Settings(close_timeout=0), role="server"):
            await peer.send_all(PREFACE + settings())
            await wait_all_tasks_blocked()
            tracemalloc.start()
            await peer.send_all(settings(*((number, 1) for number in range(1000, 1900))))
            await wait_all_tasks_blocked()
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert kept < 100_000


async def test_a_server_that_floods_is_left() -> None:
    near, server = memory_stream_pair()
    with trio.fail_after(BOUND):
        async with near, open_http2(near, Http2Settings(), role="client") as client, trio.open_nursery() as nursery:
            nursery.start_soon(everything, server, bytearray())
            stream = await client.request(
                [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")], end_stream=True
            )
            await server.send_all(settings())
            for _ in range(1100):
                await server.send_all(frame(HEADERS, b"\x08\x03103", stream=1, flags=END_HEADERS))
            with pytest.raises(ConnectionEnded, match="too many frames that carry nothing"):
                await stream.response_head()
            nursery.cancel_scope.cancel()


async def test_a_request_that_is_refused_was_not_acted_on() -> None:
    near, server = memory_stream_pair()
    with trio.fail_after(BOUND):
        async with near, open_http2(near, Http2Settings(), role="client") as client:
            await server.send_all(settings())
            stream = await client.request(
                [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")], end_stream=True
            )
            await server.send_all(frame(RST_STREAM, ErrorCodes.REFUSED_STREAM.to_bytes(4), stream=1))
            with pytest.raises(Http2Error) as caught:
                await stream.response_head()
            assert caught.value.outcome == "not_sent"
