"""Requests and responses over HTTP/2, between two connections of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.support.raw_http2 import PREFACE, SETTINGS, frame, ping
from trioxport.transports._http2 import (
    ConnectionEnded,
    ErrorCodes,
    Http2Connection,
    Http2Error,
    Http2Settings,
    Http2Stream,
    StreamReset,
    open_http2,
)

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"host"), (b":path", b"/")]
OK = [(b":status", b"200"), (b"content-type", b"text/plain")]

Handler = Callable[[Http2Stream], Awaitable[None]]


async def echo(stream: Http2Stream) -> None:
    """Answer with the body of the request, as it comes."""
    await stream.send_headers(OK)
    while data := await stream.receive_data():
        await stream.send_data(data)
    await stream.send_trailers([(b"grpc-status", b"0")])


async def serve(connection: Http2Connection, handler: Handler) -> None:
    async def handle(stream: Http2Stream) -> None:
        with stream, trio.CancelScope() as scope, suppress(Http2Error):
            stream.cancel_on_failure(scope)
            await handler(stream)

    async with trio.open_nursery() as nursery:
        async for stream in connection.requests:
            nursery.start_soon(handle, stream)


@asynccontextmanager
async def connected(
    handler: Handler = echo,
    *,
    client: Http2Settings | None = None,
    server: Http2Settings | None = None,
) -> AsyncGenerator[tuple[Http2Connection, Http2Connection]]:
    """A client and a server that answers by ``handler``."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        async with open_http2(far, server or Http2Settings(), role="server") as serving:
            nursery.start_soon(serve, serving, handler)
            async with near, open_http2(near, client or Http2Settings(), role="client") as connection:
                yield connection, serving
        nursery.cancel_scope.cancel()


async def everything(stream: Http2Stream) -> bytes:
    received = bytearray()
    while data := await stream.receive_data():
        received += data
    return bytes(received)


async def test_a_request_and_its_response() -> None:
    async with connected() as (client, _):
        with await client.request(REQUEST) as stream:
            await stream.send_data(b"hello ")
            await stream.send_data(b"world", end_stream=True)
            assert list(await stream.response_head()) == OK
            assert stream.status == 200
            assert await everything(stream) == b"hello world"
            assert list(stream.trailers) == [(b"grpc-status", b"0")]
            assert stream.is_over and stream.failure is None


async def test_a_large_body_passes_within_small_windows() -> None:
    small = Http2Settings(stream_window=65536, connection_window=65536)
    body = bytes(range(256)) * 8192
    async with connected(client=small, server=small) as (client, _), trio.open_nursery() as nursery:
        with await client.request(REQUEST) as stream:

            async def send() -> None:
                await stream.send_data(body, end_stream=True)

            nursery.start_soon(send)
            assert await everything(stream) == body


async def test_data_goes_on_where_the_window_has_ended() -> None:
    """Of data that would fit into a window as a whole, each byte is sent once, though a window ends within it."""
    small = Http2Settings(stream_window=65536, connection_window=65536)
    parts = [bytes([number]) * 10_000 for number in range(20)]
    async with connected(client=small, server=small) as (client, _), trio.open_nursery() as nursery:
        with await client.request(REQUEST) as stream:

            async def send() -> None:
                for part in parts:
                    await stream.send_data(part)
                await stream.send_data(b"", end_stream=True)

            nursery.start_soon(send)
            assert await everything(stream) == b"".join(parts)


async def test_data_without_waiting_keeps_its_place() -> None:
    """It is sent if nothing waits before it; data that no one takes at once waits to be received."""
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        is_taken = data.startswith(b"take")
        taken.extend([data] if is_taken else [])
        return is_taken

    async with connected() as (client, _):
        with await client.request(REQUEST) as stream:
            stream.take_now = take
            await stream.response_head()
            assert stream.send_data_now(b"take 1")
            await wait_all_tasks_blocked()
            assert stream.send_data_now(b"keep 1")
            await wait_all_tasks_blocked()
            assert stream.send_data_now(b"take behind what was kept")
            await wait_all_tasks_blocked()
            assert not stream.send_data_now(b"x" * 1_000_000)
            await stream.send_data(b", the end", end_stream=True)
            assert not stream.send_data_now(b"more")
            assert await everything(stream) == b"keep 1take behind what was kept, the end"
            assert taken == [b"take 1"]


async def test_a_thousand_streams_at_once() -> None:
    many = Http2Settings(max_concurrent_streams=1000)
    begun = answered = 0
    all_begun = trio.Event()

    async with connected(server=many) as (client, _):
        await wait_all_tasks_blocked()

        async def ask(number: int) -> None:
            nonlocal begun, answered
            body = b"%d" % number * 100
            with await client.request(REQUEST) as stream:
                await stream.send_data(body)
                begun += 1
                if begun == 1000:
                    all_begun.set()
                await all_begun.wait()
                assert client.open_streams == 1000 - answered
                await stream.send_data(b"", end_stream=True)
                assert await everything(stream) == body
                answered += 1

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(ask, number)
    assert answered == 1000


