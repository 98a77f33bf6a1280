"""HTTP+SSE of 2024-11-05 as a client sees it, asked for or fallen back to: against a server of the test's own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.legacy_script import HELLO, INITIALIZE, INITIALIZED
from tests.support.scripted_http import Reply, Script, Server, serving
from trioxport import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ErrorResponse,
    HTTPStatusError,
    Limits,
    MessageTooLarge,
    Notification,
    PermissionDenied,
    ProtocolViolation,
    Request,
    Response,
    ServerUnreachable,
    Undelivered,
    open_transport,
)
from trioxport.peer import open_peer
from trioxport.transports.http import Http
from trioxport.transports.http.client import era_cache

BOUND: Final = 15.0
CLIENT: Final = {"name": "c", "version": "1"}
REFUSED: Final = 405


class Old:
    """A server of HTTP+SSE, for one connection at a time.

    Args:
        answer: What it does with a message after it accepted it; the default answers requests.
        post: What it does with the POST of a message; the default accepts it.
        endpoint: What its stream names.
        elsewhere: What it does with a POST to where its stream is.
    """

    def __init__(
        self,
        answer: Callable[[Old, Any], Awaitable[None]] | None = None,
        *,
        post: Script | None = None,
        endpoint: str = "/messages?session=1",
        elsewhere: Script | None = None,
    ) -> None:
        self.stream: Reply | None = None
        self.posted: list[Any] = []
        self._answer = answer or Old.obliging
        self._post = post
        self._endpoint = endpoint
        self._elsewhere = elsewhere
        self.gone = trio.Event()

    async def __call__(self, reply: Reply) -> None:
        if reply.asked.method == "GET":
            self.stream = reply
            await reply.begin_events()
            await reply.chunk(f"event: endpoint\ndata: {self._endpoint}\n\n".encode(errors="surrogateescape"))
            await reply.gone()
            self.gone.set()
        elif reply.asked.path == "/mcp":
            await (reply.status(REFUSED) if self._elsewhere is None else self._elsewhere(reply))
        else:
            self.posted.append(reply.asked.message)
            await (reply.status(202, b"Accepted") if self._post is None else self._post(reply))
            await self._answer(self, reply.asked.message)

    async def say(self, message: object) -> None:
        assert self.stream is not None
        await self.stream.event(message)

    async def obliging(self, message: Any) -> None:
        if "id" in message and "method" in message:
            result = HELLO if message["method"] == "initialize" else {"of": message["method"]}
            await self.say({"jsonrpc": "2.0", "id": message["id"], "result": result})


async def silent(_old: Old, _message: Any) -> None: ...


def sse(server: Server) -> str:
    return f"sse+{server.url}"


def result(number: int, method: str = "tools/call") -> Response:
    return Response(number, {"of": method})


async def test_a_conversation() -> None:
    old = Old()
    with trio.fail_after(BOUND):
        async with serving(old) as server:
            async with open_transport(sse(server)) as connection:
                tx, rx = connection
                assert str(connection.info.target) == sse(server)
                assert connection.info.era == "legacy"
                await tx.send(INITIALIZE)
                assert await rx.receive() == Response(0, HELLO)
                await tx.send(INITIALIZED)
                await tx.send(Request(1, "tools/list"))
                assert await rx.receive() == result(1, "tools/list")
                assert (connection.info.protocol_version, connection.info.session_id) == ("2025-06-18", None)
            await old.gone.wait()
            get, *posts = server.asked
    assert (get.method, get.path, get.headers["accept"]) == ("GET", "/mcp", "text/event-stream")
    assert {(one.method, one.path) for one in posts} == {("POST", "/messages?session=1")}
    assert [one.rpc for one in posts] == ["initialize", "notifications/initialized", "tools/list"]
    assert [one.headers.get("mcp-protocol-version") for one in posts] == [None, "2025-06-18", "2025-06-18"]
    assert not any("mcp-method" in one.headers or "mcp-session-id" in one.headers for one in posts)


async def test_the_server_asks_and_is_answered_and_both_can_notify() -> None:
    async def answer(old: Old, message: Any) -> None:
        if message.get("method") == "tools/call":
            await old.say({"jsonrpc": "2.0", "method": "notifications/progress"})
            await old.say({"jsonrpc": "2.0", "id": 7, "method": "roots/list"})
        elif "result" in message:
            await old.say({"jsonrpc": "2.0", "id": 1, "result": message["result"]})

    with trio.fail_after(BOUND):
        async with serving(Old(answer)) as server, open_transport(sse(server)) as (tx, rx):
            await tx.send(Request(1, "tools/call"))
            assert await rx.receive() == Notification("notifications/progress")
            assert await rx.receive() == Request(7, "roots/list")
            await tx.send(Response(7, {"roots": []}))
            assert await rx.receive() == Response(1, {"roots": []})


async def test_an_answer_may_overtake_the_status_of_its_post() -> None:
    old = Old(silent)

    async def post(reply: Reply) -> None:
        await old.obliging(reply.asked.message)
        if reply.asked.message["id"] == 1:
            await reply.status(202)
        else:
            reply.reset()

    old._post = post
    with trio.fail_after(BOUND):
        async with serving(old) as server, open_transport(sse(server)) as connection:
            for number in (1, 2):
                await connection.tx.send(Request(number, "tools/call"))
                assert await connection.rx.receive() == result(number)
            await connection.tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await connection.rx.receive()
            assert connection.statistics().discarded == {}


async def test_an_answer_waits_for_whoever_reads_late() -> None:
    async def answer(old: Old, message: Any) -> None:
        for number in range(5):
            await old.say({"jsonrpc": "2.0", "method": f"note {number}"})
        await old.obliging(message)
        said.set()

    said = trio.Event()
    with trio.fail_after(BOUND):
        async with (
            serving(Old(answer)) as server,
            open_transport(sse(server), limits=Limits(max_buffered_messages=1)) as (tx, rx),
        ):
            await tx.send(Request(1, "tools/call"))
            await tx.aclose()
            await said.wait()
            await wait_all_tasks_blocked(0.05)
            assert [message async for message in rx][5:] == [result(1)]


async def test_messages_that_are_none_and_events_of_other_kinds() -> None:
    async def answer(old: Old, message: Any) -> None:
        assert old.stream is not None
        await old.stream.chunk(b": hi\n\nevent: endpoint\ndata: http://elsewhere.example/\n\nevent: other\ndata: x\n\n")
        await old.stream.chunk(b"data: nonsense\n\ndata:\n\n")
        await old.say({"jsonrpc": "2.0", "id": "nobody's", "result": {}})
        await old.stream.chunk(b'data: {"jsonrpc": "2.0", "method": "' + b"x" * 2000 + b'"}\n\n')
        await old.obliging(message)
        await old.obliging(message)

    with trio.fail_after(BOUND):
        async with (
            serving(Old(answer)) as server,
            open_transport(sse(server), limits=Limits(max_message_size=1000)) as connection,
        ):
            for number in (1, 2):
                await connection.tx.send(Request(number, "tools/call"))
                assert await connection.rx.receive() == result(number)
            await connection.tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await connection.rx.receive()
            counts = connection.statistics().discarded
            assert counts["DecodeError"] == counts["MessageTooLarge"] == 2
            assert counts["ProtocolViolation"] >= 3


async def test_an_answer_that_is_too_large_ends_its_request() -> None:
    async def answer(old: Old, message: Any) -> None:
        await old.say({"jsonrpc": "2.0", "id": message["id"], "result": "x" * 2000})

    with trio.fail_after(BOUND):
        async with (
            serving(Old(answer)) as server,
            open_transport(
                Http(server.url, binding="sse", max_concurrency=1), limits=Limits(max_message_size=1000)
            ) as (tx, rx),
        ):
            for number in (1, 2):
                await tx.send(Request(number, "tools/call"))
            await tx.aclose()
            ends = [message async for message in rx]
            causes = {end.id: type(end.cause) for end in ends if isinstance(end, Undelivered)}
            assert causes == {1: MessageTooLarge, 2: MessageTooLarge}


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, "not_sent"), (404, "not_sent"), (429, "not_sent"), (500, "unknown")]
)
@pytest.mark.parametrize("message", [Request(1, "tools/call"), Notification("note")])
async def test_a_message_that_is_not_accepted(status: int, outcome: str, message: Request | Notification) -> None:
    async def post(reply: Reply) -> None:
        await reply.status(202 if reply.asked.rpc == "ping" else status)

    async def answer(old: Old, message: Any) -> None:
        if message["method"] == "ping":
            await old.obliging(message)

    with trio.fail_after(BOUND):
        async with serving(Old(answer, post=post)) as server, open_transport(sse(server)) as (tx, rx):
            await tx.send(message)
            refused = await rx.receive()
            assert isinstance(refused, Undelivered)
            assert (refused.original, refused.outcome) == (message, outcome)
            await tx.send(Request(2, "ping"))
            assert await rx.receive() == result(2, "ping")


async def test_a_request_that_is_never_answered() -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(Old(silent)) as server,
            open_transport(Http(server.url, binding="sse", total_timeout=0.05, idle_timeout=0.02)) as (tx, rx),
        ):
            await tx.send(Request(1, "tools/call"))
            refused = await rx.receive()
            assert isinstance(refused, Undelivered)
            assert "total_timeout" in str(refused.cause)


@pytest.mark.parametrize("how", ["reset", "cut"])
async def test_the_stream_breaks(how: str) -> None:
    """Then the connection is lost, and nobody knows of what is in flight."""

    async def answer(old: Old, message: Any) -> None:
        if message["id"] == 3:
            assert old.stream is not None
            await old.obliging({**message, "id": 1})
            if how == "cut":
                await old.stream.chunk(b"data: {")
                await old.stream.close()
            else:
                await trio.sleep(0.05)  # a reset takes with it what was not read yet
                old.stream.reset()

    with trio.fail_after(BOUND):
        async with serving(Old(answer)) as server, open_transport(sse(server)) as (tx, rx):
            for number in (1, 2, 3):
                await tx.send(Request(number, "tools/call"))
                await server.until(lambda number=number: len(server.asked) == number + 1)  # type: ignore[misc]  # a lambda with a default
            assert await rx.receive() == result(1)
            ends = [await rx.receive(), await rx.receive()]
            assert {end.id for end in ends if isinstance(end, Undelivered) and end.outcome == "unknown"} == {2, 3}
            with pytest.raises(ConnectionLost):
                await rx.receive()
            with pytest.raises(ConnectionLost):
                await tx.send(Request(4, "tools/call"))


async def test_the_stream_breaks_while_requests_wait_for_their_turn() -> None:
    """A message that was not sent is known not to be."""

    async def answer(old: Old, message: Any) -> None:
        assert old.stream is not None
        await release.wait()
        old.stream.reset()

    release = trio.Event()
    with trio.fail_after(BOUND):
        async with (
            serving(Old(answer)) as server,
            open_transport(Http(server.url, binding="sse", max_concurrency=1)) as (tx, rx),
        ):
            for number in (1, 2, 3):
                await tx.send(Request(number, "tools/call"))
            await server.until(lambda: len(server.asked) == 2)
            release.set()
            ends = [await rx.receive() for _ in range(3)]
            assert {end.id: end.outcome for end in ends if isinstance(end, Undelivered)} == {
                1: "unknown",
                2: "not_sent",
                3: "not_sent",
            }
            with pytest.raises(ConnectionLost):
                await rx.receive()
            assert len(server.asked) == 2


async def test_the_server_ends_the_stream_in_order() -> None:
    async def answer(old: Old, message: Any) -> None:
        assert old.stream is not None
        await old.stream.end_events()
        await old.stream.close()

    with trio.fail_after(BOUND):
        async with serving(Old(answer)) as server, open_transport(sse(server)) as (tx, rx):
            await tx.send(Request(1, "tools/call"))
            end = await rx.receive()
            assert isinstance(end, Undelivered)
            assert end.outcome == "unknown"
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()


async def test_cancelling_is_told() -> None:
    old = Old(silent)
    with trio.fail_after(BOUND):
        async with serving(old) as server, open_transport(sse(server)) as (tx, _):
            await tx.send(Request(1, "tools/call"))
            await server.until(lambda: len(server.asked) == 2)
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await server.until(lambda: len(server.asked) == 3)
            begin = trio.current_time()
        assert trio.current_time() - begin < 1
    assert old.posted[-1]["method"] == "notifications/cancelled"


# The endpoint.


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("/other?x=1", "/other?x=1"),
        ("messages", "/messages"),
        ("?session=1", "/mcp?session=1"),
        ("{origin}/absolute", "/absolute"),
        (" /padded ", "/padded"),
    ],
)
async def test_endpoints_within_the_origin(said: str, path: str) -> None:
    old = Old(endpoint="")
    with trio.fail_after(BOUND):
        async with serving(old) as server:
            old._endpoint = said.format(origin=server.url.removesuffix("/mcp"))
            async with open_transport(sse(server)) as (tx, _):
                await tx.send(Notification("note"))
                await server.until(lambda: len(server.asked) == 2)
            assert server.asked[-1].path == path


async def refused(target: str | Http) -> Exception:
    with trio.fail_after(BOUND), pytest.raises(Exception) as caught:  # noqa: PT011 (the caller looks)
        async with open_transport(target):
            pass
    return caught.value


@pytest.mark.parametrize(
    "said",
    [
        "http://elsewhere.example/messages",
        "http://127.0.0.1:1/messages",
        "https://127.0.0.1:{port}/messages",
        "//elsewhere.example/messages",
        "http://me:pw@127.0.0.1:{port}/messages",
        "http://127.0.0.1:99999/",
        "file:///etc/passwd",
        "http://[",
        "/control\a",
        "/\udcff",
    ],
)
async def test_endpoints_that_leave_the_origin(said: str) -> None:
    old = Old()
    async with serving(old) as server:
        old._endpoint = said.format(port=server.port)
        error = await refused(sse(server))
        assert type(error) is ConnectError
        assert isinstance(error.__cause__, ProtocolViolation)
        assert not error.retryable
        assert [one.method for one in server.asked] == ["GET"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda reply: reply.status(401), AuthenticationError),
        (lambda reply: reply.status(403), PermissionDenied),
        (lambda reply: reply.status(404), ConnectError),
        (lambda reply: reply.status(503, retry_after="7"), ConnectError),
        (lambda reply: reply.status(200, b"hello", content_type="text/html"), ConnectError),
        (lambda reply: reply.status(200, b"", content_type="text/event-stream"), ConnectError),
        (lambda reply: reply.status(200, b"data: {}\n\n", content_type="text/event-stream"), ConnectError),
        (lambda reply: reply.status(200, b"event: endpoint\nda", content_type="text/event-stream"), ConnectError),
        (lambda reply: reply.close(), ConnectError),
    ],
)
async def test_there_is_no_stream(answer: Script, kind: type[Exception]) -> None:
    async with serving(answer) as server:
        error = await refused(sse(server))
    assert type(error) is kind
    assert getattr(error, "retry_after", None) == (7 if " 503" in str(error) else None)  # a port may have these digits
    assert str(error).startswith("sse+http://")


async def test_a_stream_that_never_names_its_endpoint() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(b": hello\n\n")
        await reply.gone()

    async with serving(script) as server:
        assert type(await refused(Http(server.url, binding="sse", connect_timeout=0.05))) is ConnectTimeout


async def test_whoever_does_not_want_to_wait_for_the_stream() -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.method == "GET":
            await reply.begin_events()
            waiting.set()
            await reply.gone()
            gone.set()
        else:
            statuses = {"initialize": REFUSED, "notifications/cancelled": 202}
            await (reply.result() if reply.asked.rpc == "ping" else reply.status(statuses[reply.asked.rpc]))

    waiting, gone = trio.Event(), trio.Event()
    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused, sse(server))
                await waiting.wait()
                nursery.cancel_scope.cancel()
            await gone.wait()
            waiting, gone = trio.Event(), trio.Event()
            async with open_transport(server.url) as (tx, rx):
                await tx.send(INITIALIZE)
                await waiting.wait()
                await tx.send(Notification("notifications/cancelled", {"requestId": 0}))
                await gone.wait()
                await tx.send(Request(1, "ping"))
                assert await rx.receive() == Response(1, {})


async def test_nobody_is_there() -> None:
    assert isinstance(await refused("sse+http://127.0.0.1:1/sse"), ServerUnreachable)


# Falling back.


@pytest.mark.parametrize(
    "refusal",
    [
        lambda reply: reply.status(400),
        lambda reply: reply.status(404, b"<h1>", content_type="text/html"),
        lambda reply: reply.status(405),
        lambda reply: reply.error(-32600, None, 400),
    ],
)
async def test_an_older_server_is_found_out(refusal: Script) -> None:
    """The requests that follow go to it, and the next connection knows it from the beginning."""
    old = Old(elsewhere=refusal)
    with trio.fail_after(BOUND):
        async with serving(old) as server:
            for expected in (["server/discover", "initialize", "GET"], ["GET"]):
                del server.asked[:]
                async with open_transport(server.url) as connection, open_peer(connection) as peer:
                    assert (await peer.negotiate(client_info=CLIENT)).era == "legacy"
                    assert await peer.request("tools/list") == {"of": "tools/list"}
                    assert connection.info.era == "legacy"
                assert server.rpcs() == [*expected, "initialize", "notifications/initialized", "tools/list"]


@pytest.mark.parametrize("status", [401, 403, 406, 415, 429, 500, 503])
async def test_other_statuses_are_no_reason_to_fall_back(status: int) -> None:
    async def elsewhere(reply: Reply) -> None:
        await reply.status(status)

    with trio.fail_after(BOUND):
        async with serving(Old(elsewhere=elsewhere)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(INITIALIZE)
            assert isinstance(await rx.receive(), Undelivered)
            assert server.rpcs() == ["initialize"]


@pytest.mark.parametrize(("code", "status"), [(-32020, 400), (-32021, 400), (-32022, 400), (-32601, 404)])
async def test_a_modern_server_that_refuses_is_not_taken_for_an_older_one(code: int, status: int) -> None:
    async def elsewhere(reply: Reply) -> None:
        await reply.error(code, reply.asked.message["id"], status)

    with trio.fail_after(BOUND):
        async with serving(Old(elsewhere=elsewhere)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(INITIALIZE)
            assert await rx.receive() == ErrorResponse(0, code, "no")
            assert server.rpcs() == ["initialize"]


async def test_who_wants_streamable_http_gets_nothing_else() -> None:
    with trio.fail_after(BOUND):
        async with serving(Old()) as server, open_transport(Http(server.url, binding="streamable")) as (tx, rx):
            await tx.send(INITIALIZE)
            assert isinstance(await rx.receive(), Undelivered)
            assert server.rpcs() == ["initialize"]


@pytest.mark.parametrize("said", [None, "http://elsewhere.example/"])
async def test_where_there_is_no_older_server_the_refusal_stands(said: str | None) -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.method == "GET" and said is not None:
            await reply.begin_events()
            await reply.chunk(f"event: endpoint\ndata: {said}\n\n".encode())
            await reply.gone()
        else:
            await reply.status(REFUSED)

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            for _attempt in range(2):
                await tx.send(INITIALIZE)
                answer = await rx.receive()
                assert isinstance(answer, Undelivered)
                assert isinstance(answer.cause, HTTPStatusError)
                assert answer.cause.status == REFUSED
            assert server.rpcs() == ["initialize", "GET"] * 2


async def test_where_the_stream_is_silent_the_refusal_stands() -> None:
    gone = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.method == "GET":
            await reply.begin_events()
            await reply.gone()
            gone.set()
        else:
            await reply.status(REFUSED)

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(Http(server.url, connect_timeout=0.1)) as (tx, rx):
            await tx.send(INITIALIZE)
            answer = await rx.receive()
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, HTTPStatusError)
            await gone.wait()


async def test_what_was_known_may_not_hold_any_more() -> None:
    """A server that spoke HTTP+SSE has been replaced by one of today."""

    async def script(reply: Reply) -> None:
        if reply.asked.method == "GET":
            await reply.status(405)
        else:
            await reply.result({"supportedVersions": ["2026-07-28"], "capabilities": {}})

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            era_cache.learn(server.url, "sse")
            async with open_transport(server.url) as connection, open_peer(connection) as peer:
                assert (await peer.negotiate(client_info=CLIENT)).era == "modern"
            assert server.rpcs() == ["GET", "server/discover"]
            assert json.loads(server.asked[1].body)["method"] == "server/discover"
            assert era_cache.known(server.url) == "modern"
