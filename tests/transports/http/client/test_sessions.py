"""Legacy sessions that the server forgets: one new session begins for all requests that need it."""

from __future__ import annotations

from itertools import count
from typing import Any, Final

import pytest
import trio

from tests.support.legacy_script import HELLO, INITIALIZE, INITIALIZED, legacy, shake_hands
from tests.support.scripted_http import Reply, Script, serving
from trioxport import (
    Backoff,
    HTTPStatusError,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    SessionExpired,
    TransportError,
    Undelivered,
    open_transport,
)
from trioxport.transports.http import Http
from trioxport.transports.http.client import reopening

BOUND: Final = 15.0


class Forgetful:
    """A legacy server whose sessions are ``1``, ``2`` …, and which forgets one when ``known`` is changed.

    Args:
        script: Its response to a request of a session that it knows.
        stream: Its response to a GET of such a session.
    """

    def __init__(self, script: Script | None = None, stream: Script | None = None) -> None:
        self.known = "1"
        self.begun = 0
        self._script = script
        self._stream = stream

    async def __call__(self, reply: Reply) -> None:
        if reply.asked.rpc == "initialize":
            self.begun += 1
            self.known = str(self.begun)
            await reply.result(HELLO, mcp_session_id=self.known)
        elif reply.asked.headers["mcp-session-id"] != self.known:
            await reply.status(404)
        else:
            await legacy(self._script, stream=self._stream)(reply)


def call(number: int) -> Request:
    return Request(number, "tools/call", {"name": "x"})


async def test_a_new_session_begins_and_the_request_is_repeated() -> None:
    script = Forgetful()
    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with open_transport(server.url) as connection:
                await shake_hands(connection, server)
                assert connection.info.session_id == "1"
                script.known = "none"
                await connection.tx.send(call(1))
                assert await connection.rx.receive() == Response(1, {})
                assert connection.info.session_id == "2"
                await server.until(lambda: server.rpcs().count("GET") == 2)
                await connection.tx.send(call(2))
                assert await connection.rx.receive() == Response(2, {})
            asked = [(one.rpc, one.headers.get("mcp-session-id")) for one in server.asked if one.rpc != "GET"]
    assert asked == [
        ("initialize", None),
        ("notifications/initialized", "1"),
        ("tools/call", "1"),
        ("initialize", None),
        ("notifications/initialized", "2"),
        ("tools/call", "2"),
        ("tools/call", "2"),
        ("DELETE", "2"),
    ]
    again = server.asked[[one.rpc for one in server.asked].index("initialize", 1)]
    assert again.body == server.asked[0].body
    assert "mcp-protocol-version" not in again.headers


async def test_fifty_requests_in_flight_share_one_new_session() -> None:
    script = Forgetful()
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            script.known = "none"
            for number in range(1, 51):
                await connection.tx.send(call(number))
            answers = [await connection.rx.receive() for _ in range(50)]
            assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(1, 51))
            assert script.begun == 2
            assert server.rpcs().count("notifications/initialized") == 2


async def test_a_notification_is_repeated_too_and_keeps_its_place() -> None:
    script = Forgetful()
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            script.known = "none"
            for method in ("first", "second"):
                await connection.tx.send(Notification(method))
            await connection.tx.send(call(1))
            assert await connection.rx.receive() == Response(1, {})
            taken = [one.rpc for one in server.asked if one.headers.get("mcp-session-id") == "2" and one.rpc != "GET"]
            assert taken == ["notifications/initialized", "first", "second", "tools/call"]


async def test_the_handshake_is_repeated_as_far_as_it_went() -> None:
    script = Forgetful()
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await connection.tx.send(INITIALIZE)
            await connection.rx.receive()
            script.known = "none"
            await connection.tx.send(INITIALIZED)
            await server.until(lambda: "GET" in server.rpcs())
            assert server.rpcs()[:4] == ["initialize", "notifications/initialized"] * 2
            assert connection.info.session_id == "2"


async def test_whoever_gives_up_does_not_take_the_new_session_with_it() -> None:
    script, hold = Forgetful(), trio.Event()

    async def scripted(reply: Reply) -> None:
        if reply.asked.rpc == "initialize" and script.begun == 1:
            await hold.wait()
        await script(reply)

    with trio.fail_after(BOUND):
        async with serving(scripted) as server, open_transport(server.url) as connection:
            tx, rx = connection
            await shake_hands(connection, server)
            script.known = "none"
            await tx.send(call(1))
            await server.until(lambda: server.rpcs().count("initialize") == 2)
            await tx.send(call(2))
            await server.until(lambda: server.rpcs().count("tools/call") == 2)
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await server.until(lambda: "notifications/cancelled" in server.rpcs())
            hold.set()
            assert await rx.receive() == Response(2, {})
            assert script.begun == 2