async def test_all_of_many_streams_may_be_reset_at_once() -> None:
    async with connected(server=Http2Settings(max_concurrent_streams=600)) as (client, _):
        await wait_all_tasks_blocked()
        streams = [await client.request(REQUEST) for _ in range(600)]
        await wait_all_tasks_blocked()
        for stream in streams:
            stream.reset()
        await wait_all_tasks_blocked()
        with await client.request(REQUEST) as stream:
            await stream.send_data(b"still here", end_stream=True)
            assert await everything(stream) == b"still here"


async def test_a_stream_that_is_not_read_holds_up_no_other() -> None:
    async with connected() as (client, _), trio.open_nursery() as nursery:
        slow = await client.request(REQUEST)
        nursery.start_soon(slow.send_data, b"x" * 1024 * 1024)
        await wait_all_tasks_blocked()
        with await client.request(REQUEST) as stream:
            await stream.send_data(b"quick", end_stream=True)
            assert await everything(stream) == b"quick"
        nursery.cancel_scope.cancel()


async def test_a_peer_that_makes_no_room_loses_its_stream(autojump_clock: trio.testing.MockClock) -> None:
    failed: list[StreamReset] = []

    async def flood(stream: Http2Stream) -> None:
        await stream.send_headers(OK)
        try:
            await stream.send_data(b"x" * 1024 * 1024)
        except StreamReset as error:
            failed.append(error)

    async with connected(flood, server=Http2Settings(write_timeout=3)) as (client, _):
        with await client.request(REQUEST, end_stream=True) as stream:
            began = trio.current_time()
            await stream.gone()
            assert trio.current_time() - began == pytest.approx(3)
            assert isinstance(stream.failure, StreamReset) and stream.failure.code == ErrorCodes.CANCEL
        with await client.request(REQUEST, end_stream=True) as stream:
            await stream.response_head()
    assert str(failed[0]) == "the peer made no room within 3 s" and not failed[0].by_peer


# Cancellation and resets.


async def test_a_cancelled_request_cancels_its_handler() -> None:
    cancelled = trio.Event()

    async def wait(stream: Http2Stream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with connected(wait) as (client, serving):
        with trio.CancelScope() as scope, await client.request(REQUEST, end_stream=True) as stream:
            await wait_all_tasks_blocked()
            scope.cancel()
            await stream.response_head()
        await cancelled.wait()
        await wait_all_tasks_blocked()
        assert client.open_streams == serving.open_streams == 0


async def test_a_handler_that_ends_early_resets_its_stream() -> None:
    async def leave(stream: Http2Stream) -> None:
        stream.reset(ErrorCodes.INTERNAL_ERROR)

    async with connected(leave) as (client, _):
        stream = await client.request(REQUEST)
        with pytest.raises(StreamReset, match=r"the peer has reset the stream \(INTERNAL_ERROR\)") as caught:
            await stream.response_head()
    assert caught.value.by_peer and caught.value.outcome == "unknown"


async def test_data_that_came_before_a_reset_is_received_first() -> None:
    async def answer(stream: Http2Stream) -> None:
        await stream.send_headers(OK)
        await stream.send_data(b"part")
        stream.reset()

    async with connected(answer) as (client, _):
        with await client.request(REQUEST) as stream:
            await stream.gone()
            assert await stream.receive_data() == b"part"
            with pytest.raises(StreamReset):
                await stream.receive_data()
            with pytest.raises(StreamReset):
                await stream.send_data(b"more")


async def test_a_response_without_the_rest_of_the_request_is_whole() -> None:
    async def refuse(stream: Http2Stream) -> None:
        await stream.send_headers(OK, end_stream=True)

    async with connected(refuse) as (client, _):
        with await client.request(REQUEST) as stream:
            assert await everything(stream) == b""
            await stream.gone()
            assert stream.failure is not None and stream.failure.code == ErrorCodes.NO_ERROR


async def test_the_rest_of_a_request_that_is_answered_is_not_sent() -> None:
    """A server that has answered need not make room for it (RFC 9113, section 8.1)."""

    async def refuse(stream: Http2Stream) -> None:
        await stream.send_headers(OK, end_stream=True)
        await stream.gone()

    small = Http2Settings(stream_window=65536)
    with trio.fail_after(10):
        async with connected(refuse, server=small) as (client, _):
            with await client.request(REQUEST) as stream:
                with pytest.raises(StreamReset, match="the response is complete without the rest of the request"):
                    await stream.send_data(bytes(1_000_000), end_stream=True)
                assert list(await stream.response_head()) == OK
                assert await everything(stream) == b""


async def test_a_cancelled_send_resets_the_stream_once_a_part_is_sent() -> None:
    async def never_read(stream: Http2Stream) -> None:
        await stream.gone()
        assert stream.failure is not None
        codes.append(stream.failure.code)

    codes: list[int] = []
    async with connected(never_read) as (client, _):
        with await client.request(REQUEST) as stream:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_data, b"x" * 1024 * 1024)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            await wait_all_tasks_blocked()
    assert isinstance(stream.failure, StreamReset)


