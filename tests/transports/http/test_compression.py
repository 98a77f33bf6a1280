"""Answers of an HTTP server with the layer ``Compression``, to this library's client and to httpx."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Final, Literal

import attrs
import httpx
import pytest
from trio.abc import SendChannel

from tests.support.recording_handler import serving
from trioxport import Connection, Frame, Message, Notification, Request, Response, open_transport
from trioxport.abc import FrameChannels, Layer, Scope
from trioxport.codecs import JSON
from trioxport.codecs.content_codings import CODINGS, Coding, compress
from trioxport.layers import Compression, Signing
from trioxport.layers._support import PassingSend
from trioxport.transports.http.server import HttpServer
from trioxport.transports.http.server.events import EventStore, MemoryEvents

TEXT: Final = "a line that comes again and again\n" * 200
URL: Final = "http://127.0.0.1:0/mcp"
BOTH: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
INITIALIZE: Final = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}

COMPRESSED: Final = (Compression(),)

each_era = pytest.mark.parametrize("era", ["modern", "legacy"])


async def tell(connection: Connection) -> None:
    """A long answer; a short one; or a long one behind a message that makes the response a stream of events."""
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request):
            params: Any = message.params
            result: Any = {"text": TEXT}
            if message.method == "initialize":
                result = {**INITIALIZE, "instructions": TEXT}
            elif message.method == "short":
                result = {}
            elif message.method == "noisy":
                note = Notification("notifications/message", params, metadata={"related_request": message.id})
                await tx.send(note)
            await tx.send(Response(message.id, result))


class Foreign:
    """httpx, which says what it accepts and expands what it gets, as a client of either era."""

    def __init__(self, client: httpx.AsyncClient, url: str, era: str) -> None:
        self._client = client
        self._url = url
        self._era = era

    async def ask(self, method: str, accepted: str = "gzip, deflate") -> httpx.Response:
        fields = {**BOTH, "accept-encoding": accepted}
        params: dict[str, Any] = {}
        if self._era == "modern":
            fields |= {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
            params["_meta"] = META
        else:
            fields |= await self._session()
        return await self._client.post(self._url, content=JSON.encode(Request(1, method, params)), headers=fields)

    async def _session(self) -> dict[str, str]:
        opened = await self._client.post(
            self._url, content=JSON.encode(Request(0, "initialize", INITIALIZE)), headers=BOTH
        )
        return {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}


async def asked(
    era: str, method: str, accepted: str = "gzip, deflate", *, layers: Any = COMPRESSED, **options: Any
) -> httpx.Response:
    config = HttpServer(URL, **options)
    async with serving(config, handler=tell, layers=layers) as served, httpx.AsyncClient() as client:
        return await Foreign(client, served.url, era).ask(method, accepted)


@each_era
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip, deflate", "gzip"), ("*", "gzip"), ("identity", None), ("gzip;q=0, *", None), ("br", None)],
)
async def test_a_foreign_client_gets_what_it_accepts(era: str, accepted: str, coding: str | None) -> None:
    answer = await asked(era, "tell", accepted)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get("content-encoding") == coding
    assert answer.json()["result"] == {"text": TEXT}
    assert (int(answer.headers["content-length"]) < 500) == (coding is not None)
    if coding is not None:
        assert answer.headers["vary"] == "accept-encoding"


@each_era
@pytest.mark.parametrize("coding", CODINGS)
async def test_our_client_gets_every_coding(era: str, coding: Coding) -> None:
    encodings: list[str | None] = []

    async def note(response: httpx.Response) -> None:
        encodings.append(response.headers.get("content-encoding"))

    layers = [Compression(coding)]
    async with serving(URL, handler=tell, layers=layers) as served, open_transport(served.url) as (tx, rx):
        if era == "legacy":
            await tx.send(Request(0, "initialize", INITIALIZE))
            assert await rx.receive() == Response(0, {**INITIALIZE, "instructions": TEXT})
            await tx.send(Notification("notifications/initialized"))
            await tx.send(Request(1, "tell", {}))
        else:
            await tx.send(Request(1, "tell", {"_meta": META}))
        assert await rx.receive() == Response(1, {"text": TEXT})
        accepted = {"accept-encoding": coding}  # from the first request on: what httpx says by itself depends on extras
        async with httpx.AsyncClient(headers=accepted, event_hooks={"response": [note]}) as client:
            answer = await Foreign(client, served.url, era).ask("tell", coding)
    assert encodings[-1] == coding == answer.headers["content-encoding"]


@each_era
async def test_what_is_small_goes_as_it_is(era: str) -> None:
    assert "content-encoding" not in (await asked(era, "short")).headers
    assert "content-encoding" not in (await asked(era, "tell", layers=[Compression(min_size=10_000)])).headers
    assert "content-encoding" not in (await asked(era, "tell", layers=[])).headers


@pytest.mark.parametrize(("era", "events"), [("modern", None), ("legacy", None), ("legacy", MemoryEvents())])
async def test_events_are_not_compressed(era: str, events: EventStore | None) -> None:
    answer = await asked(era, "noisy", events=events)
    assert answer.headers["content-type"] == "text/event-stream"
    assert "content-encoding" not in answer.headers
    assert last_event(answer) == Response(1, {"text": TEXT})


def last_event(answer: httpx.Response) -> Message:
    return JSON.decode(answer.text.strip().rpartition("data: ")[2].encode())


@each_era
async def test_an_answer_that_is_an_event_is_not_compressed_in_vain(era: str) -> None:
    seen: list[str] = []

    class Watching:
        """A layer that sees what the wire carries when something is sent."""

        level: ClassVar[Literal["frame"]] = "frame"

        def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
            return attrs.evolve(channels, send=PassingSend(channels.send, partial(self.note, channels)))

        def note(self, channels: FrameChannels, frame: Frame) -> Frame:
            seen.append(channels.carried())
            return frame

    async def answer(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                if message.method != "initialize":
                    await connection.tx.send(Notification("note", metadata={"related_request": message.id}))
                await connection.tx.send(Response(message.id, INITIALIZE))

    store = MemoryEvents() if era == "legacy" else None
    async with (
        serving(HttpServer(URL, events=store), handler=answer, layers=[Watching()]) as served,
        httpx.AsyncClient() as client,
    ):
        await Foreign(client, served.url, era).ask("any")
    assert seen == (["http", "events"] if era == "modern" else ["events"] * 3)


class Eager:
    """A layer that compresses everything, whatever becomes of it."""

    level: ClassVar[Literal["frame"]] = "frame"

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        return attrs.evolve(channels, send=EagerSend(channels.send))


class EagerSend(SendChannel[Frame]):
    def __init__(self, inner: SendChannel[Frame]) -> None:
        self._inner = inner

    async def send(self, value: Frame) -> None:
        payload = compress("gzip", value.payload)
        await self._inner.send(attrs.evolve(value, payload=payload, headers={"content-encoding": "gzip"}))

    async def aclose(self) -> None:
        await self._inner.aclose()


class Recording(MemoryEvents):
    """Keeps all events, and what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.payloads: list[bytes] = []

    async def append(self, session: str, stream: str, number: int, data: bytes) -> None:
        self.payloads.append(data)
        await super().append(session, stream, number, data)


