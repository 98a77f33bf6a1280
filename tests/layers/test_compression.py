"""Compression: what travels, what is refused, and who learns of it."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support import links
from trioxport import (
    Connection,
    DecodeError,
    Frame,
    Limits,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import FrameChannels, Layer, Scope
from trioxport.codecs import JSON, MessagePack
from trioxport.codecs.content_codings import CODINGS, Coding, accepts, compress
from trioxport.framing.envelope import Envelope, open_envelope
from trioxport.layers import Compression, Tap
from trioxport.testing import check_layer, check_transport
from trioxport.transports.stdio import Stdio

TEXT = "a line that comes again and again\n" * 200
LIMITS = Limits(max_message_size=64 * 1024)

each_coding = pytest.mark.parametrize("coding", CODINGS)


async def echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request):
            await tx.send(Response(message.id, message.params))


@asynccontextmanager
async def served(target: Any, *peer_layers: Layer, handler: Any = echo, **options: Any) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(handler, target, layers=peer_layers, task_status=task_status, **options)

        [address] = await nursery.start(serve)
        yield address
        nursery.cancel_scope.cancel()


async def ask(connection: Connection, text: str) -> Any:
    await connection.tx.send(Request(1, "echo", {"text": text}))
    return await connection.rx.receive()


@each_coding
@pytest.mark.parametrize("target", ["memory://echo", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0?framing=length"])
async def test_large_messages_travel_small_on_every_wire(coding: Coding, target: str) -> None:
    lines: list[bytes] = []
    layer = Compression(coding)
    async with (
        served(target, layer) as address,
        open_transport(address, layers=[layer, Tap(lines.append)]) as connection,
    ):
        answer = await ask(connection, TEXT)
    assert answer == Response(1, {"text": TEXT})
    assert [len(line) < 1000 for line in lines] == [True, True]


@each_coding
@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: codec.name)
async def test_it_keeps_the_contract(coding: Coding, codec: Any) -> None:
    await check_layer(Compression(coding, min_size=0, effort=1), codec=codec)


async def test_it_keeps_the_contract_over_a_wire_for_text(tmp_path: Path) -> None:
    layer = Compression(min_size=0, effort=1)
    await check_transport(links.tcp_link(tmp_path), layers=[layer], peer_layers=[layer])


async def test_a_peer_without_it_may_go_on_uncompressed() -> None:
    async with served("memory://echo"), open_transport("memory://echo", layers=[Compression()]) as connection:
        assert await ask(connection, "short") == Response(1, {"text": "short"})


async def test_a_peer_without_it_says_what_it_lacks(caplog: pytest.LogCaptureFixture) -> None:
    notes: list[Any] = []

    async def listen(connection: Connection) -> None:
        notes.extend([message async for message in connection.rx])
        notes.append(connection.statistics().discarded)

    async with (
        served("memory://echo", handler=listen),
        open_transport("memory://echo", layers=[Compression()]) as (tx, rx),
    ):
        await tx.send(Notification("note", {"text": TEXT}))
        await tx.send(Notification("note"))
        await tx.aclose()
        assert [message async for message in rx] == []
    assert notes == [Notification("note"), {"DecodeError": 1}]
    assert "in an envelope (gzip) that no layer of this side opens. Give both sides" in caplog.text


@asynccontextmanager
async def receiving(*payloads: bytes) -> AsyncGenerator[Connection]:
    """A connection, with requests 1, 2, ... in flight, to a peer that sends ``payloads``."""

    @attrs.frozen
    class Raw:
        level: ClassVar[Literal["frame"]] = "frame"

        def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
            sends.append(channels.send)
            return channels

    sends: list[trio.abc.SendChannel[Frame]] = []

    async def tell(connection: Connection) -> None:
        for _ in payloads:
            await connection.rx.receive()
        for payload in payloads:
            await sends[0].send(Frame(payload, Notification("raw")))
        await trio.sleep_forever()

    async with (
        served("memory://tell", Raw(), handler=tell),
        open_transport("memory://tell", layers=[Compression()], limits=LIMITS) as connection,
    ):
        for number, _ in enumerate(payloads, 1):
            await connection.tx.send(Request(number, "ask"))
        yield connection


def response(number: int, text: str) -> bytes:
    return JSON.encode(Response(number, {"text": text}))


@each_coding
async def test_bombs_settle_the_requests_that_they_answer_within_bounded_memory(coding: Coding) -> None:
    bomb = compress(coding, response(1, "x" * 32 * 1024**2))
    tracemalloc.start()
    try:
        async with receiving(*[Envelope([coding], bomb).pack()] * 5) as connection:
            answer = await connection.rx.receive()
            await trio.testing.wait_all_tasks_blocked()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(answer, Undelivered)
    assert answer.id == 1
    assert isinstance(answer.cause, MessageTooLarge)
    assert "expands to more than the limit of 65536 bytes" in str(answer.cause)
    assert peak < 2 * 1024**2


async def test_a_bomb_within_a_bomb_is_opened_once() -> None:
    inner = Envelope(["gzip"], compress("gzip", bytes(16 * 1024**2))).pack()
    outer = Envelope(["gzip"], compress("gzip", inner)).pack()
    async with receiving(outer, response(2, "fine")) as connection:
        assert await connection.rx.receive() == Response(2, {"text": "fine"})
        assert connection.statistics().discarded == {"DecodeError": 1}


@each_coding
async def test_an_answer_cut_short_settles_its_request(coding: Coding) -> None:
    packed = Envelope([coding], compress(coding, response(1, base64.b85encode(bytes(range(256)) * 99).decode()))).pack()
    async with receiving(packed[:-9], response(2, "fine")) as connection:
        answers = [await connection.rx.receive()]
        assert isinstance(answers[0], Undelivered | Response)
        if isinstance(answers[0], Undelivered):  # else nothing of it came out before the end was found missing
            assert answers[0].id == 1
            assert isinstance(answers[0].cause, DecodeError)
            assert await connection.rx.receive() == Response(2, {"text": "fine"})


@pytest.mark.parametrize(
    "payload",
    [
        Envelope(["gzip"], gzip.compress(b"{}", mtime=0) + b"more").pack(),
        Envelope(["gzip", "base64"], b"no base64!").pack(),
        Envelope(["gzip", "base32"], b"").pack(),
        Envelope(["zip"], b"").pack(),
        b"~gzip~",
        b"~",
        b"~~",
    ],
    ids=range(7),
)
async def test_what_cannot_be_read_is_discarded_and_the_connection_goes_on(payload: bytes) -> None:
    async with receiving(payload, response(2, "fine")) as connection:
        assert await connection.rx.receive() == Response(2, {"text": "fine"})
        assert connection.statistics().discarded == {"DecodeError": 1}


async def test_a_coding_that_this_side_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    async with served("memory://echo"):
        with pytest.raises(UsageError, match=r"br is not installed. Install it: pip install 'brotli>="):
            async with open_transport("memory://echo", layers=[Compression("br")]):
                pass
    async with receiving(Envelope(["br"], b"...").pack(), response(2, "fine")) as connection:
        await connection.rx.receive()
    assert "br is not installed. Install it: pip install 'brotli>=" in caplog.text


@pytest.mark.parametrize(("min_size", "mark"), [(10_000, b"{"), (1000, b"~")])
async def test_what_is_below_the_least_size_goes_as_it_is(min_size: int, mark: bytes) -> None:
    lines: list[bytes] = []
    layers: list[Layer] = [Compression("deflate", min_size=min_size), Tap(lines.append)]
    async with served("memory://echo"), open_transport("memory://echo", layers=layers) as connection:
        await connection.tx.send(Notification("note", {"text": TEXT}))
    record = json.loads(lines[0])
    assert record.get("payload", "~").encode().startswith(mark)


async def test_what_does_not_shrink_goes_as_it_is() -> None:
    lines: list[bytes] = []
    text = base64.b85encode(bytes(range(256)) * 2).decode()
    async with (
        served("memory://echo"),
        open_transport("memory://echo", layers=[Compression(min_size=0), Tap(lines.append)]) as connection,
    ):
        assert await ask(connection, text[:20]) == Response(1, {"text": text[:20]})
    assert all(b"payload" in line and b"~" not in line[:140] for line in lines)


def test_efforts_and_sizes_are_checked() -> None:
    with pytest.raises(UsageError, match="min_size"):
        Compression(min_size=-1)


async def test_an_effort_that_the_coding_does_not_have_is_refused_on_opening() -> None:
    async with served("memory://echo"):
        with pytest.raises(UsageError, match="the effort of gzip is from 0 to 9, not 12"):
            async with open_transport("memory://echo", layers=[Compression(effort=12)]):
                pass


class TestOverHTTP:
    """The layer's part of HTTP: which frames it compresses, by what the server said."""

    @attrs.define
    class Wire:
        """A transport that keeps what it is given, and says of itself what an HTTP client says."""

        accepted: str | None
        frames: list[Frame] = attrs.Factory(list[Frame])

        @asynccontextmanager
        async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
            if self.accepted is not None:
                scope.info.headers = {"accept-encoding": self.accepted}
            to_wire, outgoing = trio.open_memory_channel[Frame](9)
            incoming, from_wire = trio.open_memory_channel[Frame](0)
            with outgoing, from_wire:
                incoming.close()
                yield FrameChannels(to_wire, from_wire, "http")
                self.frames = [frame async for frame in outgoing]

    async def sent(self, accepted: str | None, layer: Compression) -> Frame:
        wire = self.Wire(accepted)
        async with open_transport(wire, layers=[layer]) as (tx, _):
            await tx.send(Request(1, "echo", {"text": TEXT}))
        return wire.frames[0]

    @pytest.mark.parametrize("accepted", ["gzip", "br, GZIP;q=0.5", "*", "deflate, *;q=0.1"])
    async def test_a_body_is_compressed_once_the_server_accepts_it(self, accepted: str) -> None:
        frame = await self.sent(accepted, Compression())
        assert frame.headers == {"content-encoding": "gzip"}
        assert JSON.decode(gzip.decompress(frame.payload)) == Request(1, "echo", {"text": TEXT})

    @pytest.mark.parametrize("accepted", [None, "", "identity", "gzip;q=0", "gzip; q=0.000, *", "br"])
    async def test_and_not_before(self, accepted: str | None) -> None:
        frame = await self.sent(accepted, Compression())
        assert not frame.headers
        assert JSON.decode(frame.payload) == Request(1, "echo", {"text": TEXT})

    async def test_unless_told_but_what_the_server_says_counts_more(self) -> None:
        assert (await self.sent(None, Compression(unasked=True))).headers == {"content-encoding": "gzip"}
        assert not (await self.sent("br", Compression(unasked=True))).headers


