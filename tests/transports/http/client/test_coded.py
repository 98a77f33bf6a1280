"""Compressed responses: expanded as they come, and never beyond the limits."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any, Final

import pytest
import trio

from tests.support.scripted_http import Reply, Script, serving
from trioxport import (
    DecodeError,
    Limits,
    MessageTooLarge,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    Undelivered,
    open_transport,
)
from trioxport.codecs.content_codings import CODINGS, Coding, compress
from trioxport.frames import MIB

BOUND: Final = 25.0
ANSWER: Final = {"jsonrpc": "2.0", "id": 1, "result": "fine" * 100}
BOMB: Final = 64 * MIB


async def only_answer(script: Script, limits: Limits | None = None) -> Any:
    """The only answer to a request; the connection works on afterwards."""

    async def scripted(reply: Reply) -> None:
        await (reply.result("on") if reply.asked.rpc == "ping" else script(reply))

    with trio.fail_after(BOUND):
        async with serving(scripted) as server, open_transport(server.url, limits=limits or Limits()) as (tx, rx):
            await tx.send(Request(1, "tools/call"))
            answer = await rx.receive()
            await tx.send(Request(2, "ping"))
            assert await rx.receive() == Response(2, "on")
    return answer


async def coded(reply: Reply, coding: str, body: bytes, kind: str = "application/json") -> None:
    await reply.status(200, body, content_type=kind, content_encoding=coding)


@pytest.mark.parametrize("coding", CODINGS)
async def test_answers_may_be_compressed(coding: Coding) -> None:
    async def script(reply: Reply) -> None:
        assert coding in reply.asked.headers["accept-encoding"].split(", ")
        await coded(reply, coding.upper(), compress(coding, json.dumps(ANSWER).encode()))

    assert await only_answer(script) == Response(1, "fine" * 100)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_compressed_error_is_read_too(coding: Coding) -> None:
    async def script(reply: Reply) -> None:
        error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}
        body = compress(coding, json.dumps(error).encode())
        await reply.status(400, body, content_type="application/json", content_encoding=coding)

    answer = await only_answer(script)
    assert answer.code == -32602


async def test_each_event_of_a_compressed_stream_arrives_when_it_is_sent() -> None:
    going_on = [trio.Event() for _ in range(3)]

    async def script(reply: Reply) -> None:
        stream = zlib.compressobj(wbits=31)
        await reply.begin_events(content_encoding="gzip")
        for number, event in enumerate(going_on):
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": number}}
            data = stream.compress(f"data: {json.dumps(note)}\n\n".encode()) + stream.flush(zlib.Z_SYNC_FLUSH)
            await reply.chunk(data[:7])
            await reply.chunk(data[7:])
            await event.wait()
        await reply.chunk(stream.compress(f"data: {json.dumps(ANSWER)}\n\n".encode()) + stream.flush())
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(Request(1, "tools/call"))
            for number, event in enumerate(going_on):
                assert await rx.receive() == Notification("notifications/progress", {"progress": number})
                event.set()
            assert await rx.receive() == Response(1, "fine" * 100)


@pytest.mark.deadline(60)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_bomb_goes_off_nowhere(coding: Coding, kind: str) -> None:
    zeros = bytes(BOMB)
    begin = b"data: " if kind == "text/event-stream" else b'"'
    bomb = begin + zeros
    packed = compress(coding, bomb, {"zstd": 1, "br": 1}.get(coding))
    del zeros, bomb

    async def script(reply: Reply) -> None:
        await coded(reply, coding, packed, kind)

    tracemalloc.start()
    try:
        answer = await only_answer(script, Limits(max_message_size=MIB))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(answer, Undelivered)
    assert peak < 16 * MIB
    assert answer.outcome == "unknown"
    if kind == "application/json":
        assert isinstance(answer.cause, MessageTooLarge)


WHOLE: Final = gzip.compress(json.dumps(ANSWER).encode(), mtime=0)


@pytest.mark.parametrize(
    ("coding", "body", "kind", "text"),
    [
        ("gzip", b"not gzip at all", DecodeError, "damaged"),
        ("gzip", WHOLE[:-9], DecodeError, "cut short"),
        ("gzip", WHOLE + b"x", DecodeError, "follows"),
        ("gzip, br", b"x", ProtocolViolation, "not offered"),
        ("compress", b"x", ProtocolViolation, "not offered"),
        ("\x80" * 100, b"x", ProtocolViolation, "not offered"),
        ("gzip", b"", DecodeError, ""),
    ],
)
async def test_codings_that_are_none(coding: str, body: bytes, kind: type[Exception], text: str) -> None:
    async def script(reply: Reply) -> None:
        await coded(reply, coding, body)

    answer = await only_answer(script)
    assert isinstance(answer, Undelivered)
    assert isinstance(answer.cause, kind)
    assert text in str(answer.cause)
    assert answer.outcome == "unknown"