@pytest.mark.parametrize(("era", "store"), [("modern", None), ("legacy", None), ("legacy", Recording())])
async def test_what_was_compressed_before_it_became_an_event_is_expanded(era: str, store: Recording | None) -> None:
    answer = await asked(era, "noisy", events=store, layers=[Eager()])
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    events = [JSON.decode(line.encode()) for line in lines]
    assert isinstance(events[0], Notification)
    assert events[-1] == Response(1, {"text": TEXT})
    if store is not None:
        assert [JSON.decode(payload) for payload in store.payloads][1:] == events


async def test_a_client_that_changes_its_mind_gets_what_it_accepts_now() -> None:
    """The layer knows what the session's client accepted at first; each POST says so for itself."""
    async with (
        serving(URL, handler=tell, layers=[Compression()]) as served,
        httpx.AsyncClient(headers={"accept-encoding": "gzip"}) as client,
    ):
        answer = await Foreign(client, served.url, "legacy").ask("tell", "deflate")
    assert "content-encoding" not in answer.headers
    assert answer.json()["result"] == {"text": TEXT}
    assert answer.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("layer", [Compression(), Eager()])
async def test_the_deprecated_binding_has_only_events(layer: Layer) -> None:
    config = HttpServer(URL, sse="/sse")
    async with serving(config, handler=tell, layers=[layer]) as served:
        url = "sse+" + served.url.removesuffix("/mcp") + "/sse"
        async with open_transport(url) as (tx, rx):
            await tx.send(Request(0, "initialize", INITIALIZE))
            assert await rx.receive() == Response(0, {**INITIALIZE, "instructions": TEXT})
            await tx.send(Request(1, "tell", {}))
            assert await rx.receive() == Response(1, {"text": TEXT})


@pytest.mark.parametrize("events", [None, MemoryEvents()])
async def test_a_layer_that_has_no_place_in_an_answer_is_refused(
    events: EventStore | None, caplog: pytest.LogCaptureFixture
) -> None:
    layers = [Signing({"key": bytes(32)})]
    config = HttpServer(URL, events=events)
    async with serving(config, handler=tell, layers=layers) as served, httpx.AsyncClient() as client:
        body = JSON.encode(Request(0, "initialize", INITIALIZE))
        answer = await client.post(served.url, content=body, headers=BOTH)
    assert "error" in answer.text
    assert "has no place for a signature" in caplog.text