class TestWithHTTP:
    """Client and server of HTTP, on the wire."""

    @pytest.mark.parametrize("coding", [*CODINGS])
    async def test_requests_are_compressed_from_the_second_on(self, coding: Coding) -> None:
        seen: list[tuple[str | None, int]] = []

        async def note(connection: Connection) -> None:
            async for message in connection.rx:
                assert isinstance(message, Request)
                assert message.params["text"] == TEXT  # type: ignore[call-overload,index]  # they are an object
                headers = connection.info.headers
                seen.append((headers.get("content-encoding"), int(headers["content-length"])))
                await connection.tx.send(Response(message.id, {"text": TEXT}))

        async with (
            served("http://127.0.0.1:0/mcp", Compression(coding), handler=note) as url,
            open_transport(url, layers=[Compression(coding)]) as connection,
        ):
            for number in range(2):
                await connection.tx.send(modern(number))
                assert await connection.rx.receive() == Response(number, {"text": TEXT})
        assert [each[0] for each in seen] == [None, coding]
        assert seen[1][1] < seen[0][1] / 5

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (gzip.compress(bytes(64 * 1024**2), mtime=0), 413),
            (b"no gzip", 400),
            (gzip.compress(b"{}", mtime=0) + b"more", 400),
        ],
        ids=["bomb", "no gzip", "more than gzip"],
    )
    async def test_bombs_and_damaged_bodies_are_refused(self, body: bytes, status: int) -> None:
        async with served("http://127.0.0.1:0/mcp", limits=LIMITS) as url, httpx.AsyncClient() as client:
            fields = {
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
                "content-encoding": "gzip",
            }
            answer = await client.post(url, content=body, headers=fields)
            assert answer.status_code == status
            assert "gzip" in answer.headers["accept-encoding"]
            fields["content-encoding"] = "compress"
            answer = await client.post(url, content=body, headers=fields)
            assert answer.status_code == 415


