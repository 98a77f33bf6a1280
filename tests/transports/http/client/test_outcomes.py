"""Outcomes over HTTP: a request that the server may have acted on is not repeated, whatever fails afterwards."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from random import Random
from subprocess import PIPE
from typing import Any, Final

import h2.exceptions
import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.support.legacy_script import legacy, shake_hands
from tests.support.scripted_http import Reply, serving
from tests.support.surviving_connection import call
from trioxport import ConnectionLost, Notification, Request, Undelivered, open_transport
from trioxport._core.backoff import Backoff
from trioxport.errors import AuthenticationError
from trioxport.layers.retry import Retry
from trioxport.peer import open_peer
from trioxport.transports.http import Http

BOUND: Final = 20.0

PAYMENTS: Final = """
import sys, trio
from trioxport import Notification, Request, Response, serve_transport
from trioxport.transports.http.server import HttpServer, MemoryEvents

async def handle(connection):
    async for message in connection.rx:
        if not isinstance(message, Request):
            continue
        if message.method == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
            await connection.tx.send(Response(message.id, result))
        else:
            with open(sys.argv[2], "a") as payments:
                payments.write("paid\\n")
            note = Notification("notifications/message", {}, metadata={"related_request": message.id})
            await connection.tx.send(note)

async def main():
    async with trio.open_nursery() as nursery:
        server = HttpServer(f"http://127.0.0.1:{sys.argv[1]}/mcp", events=MemoryEvents())
        [url] = await nursery.start(serve_transport, handle, server)
        print(url, flush=True)

