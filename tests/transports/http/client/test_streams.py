"""Faulty streams of events: cut, endless, or with messages that are of no use."""

from __future__ import annotations

import json
import resource
import sys
from typing import Final

import pytest
import trio

from tests.support.legacy_script import legacy, shake_hands
from tests.support.scripted_http import Reply, serving
from tests.support.surviving_connection import META, answer_of, conversing
from trioxport import (
    ConnectionLost,
    HTTPStatusError,
    Limits,
    MessageTooLarge,
    Notification,
    Request,
    RequestTimeout,
    Response,
    Undelivered,
    open_transport,
)

BOUND: Final = 25.0
MIB: Final = 1024 * 1024

# Cut streams.

TEXT: Final = {"text": "é世"}
NOTE: Final = {"jsonrpc": "2.0", "method": "note", "params": TEXT}
EVENTS: Final = (
    ":\r\n\r\nretry: 0\nid: 1\n\ndata: " + json.dumps(NOTE, ensure_ascii=False) + "\n\nevent: message\r\ndata: "
).encode()
FINAL: Final = b'{"jsonrpc": "2.0",\ndata:  "id": 1, "result": {}}\r\n\r\n'


@pytest.mark.parametrize("how", ["close", "reset", "end"])
async def test_a_stream_cut_after_any_byte(how: str) -> None:
    """Any byte includes those within a character and between CR and LF; a cut after the answer changes nothing."""
    stream = EVENTS + FINAL
    complete = len(stream) - 1  # the event is complete with the CR of its empty line

    async def script(reply: Reply) -> None:
        size = reply.asked.message["params"]["size"]
        await reply.begin_events()
        if size:
            await reply.chunk(stream[:size])
        if how == "end":
            await reply.end_events()
        elif how == "close":
            await reply.close()
        else:
            await trio.sleep(0.002)  # a reset takes with it what was not read yet
            reply.reset()

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            for size in range(len(stream) + 1):
                await connection.tx.send(Request(1, "tools/call", {"size": size, "_meta": META}))
                answer = await connection.rx.receive()
                if isinstance(answer, Notification):
                    assert answer == Notification("note", TEXT)
                    answer = await connection.rx.receive()
                if size >= complete:
                    assert answer == Response(1, {})
                else:
                    assert isinstance(answer, Undelivered)
                    assert isinstance(answer.cause, ConnectionLost)
                    assert answer.outcome == "unknown"


async def test_every_line_ends_in_its_own_way() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        lines = b"\xef\xbb\xbf:\r\rno colon\nid\r\ndata: " + json.dumps(NOTE).encode() + b"\r\n\r"
        for byte in lines + b'data:{"jsonrpc": "2.0",\rdata:"id": 1,\r\ndata: "result": {}}\n\r\n':
            await reply.chunk(bytes([byte]))
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            assert await answer_of(connection) == Notification("note", TEXT)
            assert await connection.rx.receive() == Response(1, {})


# Endless streams.


async def test_a_line_without_an_end_takes_no_memory() -> None:
    """The line is skipped as it comes, and the next event is read."""
    size = 192 * MIB

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(b"data: ")
        block = b"x" * MIB
        for _ in range(size // MIB):
            await reply.chunk(block)
        await reply.chunk(b"\n\n")
        await reply.answer()
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            before = peak_memory()
            assert await answer_of(connection) == Response(1, {})
            assert peak_memory() - before < size / 4
            assert connection.statistics().discarded == {"MessageTooLarge": 1}


def peak_memory() -> int:
    """The peak memory of this process in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_body_without_an_end(kind: str) -> None:
    """JSON is read up to the limit; a stream is followed until the total timeout."""
    gone = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.raw(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n".encode())
        try:
            while True:
                await reply.raw(b"x" * 65536)
        finally:
            gone.set()

    with trio.fail_after(BOUND):
        async with conversing(script, total_timeout=0.3) as connection:
            answer = await answer_of(connection)
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, MessageTooLarge if kind.endswith("json") else RequestTimeout)
            await gone.wait()


async def test_a_large_refusal_is_not_read_to_its_end() -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\r\n")
        while True:
            await reply.raw(b"x" * 65536)

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            answer = await answer_of(connection)
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, HTTPStatusError)


# Useless messages.


def large(request_id: int) -> bytes:
    """A response as an event, over the limit."""
    return b'data: {"jsonrpc": "2.0", "id": %d, "result": "%s"}\n\n' % (request_id, b"x" * 2000)


async def test_an_answer_that_is_too_large_ends_its_request_though_the_stream_goes_on() -> None:
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(large(1))
        await reply.gone()
        left.set()

    with trio.fail_after(BOUND):
        async with conversing(script, max_concurrency=1) as connection:
            answer = await answer_of(connection)
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, MessageTooLarge)
            assert (answer.id, answer.outcome) == (1, "unknown")
            await left.wait()


@pytest.mark.parametrize("event", [large(2), b'data: {"jsonrpc": "2.0", "id": 2, "result": 1, "error": 2}\n\n'])
async def test_what_is_of_no_use_settles_no_other_request(event: bytes) -> None:
    """An answer to another request is discarded, on the stream of a request and on the server's own."""
    other = trio.Event()

    async def stream(reply: Reply) -> None:
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "method": "before"})
        await other.wait()
        await reply.chunk(event)
        await reply.event({"jsonrpc": "2.0", "method": "after"})
        await reply.gone()

    async def script(reply: Reply) -> None:
        if reply.asked.message["id"] == 2:
            other.set()
            await release.wait()
        else:
            await other.wait()
        await reply.begin_events()
        if reply.asked.message["id"] == 1:
            await reply.chunk(event)
        await reply.answer()
        await reply.end_events()

    release = trio.Event()
    limits = Limits(max_message_size=1000)
    with trio.fail_after(BOUND):
        async with (
            serving(legacy(script, stream=stream)) as server,
            open_transport(server.url, limits=limits) as connection,
        ):
            await shake_hands(connection, server)
            for number in (1, 2):
                await connection.tx.send(Request(number, "tools/call"))
            seen = [await connection.rx.receive() for _ in range(3)]
            assert Response(1, {}) in seen
            assert [message.method for message in seen if isinstance(message, Notification)] == ["before", "after"]
            release.set()
            assert await connection.rx.receive() == Response(2, {})
            assert sum(connection.statistics().discarded.values()) == 2
