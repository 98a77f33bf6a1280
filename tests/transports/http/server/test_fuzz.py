"""Random and mutated requests to the HTTP server: each is refused or answered, in time, and harms no other.

The clock jumps, so that a client which stops in the middle is waited for as long as the server allows, and no longer.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    META,
    MODERN,
    calling,
    initialized,
    modern,
    modern_fields,
    request,
)
from tests.support.recording_handler import serving
from trioxport import Connection
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.http.server import HttpServer

ANYWHERE: Final = "http://127.0.0.1:0/mcp"
SESSION: Final = "{session}"
"""Stands for a session that there is."""
LONGEST: Final = 200.0
"""Seconds of the server's clock after which it has to be done with any client: more than all its bounds together."""
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
ALLOWED: Final = {b"100", b"200", b"202", b"204", b"501", b"505", *(b"%d" % status for status in range(400, 500))}
"""501 is for a transfer coding that is not known, and 505 for a version of HTTP (RFC 9112, 6.1; RFC 9110, 15.6.6)."""

seeded = settings(
    derandomize=True,
    deadline=None,
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],  # to make a failure smaller takes minutes
    suppress_health_check=list(HealthCheck),
)


async def handle(connection: Connection) -> None:
    async def initialize(asked: IncomingRequest) -> dict[str, Any]:
        return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "test", "version": "1"}}

    async def answer(asked: IncomingRequest) -> dict[str, Any]:
        await asked.progress(1)
        return {}

    async with open_peer(connection, requests={"initialize": initialize, "hello": answer, "ping": answer}) as peer:
        await peer.wait_finished()


async def answers_to(requests: Sequence[bytes]) -> list[bytes]:
    """Return the answers of one server to all, sent at once on connections of their own; it serves others after."""
    answers: dict[int, bytes] = {}

    async def send(port: int, number: int, data: bytes) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            parts: list[bytes] = []
            with trio.move_on_after(LONGEST) as patience:
                with suppress(trio.BrokenResourceError):  # refused before all of it was sent
                    await stream.send_all(data)
                    while part := await stream.receive_some():
                        parts.append(bytes(part))
            answers[number] = b"".join(parts)
            assert not patience.cancelled_caught or b"text/event-stream" in answers[number], data

    async with serving(HttpServer(ANYWHERE), handler=handle) as served:
        client = await initialized(served.url)
        session = client.fields["mcp-session-id"].encode()
        async with trio.open_nursery() as nursery:
            for number, data in enumerate(requests):
                ready = data.replace(SESSION.encode(), session)
                nursery.start_soon(send, urlsplit(served.url).port or 0, number, ready)
        async with calling(served.url, modern("ping")) as reply:
            assert reply.status == 200
    return [answers[number] for number in range(len(requests))]


