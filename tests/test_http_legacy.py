"""Streamable HTTP in the legacy era, and how a client finds out that it is: against a server of the test's own."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio
from scripted_http import Reply, Script, Server, serving

from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    HTTPStatusError,
    Notification,
    Request,
    Response,
    SessionExpired,
    Undelivered,
    open_transport,
)
from trioxport.peer import open_peer
from trioxport.transports.http import _pauses

BOUND: Final = 15.0
INITIALIZE: Final = Request(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
INITIALIZED: Final = Notification("notifications/initialized")
HELLO: Final = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}


def legacy(script: Script | None = None, session_id: str | None = "abc", stream: Script | None = None) -> Script:
    """A legacy server, which does ``script`` for all but the handshake and ``stream`` for a GET."""

    async def scripted(reply: Reply) -> None:
        asked = reply.asked
        if asked.rpc == "initialize":
            await reply.result(HELLO, **({} if session_id is None else {"mcp_session_id": session_id}))
        elif asked.rpc == "GET":
            await (reply.status(405) if stream is None else stream(reply))
        elif asked.rpc == "DELETE":
            await reply.status(200)
        elif script is not None and asked.rpc != "notifications/initialized":
            await script(reply)
        else:
            await (reply.result() if "id" in asked.message and asked.rpc else reply.status(202))

    return scripted


async def shake_hands(connection: Connection, server: Server) -> None:
    await connection.tx.send(INITIALIZE)
    assert await connection.rx.receive() == Response(0, HELLO)
    await connection.tx.send(INITIALIZED)
    await server.until(lambda: "GET" in server.rpcs())


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
    """The stream is opened again where it broke off, as soon as the server wants that."""
    monkeypatch.setattr(_pauses, "FIRST_PAUSE", 0.01)
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


def test_the_pauses_before_a_stream_is_opened_again() -> None:
    pauses = _pauses.Pauses()
    assert [pauses.after(None, heard=True), pauses.after(None, heard=True)] == [1, 1]
    assert [pauses.after(None, heard=False) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [pauses.after(0, heard=True), pauses.after(None, heard=True), pauses.after(5000, heard=True)] == [0, 0, 5]
    assert [pauses.after(0, heard=False), pauses.after(7000, heard=False)] == [1, 7]
    assert [pauses.after(10**18, heard=True), pauses.after(10**18, heard=False)] == [86400, 86400]


async def test_an_answer_is_fetched_where_its_stream_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a resumed stream breaks before its first new event: the place is kept."""
    monkeypatch.setattr(_pauses, "FIRST_PAUSE", 0.01)
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
    monkeypatch.setattr(_pauses, "FIRST_PAUSE", 0.01)

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


async def test_a_session_that_the_server_forgot() -> None:
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
        async with serving(scripted) as server, open_transport(server.url) as connection:
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


# Which era it is.


@pytest.mark.parametrize(
    "refusal",
    [
        lambda reply: reply.status(400, b"Bad Request: no session", content_type="text/plain"),
        lambda reply: reply.status(400),
        lambda reply: reply.status(404, b"<h1>", content_type="text/html"),
        lambda reply: reply.status(405),
        lambda reply: reply.error(-32600, "server-error", 400),
        lambda reply: reply.error(-32601, None, 404),
        lambda reply: reply.error(-32601, reply.asked.message["id"], 200),
    ],
)
async def test_a_server_that_does_not_know_the_modern_era_is_legacy(refusal: Any) -> None:
    async def scripted(reply: Reply) -> None:
        await (refusal(reply) if reply.asked.rpc == "server/discover" else legacy()(reply))

    with trio.fail_after(BOUND):
        async with serving(scripted) as server:
            async with open_transport(server.url) as connection, open_peer(connection) as peer:
                negotiated = await peer.negotiate(client_info={"name": "c", "version": "1"})
                assert (negotiated.era, negotiated.protocol_version) == ("legacy", "2025-06-18")
                assert await peer.request("tools/list") == {}
            first, second = server.asked[:2]
            assert (first.rpc, first.headers["mcp-method"]) == ("server/discover", "server/discover")
            assert (second.rpc, "mcp-protocol-version" in second.headers) == ("initialize", False)
            assert server.asked[-1].rpc == "DELETE"


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_that_fails_is_of_no_era(status: int) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(status)

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection, open_peer(connection) as peer:
            with pytest.raises(HTTPStatusError):
                await peer.negotiate(client_info={"name": "c", "version": "1"})
            assert server.rpcs() == ["server/discover"]


async def test_an_initialize_in_vain_leaves_the_modern_era_open() -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "initialize":
            await reply.error(-32022, reply.asked.message["id"], 400)
        else:
            await reply.result()

    modern = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(INITIALIZE)
            assert isinstance(await rx.receive(), ErrorResponse)
            await tx.send(Request(1, "tools/list", modern))
            assert await rx.receive() == Response(1, {})
            headers = server.asked[-1].headers
            assert (headers["mcp-protocol-version"], headers["mcp-method"]) == ("2026-07-28", "tools/list")
