"""The client of Streamable HTTP in the legacy era, against a scripted server."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from tests.support.legacy_script import INITIALIZE, legacy, shake_hands
from tests.support.scripted_http import Reply, serving
from trioxport import (
    Backoff,
    ConnectionLost,
    Notification,
    Request,
    Response,
    SessionExpired,
    Undelivered,
    open_transport,
)
from trioxport.transports.http import Http
from trioxport.transports.http.client import reopening

BOUND: Final = 15.0


async def test_a_session_from_its_beginning_to_its_end() -> None:
    with trio.fail_after(BOUND):
        async with serving(legacy()) as server:
            async with open_transport(server.url) as connection:
                await shake_hands(connection, server)
                await connection.tx.send(Request(1, "tools/call", {"name": "x"}))
                assert await connection.rx.receive() == Response(1, {})
                info = connection.info
                assert (info.era, info.protocol_version, info.session_id) == ("legacy", "2025-06-18", "abc")
            asked = server.asked
    assert [one.rpc for one in asked] == ["initialize", "notifications/initialized", "GET", "tools/call", "DELETE"]
    first, *others = asked
    assert "mcp-session-id" not in first.headers
    assert "mcp-protocol-version" not in first.headers
    for one in others:
        assert (one.headers["mcp-session-id"], one.headers["mcp-protocol-version"]) == ("abc", "2025-06-18")
    for one in asked:
        assert "mcp-method" not in one.headers
        assert "mcp-name" not in one.headers
    assert asked[2].headers["accept"] == "text/event-stream"


async def test_a_server_without_sessions_has_nothing_to_end() -> None:
    with trio.fail_after(BOUND):
        async with serving(legacy(session_id=None)) as server:
            async with open_transport(server.url) as connection:
                await shake_hands(connection, server)
                assert connection.info.session_id is None
            assert server.rpcs() == ["initialize", "notifications/initialized", "GET"]
            assert all("mcp-session-id" not in asked.headers for asked in server.asked)


async def test_a_message_is_accepted_with_the_status_though_the_response_has_no_end(jumping_clock: MockClock) -> None:
    """The messages behind it are sent."""
    script = legacy()

    async def answer_notifications_by_streams(reply: Reply) -> None:
        if reply.asked.rpc == "notifications/note":
            await reply.begin_events()
            await reply.gone()
        else:
            await script(reply)

    with trio.fail_after(BOUND):
        async with serving(answer_notifications_by_streams) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            await connection.tx.send(Notification("notifications/note"))
            await connection.tx.send(Request(1, "tools/call", {"name": "x"}))
            assert await connection.rx.receive() == Response(1, {})


@pytest.mark.parametrize("session_id", ["a b", "a\tb", "é", "a\x7f"])
async def test_a_session_id_that_is_none(session_id: str) -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(legacy(session_id=session_id.encode().decode("latin-1"))) as server,
            open_transport(server.url) as connection,
        ):
            await connection.tx.send(INITIALIZE)
            answer = await connection.rx.receive()
            assert isinstance(answer, Undelivered)
            assert connection.info.session_id is None


async def test_the_server_asks_on_a_requests_stream_and_is_answered() -> None:
    answered = trio.Event()

    async def script(reply: Reply) -> None:
        if not reply.asked.rpc:
            assert reply.asked.message["result"] == {"roots": []}
            await reply.status(202)
            answered.set()
            return
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "id": 7, "method": "roots/list"})
        await answered.wait()
        await reply.answer("done")
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with serving(legacy(script)) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            await connection.tx.send(Request(1, "tools/call", {}))
            assert await connection.rx.receive() == Request(7, "roots/list")
            await connection.tx.send(Response(7, {"roots": []}))
            assert await connection.rx.receive() == Response(1, "done")


async def test_the_server_speaks_first_on_its_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is opened again from its last event, after the delay that the server asks for."""
    monkeypatch.setattr(reopening, "NO_EVENT_BACKOFF", Backoff(base=0.01, cap=60))
    resumed: list[str | None] = []

    async def stream(reply: Reply) -> None:
        resumed.append(reply.asked.headers.get("last-event-id"))
        number = len(resumed)
        if number == 3:
            await reply.status(503)
            return
        await reply.begin_events()
        if number == 1:
            await reply.event({"jsonrpc": "2.0", "id": 7, "method": "ping"}, "retry: 0\nid: 1\n")
            await reply.event({"jsonrpc": "2.0", "id": 99, "result": {}}, "id: 2\n")
            await reply.chunk(b"id: 3\ndata: {")
            await reply.close()
        elif number == 2:
            reply.reset()
        else:
            await reply.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            await reply.gone()

    with trio.fail_after(BOUND):
        async with serving(legacy(stream=stream)) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            assert await connection.rx.receive() == Request(7, "ping")
            assert await connection.rx.receive() == Notification("notifications/tools/list_changed")
            assert resumed == [None, "2", "2", "2"]
            assert connection.statistics().discarded == {"ProtocolViolation": 1}
            await connection.tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await connection.rx.receive()


def test_the_delays_before_a_stream_is_opened_again() -> None:
    waits = reopening.ReopenDelays()
    good, empty = partial(waits.after, new_event=True, useful=True), partial(waits.after, new_event=False, useful=False)
    useless = partial(waits.after, new_event=True, useful=False)
    assert [good(None), good(None)] == [1, 1]
    assert [empty(None) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [good(0), good(None), good(5000)] == [0.1, 0.1, 5]
    assert [empty(0), empty(7000), empty(0, retry_after=30)] == [1, 7, 30]
    assert [good(10**18), empty(10**18), empty(0, retry_after=1e9)] == [86400, 86400, 86400]
    assert [useless(0) for _ in range(10)] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60])
    assert [useless(90_000), good(0)] == [90, 0.1]