class Errors(logging.Handler):
    """Return the failures that the server itself reports."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


def check(requests: Sequence[bytes], allowed: Callable[[bytes], object]) -> None:
    errors, logger = Errors(), logging.getLogger("trioxport")
    logger.addHandler(errors)
    try:
        answers = trio.run(partial(answers_to, requests), clock=MockClock(autojump_threshold=0.02))
    finally:
        logger.removeHandler(errors)
    assert errors.records == []
    for asked, answer in zip(requests, answers, strict=True):
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), asked
        for status in STATUS.findall(answer):
            assert allowed(status), (asked, answer)


# Requests that are right.


def raw(method: str, fields: Mapping[str, str], body: bytes = b"", path: str = "/mcp") -> bytes:
    head = {"host": "localhost", **fields, **({"content-length": str(len(body))} if body else {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "\r\n"]
    return "\r\n".join(lines).encode("latin-1") + body


def posted(message: Mapping[str, Any], fields: Mapping[str, str]) -> bytes:
    return raw("POST", fields, json.dumps(message).encode())


HELLO: Final = modern("hello", progress={"progressToken": 1})
IN_SESSION: Final = {**JSON_OR_EVENTS, "mcp-session-id": SESSION, "mcp-protocol-version": "2025-11-25"}
CHUNKED: Final = raw(
    "POST", {**modern_fields(HELLO), "transfer-encoding": "chunked"}
) + b"%x;name=value\r\n%s\r\n0\r\ntrailer: x\r\n\r\n" % (len(json.dumps(HELLO)), json.dumps(HELLO).encode())
RIGHT: Final = (
    posted(HELLO, modern_fields(HELLO)),
    posted(HELLO, modern_fields(HELLO)) * 2,
    posted(request("initialize", **INITIALIZE), JSON_OR_EVENTS),
    posted(request("hello", 7), IN_SESSION),
    raw("POST", {**modern_fields(HELLO), "expect": "100-continue", "content-encoding": "gzip"}, b"\x1f\x8b\x08\x00"),
    raw("GET", {"mcp-session-id": "none", "accept": "text/event-stream", "last-event-id": "a-1"}),
    raw("DELETE", {"mcp-session-id": "none"}),
    raw("OPTIONS", {"origin": "http://localhost"}),
    raw("HEAD", {}, path="http://localhost/mcp"),
    CHUNKED,
)
TOKENS: Final = [
    *(b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"\xff\xfe", b"%00", b"//"),
    *(b"Content-Length: 5\r\n", b"content-length: 99999999999999999999\r\n", b"content-length: 1, 1\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding: chunked, chunked\r\n", b"te: trailers\r\n"),
    *(b"connection: close\r\n", b"connection: upgrade\r\nupgrade: websocket\r\n", b"upgrade: h2c\r\n"),
    *(b"host: a\r\n", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"ffffffffffffffffff\r\n", b"-1", b"PRI * HTTP/2.0"),
    *(b"=?base64?//8=?=", b"=?base64??=", b"[", b"]", b"{", b'"', b"null", b"1e999", b"\\ud800", b"[" * 3000),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(RIGHT))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6), st.just(data[start:end] * 2)))
        data = data[:start] + new + data[end:]
    return data


@seeded
@given(st.lists(st.one_of(mutated(), mutated(), st.binary(max_size=200)), min_size=25, max_size=25))
@pytest.mark.deadline(90)
def test_mutated_requests(requests: list[bytes]) -> None:
    check(requests, ALLOWED.__contains__)


# Requests that are well-formed HTTP, and say anything.

NAMES: Final = ("jsonrpc", "id", "method", "params", "_meta", "result", "error", "code", "message", "protocolVersion")
METHODS: Final = (
    "hello",
    "ping",
    "initialize",
    "tools/call",
    "subscriptions/listen",
    "notifications/cancelled",
    "rpc.x",
)
VERSIONS: Final = (MODERN, "2025-11-25", "2025-03-26", "2024-11-05", "1999-01-01", "")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.sampled_from((*METHODS, *VERSIONS, "2.0", "\ud800", "=?base64?aGVsbG8=?=")),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner),
    max_leaves=8,
)


@st.composite
def envelopes(draw: st.DrawFn) -> Any:
    """Return something that is nearly a message."""
    meta = {META + "protocolVersion": draw(st.sampled_from(VERSIONS) | values), META + "clientCapabilities": {}}
    parts = {
        "jsonrpc": st.just("2.0"),
        "id": st.integers(0, 3) | st.text(max_size=3),
        "method": st.sampled_from(METHODS),
        "params": st.just({"_meta": meta, "name": "x"}) | st.just({**INITIALIZE, "requestId": 1}),
    }
    message: dict[str, Any] = {name: draw(part) for name, part in parts.items()}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        message[name] = draw(values)
    for name in draw(st.lists(st.sampled_from(list(parts)), max_size=2)):
        message.pop(name, None)
    return message


bodies = st.one_of(
    st.one_of(envelopes(), envelopes(), st.lists(envelopes(), max_size=3), values).map(
        lambda v: json.dumps(v).encode()
    ),
    st.binary(max_size=40),
)
field_values = st.one_of(
    st.sampled_from(
        (*METHODS, *VERSIONS, SESSION, "=?base64?aGVsbG8=?=", "=?base64?\xff?=", "gzip", "*/*;q=0", ",;=", "*")
    ),
    st.text(st.characters(codec="latin-1", min_codepoint=0x20, exclude_characters="\x7f"), max_size=12).map(str.strip),
)
fields = st.fixed_dictionaries(
    {"accept": st.just(JSON_OR_EVENTS["accept"]), "content-type": st.just("application/json")},
    optional={
        "mcp-protocol-version": st.sampled_from(VERSIONS) | field_values,
        "mcp-session-id": st.just(SESSION) | field_values,
        "mcp-method": st.sampled_from(METHODS) | field_values,
        "mcp-name": field_values,
        "mcp-param-region": field_values,
        "last-event-id": field_values,
    },
)
odd_fields = st.dictionaries(
    st.sampled_from(("host", "origin", "accept", "content-type", "content-encoding", "authorization", "x-other")),
    field_values,
    max_size=1,
)


@st.composite
def well_formed(draw: st.DrawFn) -> bytes:
    head = {**draw(fields), **draw(odd_fields), "connection": "close"}
    return raw(draw(st.sampled_from(("POST",) * 6 + ("GET", "DELETE", "PUT"))), head, draw(bodies))


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A request whose headers are right, and which goes to the handler whatever its parameters are."""
    message = modern(draw(st.sampled_from(METHODS)), draw(st.integers() | st.text(max_size=3)))
    message["params"] = {
        **message["params"],
        "name": "x",
        **draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=2)),
    }
    head = modern_fields(message)
    if draw(st.booleans()):
        head = IN_SESSION
        del message["params"]["_meta"]
    return raw("POST", {**head, "connection": "close"}, json.dumps(message).encode())


def is_2xx_or_4xx(status: bytes) -> bool:
    return status[:1] in b"24"


@seeded
@given(st.lists(well_formed() | nearly_right(), min_size=12, max_size=12))
@pytest.mark.deadline(90)
def test_anything_in_headers_and_bodies(requests: list[bytes]) -> None:
    check(requests, is_2xx_or_4xx)