def modern(number: int) -> Request:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return Request(number, "echo", {"text": TEXT, "_meta": meta})


@given(field=st.text(max_size=60))
def test_any_accept_encoding_is_read(field: str) -> None:
    for coding in CODINGS:
        assert accepts(field, coding) in (True, False)


@given(fields=st.lists(st.text("abc-019", min_size=1, max_size=9), min_size=1, max_size=4), body=st.binary(max_size=99))
def test_an_envelope_says_what_was_put_on_it(fields: list[str], body: bytes) -> None:
    assert open_envelope(Envelope(fields, body).pack()) == Envelope(fields, body)


@given(payload=st.binary(max_size=99) | st.text("~;ab\n", max_size=20).map(str.encode))
def test_no_payload_without_the_mark_is_an_envelope_and_any_other_can_be_looked_at(payload: bytes) -> None:
    found = open_envelope(payload)
    assert found is None or payload.startswith(b"~")
    assert found is None or found.pack() == payload


@pytest.mark.deadline(60)
async def test_over_stdio_it_corrupts_nothing(tmp_path: Path) -> None:
    """Both sides in processes of their own, over lines of text."""
    server = Stdio(sys.executable, [str(Path(__file__).parents[1] / "programs" / "packed.py")])
    lines: list[bytes] = []
    async with open_transport(server, layers=[Compression("deflate"), Tap(lines.append)]) as connection:
        assert await ask(connection, TEXT) == Response(1, {"text": TEXT})
    assert all(b"~deflate;base64~" in line and len(line) < 1000 for line in lines)
