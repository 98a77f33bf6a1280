"""HTTP by hand, for what a client library would not let a test do or see."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import trio

from trioxport.framing.sse import Event, EventDecoder

JSON_OR_EVENTS: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
MODERN: Final = "2026-07-28"
META: Final = "io.modelcontextprotocol/"


def modern(method: str, request_id: object = 1, **params: Any) -> dict[str, Any]:
    """A modern request."""
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {"_meta": meta, **params}}


def modern_fields(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a modern request."""
    fields = {**JSON_OR_EVENTS, "mcp-protocol-version": MODERN, "mcp-method": message["method"]}
    if message["method"] == "tools/call":
        fields["mcp-name"] = message["params"]["name"]
    return fields


class Conversation:
    """One connection; what comes back is the response to what was asked last."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], host: str) -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.last_event_id = ""
        self._host = host
        self._connection = h11.Connection(h11.CLIENT)
        self._decoder = EventDecoder(2**20)
        self._events: list[Event] = []

    async def ask(
        self, method: str, path: str = "/mcp", fields: Mapping[str, str] | None = None, body: object = b""
    ) -> Conversation:
        """Send a request and read the head of its response. A body that is no bytes is sent as JSON."""
        await self.send(method, path, fields, body)
        await self.head()
        return self

    async def send(
        self, method: str, path: str = "/mcp", fields: Mapping[str, str] | None = None, body: object = b""
    ) -> None:
        if self._connection.our_state is h11.DONE:
            self._connection.start_next_cycle()
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"host": self._host, **(fields or {})}
        if payload:
            head["content-length"] = str(len(payload))
        request = h11.Request(method=method, target=path, headers=list(head.items()))
        data = self._connection.send(request) or b""
        if payload:
            data += self._connection.send(h11.Data(data=payload)) or b""
        await self.stream.send_all(data + (self._connection.send(h11.EndOfMessage()) or b""))

    async def head(self) -> None:
        while not isinstance(event := await self._next(), h11.Response):
            assert isinstance(event, h11.InformationalResponse), event
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}

    async def _next(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(bytes(await self.stream.receive_some()))
        return event

    async def body(self) -> bytes:
        parts: list[bytes] = []
        while isinstance(event := await self._next(), h11.Data):
            parts.append(bytes(event.data))
        assert isinstance(event, h11.EndOfMessage), event
        return b"".join(parts)

    async def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(await self.body())

    async def raw_event(self) -> Event | None:
        """The next event; None at the end of the response."""
        assert self.headers["content-type"] == "text/event-stream"
        while not self._events:
            part = await self._next()
            if isinstance(part, h11.EndOfMessage):
                return None
            events = self._decoder.feed(bytes(part.data))
            self._events += [event for event in events if isinstance(event, Event)]
        event = self._events.pop(0)
        self.last_event_id = event.id
        return event

    async def event(self) -> Any:
        """The message in the next event that has one; None at the end of the response."""
        while (event := await self.raw_event()) is not None:
            if event.data:
                return json.loads(event.data)
        return None

    @property
    def retry(self) -> int | None:
        return self._decoder.retry

    async def at_end(self) -> bool:
        """Whether the server closes the connection, with nothing more to read."""
        return not await self.stream.receive_some()


@asynccontextmanager
async def talking(url: str) -> AsyncGenerator[Conversation]:
    """A connection to a server."""
    parts = urlsplit(url)
    async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream:
        yield Conversation(stream, parts.netloc)


@asynccontextmanager
async def asking(
    url: str, method: str, fields: Mapping[str, str] | None = None, body: object = b"", path: str = ""
) -> AsyncGenerator[Conversation]:
    """A connection of its own for one request, whose response has begun."""
    async with talking(url) as conversation:
        yield await conversation.ask(method, path or urlsplit(url).path, fields, body)


@asynccontextmanager
async def calling(url: str, message: Mapping[str, Any], **fields: str) -> AsyncGenerator[Conversation]:
    """A modern request. Underscores in the names of ``fields`` stand for hyphens; an empty value leaves one out."""
    own = {name.replace("_", "-"): value for name, value in fields.items()}
    head = {name: value for name, value in {**modern_fields(message), **own}.items() if value}
    async with asking(url, "POST", head, message) as conversation:
        yield conversation


class LegacyClient:
    """A client in a session."""

    def __init__(self, url: str, session: str, version: str) -> None:
        self.url = url
        self.fields = {**JSON_OR_EVENTS, "mcp-session-id": session, "mcp-protocol-version": version}

    @asynccontextmanager
    async def post(self, message: object, **fields: str) -> AsyncGenerator[Conversation]:
        own = {name.replace("_", "-"): value for name, value in fields.items()}
        async with asking(self.url, "POST", {**self.fields, **own}, message) as conversation:
            yield conversation

    @asynccontextmanager
    async def get(self, **fields: str) -> AsyncGenerator[Conversation]:
        own = {name.replace("_", "-"): value for name, value in fields.items()}
        async with asking(self.url, "GET", {**self.fields, **own}) as conversation:
            yield conversation

    async def tell(self, message: object) -> int:
        """Post what has no answer; returns the status."""
        async with self.post(message) as conversation:
            return conversation.status

    async def delete(self) -> int:
        async with asking(self.url, "DELETE", self.fields) as conversation:
            return conversation.status


INITIALIZE: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def request(method: str, request_id: object = 1, **params: Any) -> dict[str, Any]:
    """A legacy request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def initialized(url: str, version: str = "2025-11-25", **fields: str) -> LegacyClient:
    """A client in a new session."""
    own = {name.replace("_", "-"): value for name, value in fields.items()}
    opening = request("initialize", "opening", **{**INITIALIZE, "protocolVersion": version})
    async with asking(url, "POST", {**JSON_OR_EVENTS, **own}, opening) as conversation:
        assert conversation.status == 200, await conversation.body()
        answer = await conversation.json()
        client = LegacyClient(url, conversation.headers["mcp-session-id"], answer["result"]["protocolVersion"])
    client.fields |= own
    assert await client.tell(notification("notifications/initialized")) == 202
    return client