async def test_more_streams_than_allowed_wait_for_their_turn() -> None:
    at_once = most = 0

    async def count(stream: Http2Stream) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await wait_all_tasks_blocked()
        at_once -= 1
        await stream.send_headers(OK, end_stream=True)

    async with connected(count, server=Http2Settings(max_concurrent_streams=3)) as (client, _):
        await wait_all_tasks_blocked()

        async def ask() -> None:
            with await client.request(REQUEST, end_stream=True) as stream:
                await stream.response_head()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
    assert most == 3


# The end of the connection.


async def test_a_server_drains_in_order() -> None:
    release = trio.Event()

    async def slow(stream: Http2Stream) -> None:
        await release.wait()
        await stream.send_headers(OK, end_stream=True)

    async with connected(slow) as (client, serving):
        with await client.request(REQUEST, end_stream=True) as stream:
            await wait_all_tasks_blocked()
            serving.drain()
            await wait_all_tasks_blocked()
            with pytest.raises(ConnectionEnded) as caught:
                await client.request(REQUEST)
            assert caught.value.outcome == "not_sent"
            release.set()
            await stream.response_head()
            assert stream.status == 200
        await wait_all_tasks_blocked()
        assert client.is_over and serving.is_over


async def test_streams_of_a_lost_connection_fail() -> None:
    near, far = memory_stream_pair()
    async with open_http2(near, Http2Settings(), role="client") as client:
        stream = await client.request(REQUEST)
        await wait_all_tasks_blocked()
        unsent = await client.request(REQUEST)
        await far.aclose()
        with pytest.raises(ConnectionEnded) as caught:
            await stream.response_head()
        assert caught.value.outcome == "unknown"
        with pytest.raises(ConnectionEnded):
            await unsent.response_head()
        with pytest.raises(ConnectionEnded):
            await client.request(REQUEST)


async def test_the_reason_of_a_write_that_breaks_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async def break_off() -> None:
        raise trio.BrokenResourceError("a pipe without a reader")

    near, far = memory_stream_pair()
    async with open_http2(near, Http2Settings(), role="client") as client:
        await far.send_all(frame(SETTINGS))
        await wait_all_tasks_blocked()
        near.send_stream.send_all_hook = break_off
        stream = await client.request(REQUEST)
        with pytest.raises(ConnectionEnded, match="the connection broke: a pipe without a reader"):
            await stream.response_head()


async def test_a_silent_peer_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    async def wait(stream: Http2Stream) -> None:
        await trio.sleep_forever()

    settings = Http2Settings(keepalive=10, keepalive_timeout=5)
    near, far = memory_stream_pair()
    async with open_http2(near, settings, role="client") as client, open_http2(far, Http2Settings(), role="server"):
        stream = await client.request(REQUEST)
        with trio.move_on_after(100):
            await stream.gone()
        assert stream.failure is None  # it answers pings
        await trio.lowlevel.checkpoint()
        far.send_stream.send_all_hook = trio.sleep_forever
        with pytest.raises(ConnectionEnded, match="the peer did not answer a ping within 5 s"):
            await stream.response_head()


async def test_a_frame_has_its_time_from_its_beginning(autojump_clock: trio.testing.MockClock) -> None:
    """However long the connection was silent before; then the part of a frame is not the peer's fault at once."""
    near, far = memory_stream_pair()
    settings = Http2Settings(frame_timeout=10)
    async with trio.open_nursery() as nursery, open_http2(far, settings, role="server") as serving:
        nursery.start_soon(serve, serving, echo)
        await near.send_all(PREFACE + frame(SETTINGS))
        for beginning in (9.9, 49.9):
            await trio.sleep_until(trio.current_time() + beginning)
            ping_frame = ping()
            await near.send_all(ping_frame[:5])
            await trio.sleep(9)
            assert not serving.is_over
            await near.send_all(ping_frame[5:])
        await near.send_all(ping_frame[:5])
        await trio.sleep(25)
        assert serving.is_over
        await near.aclose()
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_ends_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(server=Http2Settings(idle_timeout=60)) as (client, serving):
        await trio.sleep(50)
        with await client.request(REQUEST) as stream:
            await stream.send_data(b"x", end_stream=True)
            assert await everything(stream) == b"x"
        await trio.sleep(50)
        assert (serving.is_over, client.is_over) == (False, False)
        await trio.sleep(11)
        assert (serving.is_over, client.is_over) == (True, True)
        assert str(client.failure) == "the peer closes the connection (NO_ERROR)"