async def test_an_answer_is_fetched_where_its_stream_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed stream that breaks before its first new event keeps the last event id."""
    monkeypatch.setattr(reopening, "NO_EVENT_BACKOFF", Backoff(base=0.01, cap=60))
    resumed: list[str] = []

    async def stream(reply: Reply) -> None:
        if "last-event-id" not in reply.asked.headers:
            await reply.status(405)
            return
        resumed.append(reply.asked.headers["last-event-id"])
        number = len(resumed)
        if number == 3:
            await reply.status(503)
            return
        await reply.begin_events()
        if number == 1:
            await reply.event({"jsonrpc": "2.0", "method": "more"}, "id: 2\n")
            await reply.end_events()
        elif number == 2:
            reply.reset()
        else:
            await reply.event({"jsonrpc": "2.0", "id": 1, "result": "late"}, "id: 3\n")
            await reply.end_events()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(b"id: 1\nretry: 0\ndata:\n\n")
        await reply.close()

    with trio.fail_after(BOUND):
        async with serving(legacy(script, stream=stream)) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            await connection.tx.send(Request(1, "tools/call", {}))
            assert await connection.rx.receive() == Notification("more")
            assert await connection.rx.receive() == Response(1, "late")
            assert resumed == ["1", "2", "2", "2"]
            session = [asked.headers["mcp-session-id"] for asked in server.asked if asked.rpc == "GET"]
            assert set(session) == {"abc"}


@pytest.mark.parametrize("how", ["405", "nothing new", "no place"])
async def test_an_answer_that_cannot_be_fetched(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopening, "NO_EVENT_BACKOFF", Backoff(base=0.01, cap=60))

    async def stream(reply: Reply) -> None:
        if how == "405" or "last-event-id" not in reply.asked.headers:
            await reply.status(405)
        else:
            await reply.begin_events()
            await reply.end_events()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(b"data:\n\n" if how == "no place" else b"id: 1\ndata:\n\n")
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with serving(legacy(script, stream=stream)) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            await connection.tx.send(Request(1, "tools/call", {}))
            answer = await connection.rx.receive()
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, ConnectionLost)
            assert answer.outcome == "unknown"
            assert server.rpcs().count("GET") == {"405": 2, "nothing new": 5, "no place": 1}[how]


async def test_a_cancellation_is_told_and_the_stream_is_left() -> None:
    gone = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "notifications/cancelled":
            await reply.status(202)
            return
        await reply.begin_events()
        await reply.gone()
        gone.set()

    cancel = Notification("notifications/cancelled", {"requestId": 1})
    with trio.fail_after(BOUND):
        async with serving(legacy(script)) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)
            await connection.tx.send(Request(1, "tools/call", {}))
            await server.until(lambda: "tools/call" in server.rpcs())
            await connection.tx.send(cancel)
            await gone.wait()
            assert server.rpcs()[-1] == "notifications/cancelled"


async def test_a_session_that_the_server_forgot_is_the_applications_to_renew_if_it_wants() -> None:
    async def script(reply: Reply) -> None:
        known = reply.asked.headers.get("mcp-session-id") == "new"
        await (reply.result() if known else reply.error(-32600, None, 404))

    names = iter(["old", "new"])

    async def scripted(reply: Reply) -> None:
        if reply.asked.rpc == "initialize":
            assert "mcp-session-id" not in reply.asked.headers
            await legacy(session_id=next(names))(reply)
        else:
            await legacy(script)(reply)

    with trio.fail_after(BOUND):
        async with (
            serving(scripted) as server,
            open_transport(Http(server.url, renew_session=False)) as connection,
        ):
            tx, rx = connection
            await shake_hands(connection, server)
            await tx.send(Request(1, "tools/call", {}))
            answer = await rx.receive()
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, SessionExpired)
            assert (answer.outcome, answer.cause.retryable) == ("not_sent", True)
            await tx.send(Notification("note"))
            told = await rx.receive()
            assert isinstance(told, Undelivered)
            assert isinstance(told.cause, SessionExpired)
            await shake_hands(connection, server)
            await tx.send(Request(1, "tools/call", {}))
            assert await rx.receive() == Response(1, {})


@pytest.mark.parametrize("status", [204, 405, 404, 500])
async def test_a_server_that_does_not_want_to_know_of_the_end(status: int) -> None:
    async def scripted(reply: Reply) -> None:
        await (reply.status(status) if reply.asked.rpc == "DELETE" else legacy()(reply))

    with trio.fail_after(BOUND):
        async with serving(scripted) as server, open_transport(server.url) as connection:
            await shake_hands(connection, server)


@pytest.mark.parametrize("how", ["silent", "reset"])
async def test_the_end_of_a_session_is_bounded(how: str) -> None:
    async def scripted(reply: Reply) -> None:
        if reply.asked.rpc != "DELETE":
            await legacy()(reply)
        elif how == "reset":
            reply.reset()
        else:
            await reply.gone()

    with trio.fail_after(BOUND):
        async with serving(scripted) as server:
            async with open_transport(server.url, close_timeout=0.2) as connection:
                await shake_hands(connection, server)
                begin = trio.current_time()
            assert trio.current_time() - begin < 2