trio.run(main)
"""


class PaymentServer:
    """A server in a process of its own, which acts on every call and answers none."""

    def __init__(self, payments: Path) -> None:
        self._payments = payments
        self._process: trio.Process | None = None
        self.url = ""

    async def start(self, nursery: trio.Nursery, port: str = "0") -> None:
        command = [sys.executable, "-c", PAYMENTS, port, str(self._payments)]
        running = partial(trio.run_process, command, stdout=PIPE, check=False)
        self._process = process = await nursery.start(running)
        async with process.stdout as stdout:
            said = b""
            while not said.endswith(b"\n"):
                said += await stdout.receive_some()
            self.url = said.decode().strip()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    def paid(self) -> int:
        return self._payments.read_text().count("paid")


@pytest.fixture
def fast_clock() -> MockClock:
    """A clock that runs fast and never jumps, because real processes take part."""
    return MockClock(rate=50.0)


async def test_a_payment_is_made_once_though_its_server_is_killed_and_comes_back(
    fast_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    server = PaymentServer(tmp_path / "payments")
    retry = Retry(deadline=1e6, backoff=Backoff(base=1000.0, cap=1000.0), random=Random(1))
    async with trio.open_nursery() as nursery:
        await server.start(nursery)
        async with open_transport(server.url, layers=[retry]) as connection:
            async with open_peer(connection) as peer:
                await peer.negotiate(client_info={"name": "test", "version": "1"}, era="legacy")
            await connection.tx.send(Request("pay", "tools/call", {"name": "pay"}))
            assert isinstance(await connection.rx.receive(), Notification)
            await server.kill()
            await trio.sleep(30)  # all attempts to resume are over
            await server.start(nursery, server.url.rpartition(":")[2].partition("/")[0])
            answer = await connection.rx.receive()
        await server.kill()
    assert isinstance(answer, Undelivered)
    assert (answer.outcome, type(answer.cause)) == ("unknown", ConnectionLost)
    assert server.paid() == 1
    assert "could not be resumed: cannot connect: Connection refused" in str(answer.cause)
    assert "incomplete chunked read" in str(answer.cause) or "broke" in str(answer.cause)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert any(level == "INFO" and "the answer to tools/call is resumed" in text for level, text in told)
    assert any(level == "WARNING" and "Connection refused" in text for level, text in told)


async def resumed_by(resume: Any, jumping_clock: MockClock, **options: Any) -> Undelivered:
    """The settlement of a call whose stream breaks, if every GET does ``resume``."""

    async def stream(reply: Reply) -> None:
        await (resume(reply) if "last-event-id" in reply.asked.headers else reply.status(405))

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(b"id: 1\ndata:\n\n")
        await reply.close()

    async with (
        serving(legacy(script, stream=stream)) as server,
        open_transport(Http(server.url, **options)) as connection,
    ):
        await shake_hands(connection, server)
        await connection.tx.send(Request(1, "tools/call", {}))
        answer = await connection.rx.receive()
        assert isinstance(answer, Undelivered)
        return answer


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500, 503])
async def test_a_resumption_that_is_refused_leaves_the_request_unknown(status: int, jumping_clock: MockClock) -> None:
    async def resume(reply: Reply) -> None:
        await reply.status(status)

    answer = await resumed_by(resume, jumping_clock)
    assert (answer.outcome, type(answer.cause)) == ("unknown", ConnectionLost)
    assert "the exchange with the server broke" in str(answer.cause)
    told = "does not know the session" if status == 404 else str(status)
    assert "could not be resumed" in str(answer.cause)
    assert told in str(answer.cause)


async def test_a_resumption_that_brings_no_stream_leaves_the_request_unknown(jumping_clock: MockClock) -> None:
    async def resume(reply: Reply) -> None:
        await reply.json({})

    answer = await resumed_by(resume, jumping_clock)
    assert (answer.outcome, type(answer.cause)) == ("unknown", ConnectionLost)
    assert "no stream of events was resumed" in str(answer.cause)


class LosingItsToken:
    """Credentials for a POST that are gone at the next GET."""

    gone = False

    async def headers(self) -> dict[str, str]:
        if self.gone:
            raise AuthenticationError("the token provider failed")
        return {}

    async def refused(self, headers: object) -> bool:
        self.gone = True
        return True


async def test_a_resumption_without_credentials_leaves_the_request_unknown(jumping_clock: MockClock) -> None:
    async def resume(reply: Reply) -> None:
        await reply.status(401)

    answer = await resumed_by(resume, jumping_clock, auth=LosingItsToken())
    assert (answer.outcome, type(answer.cause)) == ("unknown", ConnectionLost)
    assert "could not be resumed: the token provider failed" in str(answer.cause)


async def test_an_answer_that_is_taken_up_in_vain_is_unknown(jumping_clock: MockClock) -> None:
    """The request was sent earlier: a failure to get its answer now does not tell its outcome."""

    async def stream(reply: Reply) -> None:
        await reply.status(405)

    async def script(reply: Reply) -> None:
        raise AssertionError

    async with serving(legacy(script, stream=stream)) as server, open_transport(server.url) as connection:
        await shake_hands(connection, server)
        await connection.tx.send(Request(1, "tools/call", {}, metadata={"resume_after": "1"}))
        answer = await connection.rx.receive()
    assert isinstance(answer, Undelivered)
    assert answer.outcome == "unknown"
    assert "keeps nothing behind that event" in str(answer.cause)


async def test_a_violation_of_http2_leaves_the_request_unknown() -> None:
    """``httpcore`` reports it as a local error, like a request that cannot be written."""

    async def break_rules(request: httpx.Request) -> httpx.Response:
        try:
            raise h2.exceptions.ProtocolError("Invalid input ConnectionInputs.RECV_PUSH_PROMISE")
        except h2.exceptions.ProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(break_rules)) as client,
        open_transport(Http("http://127.0.0.1:1/mcp", client=client)) as (tx, rx),
    ):
        await tx.send(call())
        answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert (answer.outcome, type(answer.cause)) == ("unknown", ConnectionLost)


class AsksElsewhere(httpx.Auth):
    """An ``Auth`` that sends a request of its own after the response."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        yield request
        yield httpx.Request("POST", self._url)


async def test_an_auth_whose_server_is_gone_after_the_answer_leaves_the_request_unknown() -> None:
    async def script(reply: Reply) -> None:
        await reply.result("done")

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            auth = AsksElsewhere("http://127.0.0.1:1/token")
            async with open_transport(Http(server.url, auth=auth)) as (tx, rx):
                await tx.send(call())
                answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert answer.outcome == "unknown"