async def test_the_servers_own_stream_moves_to_the_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream may be the first to get the 404; its event id is not used in the new session."""
    monkeypatch.setattr(reopening, "NO_EVENT_BACKOFF", Backoff(base=0.01, cap=60))
    numbers = count(1)
    cut = trio.Event()

    async def stream(reply: Reply) -> None:
        number = next(numbers)
        assert "last-event-id" not in reply.asked.headers
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "method": f"stream {number}"}, f"id: {number}\n")
        if number == 1:
            await cut.wait()
            await reply.end_events()
        else:
            await reply.gone()

    script = Forgetful(stream=stream)
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            assert await connection.rx.receive() == Notification("stream 1")
            script.known = "none"
            cut.set()
            assert await connection.rx.receive() == Notification("stream 2")
            assert connection.info.session_id == "2"


async def test_a_stream_that_ends_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no new session begins, the next request fails, and the connection goes on."""
    monkeypatch.setattr(reopening, "NO_EVENT_BACKOFF", Backoff(base=0.01, cap=60))
    broken = True

    async def stream(reply: Reply) -> None:
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "method": f"stream of {reply.asked.headers['mcp-session-id']}"})
        script.known = "none" if script.begun == 1 else script.known
        await reply.end_events()

    async def scripted(reply: Reply) -> None:
        again = reply.asked.rpc == "initialize" and script.begun
        await (reply.status(503) if again and broken else script(reply))

    script = Forgetful(stream=stream)
    with trio.fail_after(BOUND):
        async with serving(scripted) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            assert await connection.rx.receive() == Notification("stream of 1")
            await server.until(lambda: server.rpcs().count("initialize") == 2)
            await connection.tx.send(call(1))
            answer = await connection.rx.receive()
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, SessionExpired)
            broken = False
            await connection.tx.send(call(2))
            both = [await connection.rx.receive(), await connection.rx.receive()]
            assert Response(2, {}) in both
            assert Notification("stream of 2") in both


async def test_a_server_that_has_no_stream_and_says_404_is_left_in_peace() -> None:
    async def stream(reply: Reply) -> None:
        await reply.status(404)

    script = Forgetful(stream=stream)
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            await connection.tx.send(call(1))
            assert await connection.rx.receive() == Response(1, {})
            assert script.begun == 1


async def test_what_comes_with_the_second_answer_arrives_and_the_answer_does_not() -> None:
    script = Forgetful()

    async def scripted(reply: Reply) -> None:
        if reply.asked.rpc != "initialize" or script.begun == 0:
            await script(reply)
            return
        script.begun, script.known = 2, "2"
        await reply.begin_events(mcp_session_id="2")
        await reply.event({"jsonrpc": "2.0", "method": "hello again"})
        await reply.answer(HELLO)
        await reply.gone()  # a stream need not end with its answer

    with trio.fail_after(BOUND):
        async with serving(scripted) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            script.known = "none"
            await connection.tx.send(call(1))
            assert await connection.rx.receive() == Notification("hello again")
            assert await connection.rx.receive() == Response(1, {})
            assert connection.statistics().discarded == {}


async def answered_by(reply: Reply, result: Any, session_id: str = "2") -> None:
    await reply.result(result, mcp_session_id=session_id)


@pytest.mark.parametrize(
    ("again", "kind"),
    [
        (lambda reply: reply.status(503), HTTPStatusError),
        (lambda reply: reply.status(404), HTTPStatusError),
        (lambda reply: reply.error(-32603, 0, 200), ProtocolViolation),
        (lambda reply: reply.error(-32603, 0, 500), HTTPStatusError),
        (lambda reply: reply.close(), TransportError),
        (lambda reply: answered_by(reply, {**HELLO, "protocolVersion": "2024-11-05"}), ProtocolViolation),
        (lambda reply: answered_by(reply, {}), ProtocolViolation),
        (lambda reply: answered_by(reply, HELLO, "a b"), ProtocolViolation),
        (lambda reply: answered_by(reply, HELLO, "unknown"), SessionExpired),
    ],
)
async def test_a_session_that_cannot_be_renewed(again: Script, kind: type[TransportError]) -> None:
    """The connection goes on, and the next request tries it again."""
    script = Forgetful()

    async def scripted(reply: Reply) -> None:
        if reply.asked.rpc == "initialize" and script.begun == 1 and script.known == "none":
            await again(reply)
        else:
            await script(reply)

    with trio.fail_after(BOUND):
        async with serving(scripted) as server, open_transport(server.url) as connection:
            tx, rx = connection
            await shake_hands(connection, server)
            script.known = "none"
            for message in (call(1), Notification("note")):
                await tx.send(message)
                answer = await rx.receive()
                assert isinstance(answer, Undelivered)
                assert (answer.original, answer.outcome) == (message, "not_sent")
                assert isinstance(answer.cause, SessionExpired)
                assert isinstance(answer.cause.__cause__ or answer.cause, kind)
            script.known = "back"
            await tx.send(call(2))
            assert await rx.receive() == Response(2, {})
            assert script.begun == 2


async def test_a_handshake_that_is_never_answered_again() -> None:
    script = Forgetful()

    async def scripted(reply: Reply) -> None:
        await (reply.gone() if reply.asked.rpc == "initialize" and script.begun else script(reply))

    with trio.fail_after(BOUND):
        async with (
            serving(scripted) as server,
            open_transport(Http(server.url, idle_timeout=0.1)) as connection,
        ):
            await shake_hands(connection, server)
            script.known = "none"
            await connection.tx.send(call(1))
            answer = await connection.rx.receive()
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, SessionExpired)
