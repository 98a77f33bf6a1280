"""Errors of requests that a server refuses, or answers with something else than a message."""

from __future__ import annotations

import json
import logging
import time
from random import Random

import pytest
import trio
from trio.testing import MockClock

from tests.support.scripted_http import Reply, Script, serving
from tests.support.surviving_connection import answer_of, call, conversing
from trioxport import Response, TransportError, Undelivered, open_transport
from trioxport._core.backoff import Backoff
from trioxport.errors import (
    AuthenticationError,
    DecodeError,
    HTTPStatusError,
    PermissionDenied,
    ProtocolViolation,
    RateLimited,
)
from trioxport.layers.retry import Retry
from trioxport.transports import _http_semantics as semantics
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.http import failures

BOUND = 15.0


async def refused_by(script: Script) -> TransportError:
    """The cause with which a call is undelivered."""
    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            answer = await answer_of(connection)
    assert isinstance(answer, Undelivered)
    return answer.cause


def saying(status: int, body: bytes = b"", **headers: str) -> Script:
    async def script(reply: Reply) -> None:
        await reply.status(status, body, **headers)

    return script


def rpc_error(message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}).encode()


# Busy servers.


@pytest.mark.parametrize("body", [b"", b"stopping", rpc_error("The server is stopping")])
@pytest.mark.parametrize(("status", "kind"), [(503, HTTPStatusError), (429, RateLimited)])
async def test_a_busy_server_is_asked_again_after_the_delay_that_it_named(
    status: int, kind: type[TransportError], body: bytes, jumping_clock: MockClock
) -> None:
    asked: list[float] = []

    async def script(reply: Reply) -> None:
        asked.append(trio.current_time())
        if len(asked) > 1:
            await reply.result("done")
        else:
            content = "application/json" if body[:1] == b"{" else "text/plain"
            await reply.status(status, body, retry_after="7", content_type=content)

    cause = await refused_by(script)
    assert type(cause) is kind
    assert (cause.outcome, cause.retryable, cause.retry_after) == ("not_sent", True, 7.0)
    assert "Try again in 7 s" in str(cause)
    assert not body or "stopping" in str(cause)
    asked.clear()
    retry = Retry(backoff=Backoff(base=0.1, cap=0.1), random=Random(1))
    async with serving(script) as server, open_transport(server.url, layers=[retry]) as (tx, rx):
        await tx.send(call())
        assert await rx.receive() == Response(1, "done")
    assert asked[1] - asked[0] == pytest.approx(7, abs=0.2)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 7.0),
        ("Sun Nov  6 08:49:37 1994", 7.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 7.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Sun, 06 Nov 2994 08:00:00 GMT", 86400.0),
        ("99999999999", 86400.0),
        ("-5", None),
        ("Sun, 66 Nov 1994 08:00:00 GMT", None),
    ],
)
async def test_the_delay_may_be_a_date(said: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110, section 5.6.7: three forms, all in UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("time.time", lambda: 784111770.0)
    cause = await refused_by(saying(503, retry_after=said))
    assert cause.retry_after == seconds


# Bodies of refusals.


@pytest.mark.parametrize(
    ("status", "body", "content_type", "told"),
    [
        (404, b"page not found\nsecond line", "text/plain", ["404 Said: page not found", "Check the path", "/mcp"]),
        (502, b"<html><title>502 Bad\n Gateway</title><body>x", "text/html", ["502 Said: 502 Bad Gateway", "gateway"]),
        (500, rpc_error("no database"), "application/problem+json", ["500 Said: no database"]),
        (500, b'{\n "detail": "no database"\n}', "application/problem+json", ["500 Said: no database"]),
        (500, b'{\n "error": "busy",\n "code": 5\n}', "application/json", ["500 Said: busy"]),
        (500, b'{\n "code": 5\n}', "application/json", ['500 Said: { "code": 5 }']),
        (500, b"<html><body>\n<p>out of <b>memory", "text/html", ["500 Said"]),
        (400, b"\x1b[31mred\x07\nx", "text/plain", ["400 Said: [31mred"]),
        (400, b"\xff\xfe" + b"y" * 5000, "", ["yyyy..."]),
        (407, b"", "", ["407 Said", "proxy"]),
    ],
)
async def test_a_refusal_says_what_the_server_said(
    status: int, body: bytes, content_type: str, told: list[str]
) -> None:
    text = str(await refused_by(saying(status, body, content_type=content_type)))
    for part in told:
        assert part in text
    assert "second line" not in text
    assert text.isprintable()
    assert len(text) < 600


async def test_a_phrase_with_control_characters_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trioxport")

    async def script(reply: Reply) -> None:
        await reply.raw("HTTP/1.1 500 \x1b[31mred\x9b2J\r\ncontent-length: 0\r\n\r\n".encode("latin-1"))

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            answer = await answer_of(connection)
    assert str(answer.cause).isprintable()
    assert answer.message.isprintable()
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_a_refusal_whose_body_never_ends_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "EXCERPT_SECONDS", 0.05)

    async def script(reply: Reply) -> None:
        await reply.raw(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 100\r\n\r\nhalf a line")
        await reply.gone()

    assert "502 Bad Gateway: half a line" in str(await refused_by(script))


async def test_a_refusal_whose_body_breaks_off_is_told_with_what_came() -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 100\r\n\r\nhalf a line")
        await reply.close()

    assert "502 Bad Gateway: half a line" in str(await refused_by(script))


def test_a_challenge_takes_no_time_however_it_is_made() -> None:
    """A search from each character of each name took a third of a second for 4 kB."""
    head = ResponseHead(401, "", {"www-authenticate": "a" * 1_000_000 + ' , error="x"'})
    began = time.process_time()
    for _ in range(20):
        assert semantics.challenge(head) == {}
    assert time.process_time() - began < 1


async def test_403_names_the_scopes_and_401_the_reason() -> None:
    challenge = (
        'Bearer realm="x", error="insufficient_scope", scope="files:write \\"admin\\"", resource_metadata="https://a"'
    )
    denied = await refused_by(saying(403, www_authenticate=challenge))
    assert isinstance(denied, PermissionDenied)
    assert "insufficient_scope" in str(denied)
    assert 'It requires the scopes files:write "admin"' in str(denied)
    expired = 'Bearer error="invalid_token", error_description="The token\x9b expired"'
    refusal = await refused_by(saying(401, www_authenticate=expired))
    assert isinstance(refusal, AuthenticationError)
    assert "401 Said (invalid_token: The token\u00c2 expired)" in str(refusal)
    assert "Bearer is asked for" in str(await refused_by(saying(401, www_authenticate="Bearer")))


# Bodies that are no messages.


async def test_a_login_page_is_told_as_one() -> None:
    page = b"<!doctype html><html><head><TITLE lang=en>Sign in &amp; go</TITLE></head>"
    cause = await refused_by(saying(200, page, content_type="text/html; charset=utf-8"))
    assert isinstance(cause, ProtocolViolation)
    assert "a web page (Sign in & go)" in str(cause)
    assert "login page" in str(cause)
    assert cause.outcome == "unknown"


async def test_garbage_is_shown_as_it_begins() -> None:
    garbage = b"{warning: \x1b[1mdeprecated" + b"x" * 200
    cause = await refused_by(saying(200, garbage, content_type="application/json"))
    assert isinstance(cause, DecodeError)
    assert "the answer begins with '{warning: [1mdeprecatedx" in str(cause)
    assert len(str(cause)) < 400
