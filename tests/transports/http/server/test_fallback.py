"""ASGI applications beside the endpoint: what they send is HTTP in the end, and a mistake of theirs harms no other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import trio

from tests.support.raw_http import calling, modern
from tests.support.recording_handler import serving
from trioxport import Limits
from trioxport.transports.http.server import HttpServer

BOUND: Final = 10.0
Calls = Callable[..., Awaitable[Any]]
ECHO: Final = b"POST /other?q=1 HTTP/1.1\r\nhost: localhost\r\n"


class Page:
    """An application that answers with what a test wants, and notes what it got."""

    def __init__(self, *messages: dict[str, Any], reads: bool = True) -> None:
        self.messages = messages
        self.reads = reads
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.after: list[object] = []

    async def __call__(self, scope: Any, receive: Calls, send: Calls) -> None:
        self.scopes.append(scope)
        body, more = b"", self.reads
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        try:
            for message in self.messages:
                await send(message)
        except Exception as error:
            self.after.append(type(error))
            raise
        self.after.append((await receive())["type"] if self.reads else None)


def start(*fields: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@asynccontextmanager
async def beside(page: Page, **options: Any) -> AsyncGenerator[Callable[[bytes], Awaitable[bytes]]]:
    """A function that sends bytes, and returns what comes until the connection ends."""
    with trio.fail_after(BOUND):
        async with serving(HttpServer("http://127.0.0.1:0/mcp", fallback=page), **options) as served:

            async def tell(data: bytes) -> bytes:
                stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(served.url).port or 0)
                async with stream:
                    await stream.send_all(data)
                    return b"".join([bytes(part) async for part in stream])

            yield tell
            async with calling(served.url, modern("hello")) as reply:
                assert reply.status == 200


async def test_an_application_gets_the_request_as_it_is() -> None:
    page = Page(
        start((b"content-type", b"text/plain"), (b"transfer-encoding", b"x")), body(b"one", more=True), body(b"two")
    )
    async with beside(page) as tell:
        chunked = b"X-Twice: 1\r\nx-twice: 2\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        answer = await tell(ECHO + chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-twice: 3\r\n\r\n")
    head, _, data = answer.partition(b"\r\n\r\n")
    assert (head.count(b"transfer-encoding"), data) == (1, b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert page.bodies == [b"abcde"]
    assert page.after == ["http.disconnect"]
    [scope] = page.scopes
    assert [value for name, value in scope["headers"] if name == b"x-twice"] == [b"1", b"2"]
    assert (scope["method"], scope["raw_path"], scope["query_string"]) == ("POST", b"/other", b"q=1")


async def test_one_answer_after_another() -> None:
    page = Page(start((b"content-length", b"3")), body(b"abc"))
    async with beside(page) as tell:
        answer = await tell((ECHO + b"content-length: 2\r\n\r\nxy") * 2 + ECHO + b"connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answer.endswith(b"\r\n\r\nabc")
    assert page.bodies == [b"xy", b"xy", b""]


@pytest.mark.parametrize(
    ("request_line", "status", "fields"),
    [
        (b"HEAD /x HTTP/1.1", 200, ((b"content-length", b"3"),)),
        (b"HEAD /x HTTP/1.1", 200, ()),
        (b"GET /x HTTP/1.1", 304, ()),
    ],
)
async def test_a_response_without_a_body_has_none(
    request_line: bytes, status: int, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    async with beside(Page(start(*fields, status=status), body(b"abc"))) as tell:
        answer = await tell(request_line + b"\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in answer


@pytest.mark.parametrize(
    "field",
    [(b"x", b"a\r\nset-cookie: b"), (b"x\r\ny", b"a"), (b"x y", b"a"), (b"", b"a"), (b"x", b"a\0"), (b"x", b"a\nb")],
)
async def test_a_header_ends_where_it_ends(field: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture) -> None:
    async with beside(Page(start(field), body(b"abc"))) as tell:
        answer = await tell(ECHO + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" in answer
    assert b"set-cookie" not in answer
    assert "could not be answered" in caplog.text


@pytest.mark.parametrize("data", [b"ab", b"abcd"], ids=["too short", "too long"])
async def test_a_body_of_another_length_than_announced_ends_the_connection(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    page = Page(start((b"content-length", b"3")), body(data))
    async with beside(page) as tell:
        assert (await tell(ECHO + b"\r\n" + ECHO + b"\r\n")).count(b"HTTP/1.1") <= 1
    assert page.after == [ValueError]
    assert "announced" in caplog.text


async def test_a_length_counts_however_its_name_is_written() -> None:
    page = Page(start((b"Content-Length", b"6")), body(b"a page"), reads=False)
    async with beside(page) as tell:
        answer = await tell(b"GET /other HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\na page")


async def answer_first(_scope: Any, receive: Calls, send: Calls) -> None:
    """Begin the response, and then read the body."""
    await send(start())
    await send(body(b"first,", more=True))
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send(body(message["body"], more=more))


@asynccontextmanager
async def talking_to(application: Any) -> AsyncGenerator[trio.SocketStream]:
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer("http://127.0.0.1:0/mcp", fallback=application)) as served,
            await trio.open_tcp_stream("127.0.0.1", urlsplit(served.url).port or 0) as stream,
        ):
            yield stream


async def test_a_body_that_is_read_after_the_response_has_begun_is_whole() -> None:
    async with talking_to(answer_first) as stream:
        await stream.send_all(ECHO + b"content-length: 3\r\n\r\nabc")
        answer = b"".join([bytes(part) async for part in stream])
    assert answer.endswith(b"\r\n\r\n6\r\nfirst,\r\n3\r\nabc\r\n0\r\n\r\n")
    assert b"connection: close\r\n" in answer


async def test_leave_to_send_the_body_is_not_within_the_response() -> None:
    async with talking_to(answer_first) as stream:
        await stream.send_all(ECHO + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        answer = await stream.receive_some()
        await stream.send_all(b"abc")
        answer += b"".join([bytes(part) async for part in stream])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n6\r\nfirst,\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_an_application_that_says_nothing_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    async with beside(Page(reads=False)) as tell:
        answer = await tell(ECHO + b"content-length: 5\r\n\r\nab")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert caplog.text == ""


async def test_a_body_over_the_limit_is_refused() -> None:
    page = Page(start(), body(b""))
    async with beside(page, limits=Limits(max_message_size=1000)) as tell:
        announced = await tell(ECHO + b"content-length: 1001\r\nconnection: close\r\n\r\n" + b"x" * 1001)
        counted = await tell(
            ECHO + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
        )
    assert announced.startswith(b"HTTP/1.1 413 ")
    assert counted.startswith(b"HTTP/1.1 413 ")
    assert page.bodies == []


async def test_an_application_hears_that_its_client_left() -> None:
    page = Page(start(), *(body(b"x" * 1_000_000, more=True) for _ in range(40)), body(b""))
    with trio.fail_after(BOUND):
        async with serving(HttpServer("http://127.0.0.1:0/mcp", fallback=page)) as served:
            async with await trio.open_tcp_stream("127.0.0.1", urlsplit(served.url).port or 0) as stream:
                await stream.send_all(ECHO + b"\r\n")
                assert await stream.receive_some()
            while not page.after:  # noqa: ASYNC110 (the application has no event to wait for)
                await trio.sleep(0.01)
    [error] = page.after
    assert isinstance(error, type)
    assert issubclass(error, OSError)
