"""``Peer.negotiate`` against servers of both eras and of none."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    Frame,
    Message,
    Notification,
    ProtocolViolation,
    Request,
    RequestTimeout,
    Response,
    VersionMismatch,
    open_transport,
    serve_transport,
)
from trioxport._core.nursery import open_bare_nursery
from trioxport.peer import JSONRPCError, Negotiated, Peer, negotiation, open_peer

CLIENT: Final = {"name": "test", "version": "1"}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
DISCOVERED: Final = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28", "2099-01-01"],
    "capabilities": {"tools": {}},
    "instructions": "be kind",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "modern", "version": "2"}},
}
INITIALIZED: Final = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "legacy", "version": "3"},
}
UNKNOWN: Final = (-32601, "Method not found")

Answer = Callable[[Request], Message | None]
_names = itertools.count()


def result(value: Any) -> Answer:
    return lambda request: Response(request.id, value)


def error(code: int, message: str, data: Any = None) -> Answer:
    return lambda request: ErrorResponse(request.id, code, message, data)


def silence(request: Request) -> None:
    return None


class Server:
    """A server that answers each method as scripted, and notes the messages."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.received: list[Message] = []

    @property
    def methods(self) -> list[str]:
        return [message.method for message in self.received if isinstance(message, Request | Notification)]

    async def __call__(self, connection: Connection) -> None:
        async for message in connection.rx:
            self.received.append(message)
            if isinstance(message, Request):
                answer = self.answers.get(message.method.rpartition("/")[2], error(*UNKNOWN))(message)
                if answer is not None:
                    await connection.tx.send(answer)


@asynccontextmanager
async def talking_to(server: Any) -> AsyncGenerator[Peer]:
    async with open_bare_nursery() as tasks:
        target = f"memory://negotiation-{next(_names)}"
        await tasks.start(serve_transport, server, target)
        async with open_transport(target) as connection, open_peer(connection) as peer:
            yield peer
        tasks.cancel_scope.cancel()


async def negotiate(server: Server, **options: Any) -> Negotiated:
    async with talking_to(server) as peer:
        negotiated = await peer.negotiate(client_info=CLIENT, **options)
        assert peer.connection.info.era == negotiated.era
        assert peer.connection.info.protocol_version == negotiated.protocol_version
        with trio.move_on_after(5), pytest.raises(JSONRPCError):
            await peer.request("later", {"a": 1})
    return negotiated


def params_of(message: Message) -> Mapping[str, Any]:
    assert isinstance(message, Request) and isinstance(message.params, dict)
    return message.params


@pytest.mark.parametrize("era", [None, "modern"])
async def test_a_modern_server(era: Any) -> None:
    server = Server(discover=result(DISCOVERED))
    assert await negotiate(server, era=era) == Negotiated(
        "modern", "2026-07-28", {"name": "modern", "version": "2"}, {"tools": {}}, "be kind"
    )
    assert server.methods == ["server/discover", "later"]
    assert params_of(server.received[0]) == {"_meta": META}
    assert params_of(server.received[1]) == {"a": 1, "_meta": META}


@pytest.mark.parametrize(
    ("era", "discover"),
    [
        pytest.param(None, error(*UNKNOWN), id="unknown method"),
        pytest.param(None, error(-32602, "Invalid request parameters"), id="invalid parameters"),
        pytest.param(None, error(0, "not initialized"), id="a code of its own"),
        pytest.param(None, result({}), id="an empty result"),
        pytest.param(None, result([1]), id="an array"),
        pytest.param(None, result({"supportedVersions": "all"}), id="versions that are none"),
        pytest.param(None, result({"supportedVersions": ["2025-11-25"]}), id="only legacy versions"),
        pytest.param("legacy", result(DISCOVERED), id="told to"),
    ],
)
async def test_a_legacy_server(era: Any, discover: Answer) -> None:
    server = Server(discover=discover, initialize=result(INITIALIZED))
    assert await negotiate(server, era=era, capabilities={"roots": {}}) == Negotiated(
        "legacy", "2025-06-18", {"name": "legacy", "version": "3"}, {"tools": {"listChanged": True}}, None
    )
    if era == "legacy":
        server.received.insert(0, Request(0, "server/discover"))
    assert server.methods == ["server/discover", "initialize", "notifications/initialized", "later"]
    assert params_of(server.received[1]) == {
        "protocolVersion": "2025-11-25",
        "capabilities": {"roots": {}},
        "clientInfo": CLIENT,
    }
    assert params_of(server.received[3]) == {"a": 1}


async def test_a_silent_legacy_server(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(discover=silence, initialize=result(INITIALIZED))
    negotiated = await negotiate(server, probe_timeout=2)
    assert negotiated.era == "legacy"
    assert server.methods[:3] == ["server/discover", "notifications/cancelled", "initialize"]


async def test_a_modern_server_that_is_slow_to_start(autojump_clock: trio.testing.MockClock) -> None:
    answers = iter([silence, result(DISCOVERED)])
    server = Server(discover=lambda request: next(answers)(request), initialize=error(-32601, "Use 2026-07-28"))
    negotiated = await negotiate(server)
    assert negotiated.era == "modern"
    assert server.methods[:4] == ["server/discover", "notifications/cancelled", "initialize", "server/discover"]


async def test_a_silent_server_that_refuses_the_handshake(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(discover=silence, initialize=error(-32603, "out of order"))
    async with talking_to(server) as peer:
        with pytest.raises(JSONRPCError, match="out of order"):
            await peer.negotiate(client_info=CLIENT)


async def test_a_server_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(discover=silence, initialize=silence)
    async with talking_to(server) as peer:
        with pytest.raises(RequestTimeout, match="initialize"):
            await peer.negotiate(client_info=CLIENT)
        with pytest.raises(RequestTimeout, match="discover"):
            await peer.negotiate(client_info=CLIENT, era="modern")
    assert server.methods.count("notifications/cancelled") == 2  # never of initialize


async def test_an_unsupported_version_is_retried_with_one_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "MODERN_VERSIONS", ("2099-01-01", "2026-07-28"))
    answers = iter([error(-32022, "Unsupported", {"supported": ["2026-07-28"]}), result(DISCOVERED)])
    server = Server(discover=lambda request: next(answers)(request))
    async with talking_to(server) as peer:
        await peer.negotiate(client_info=CLIENT)
    asked = [params_of(message)["_meta"]["io.modelcontextprotocol/protocolVersion"] for message in server.received]
    assert asked == ["2099-01-01", "2026-07-28"]


@pytest.mark.parametrize("era", [None, "modern"])
@pytest.mark.parametrize(
    ("discover", "theirs"),
    [
        pytest.param(error(-32022, "no", {"supported": ["2099-01-01"]}), "2099-01-01", id="refused"),
        pytest.param(error(-32022, "no", {"supported": ["2026-07-28"]}), "2026-07-28", id="refused all the same"),
        pytest.param(error(-32022, "no", {"supported": ["2025-11-25"]}), "2025-11-25", id="refused, naming legacy"),
        pytest.param(error(-32022, "no"), "none", id="refused without naming any"),
        pytest.param(result({**DISCOVERED, "supportedVersions": ["2099-01-01"]}), "2099-01-01", id="discovered"),
    ],
)
async def test_no_version_in_common(era: Any, discover: Answer, theirs: str) -> None:
    server = Server(discover=discover, initialize=result(INITIALIZED))
    async with talking_to(server) as peer:
        with pytest.raises(VersionMismatch, match=f"the server has {theirs}; this side has 2026-07-28"):
            await peer.negotiate(client_info=CLIENT, era=era)
    assert server.methods == ["server/discover"]


@pytest.mark.parametrize("code", [-32020, -32021])
@pytest.mark.parametrize("era", [None, "modern"])
async def test_another_modern_error_is_raised(era: Any, code: int) -> None:
    server = Server(discover=error(code, "no"), initialize=result(INITIALIZED))
    async with talking_to(server) as peer:
        with pytest.raises(JSONRPCError, match="no"):
            await peer.negotiate(client_info=CLIENT, era=era)
    assert server.methods == ["server/discover"]


@pytest.mark.parametrize("code", [-32600, -32602, -32603, -32000])
async def test_a_refusal_that_says_nothing_of_the_version_is_raised_as_it_is(code: int) -> None:
    server = Server(discover=error(code, "not under this name"), initialize=result(INITIALIZED))
    async with talking_to(server) as peer:
        with pytest.raises(JSONRPCError, match="not under this name") as caught:
            await peer.negotiate(client_info=CLIENT, era="modern")
    assert caught.value.code == code
    assert "legacy era" in caught.value.__notes__[0]
    assert server.methods == ["server/discover"]


@pytest.mark.parametrize("era", [None, "legacy"], ids=["never met", "legacy the last time"])
@pytest.mark.parametrize(
    "initialize",
    [error(-32022, "Unsupported protocol version", {"supported": ["2026-07-28"]}), error(*UNKNOWN)],
    ids=["names its versions", "knows no initialize"],
)
async def test_the_refusal_of_a_modern_server_is_raised(era: Any, initialize: Answer) -> None:
    server = Server(discover=error(-32602, "clientCapabilities is missing"), initialize=initialize)
    async with talking_to(server) as peer:
        peer.connection.info.era = era
        with pytest.raises(JSONRPCError, match="clientCapabilities is missing") as caught:
            await peer.negotiate(client_info=CLIENT)
    assert caught.value.code == -32602
    assert caught.value.hint is None


@pytest.mark.parametrize("info", [{}, {"name": "x"}, {"name": "x", "version": 1}])
async def test_a_client_names_itself_and_its_version(info: Any) -> None:
    server = Server(discover=result(DISCOVERED))
    async with talking_to(server) as peer:
        with pytest.raises(TypeError, match=r"client_info\['\w+'\] has to be a text, and is "):
            await peer.negotiate(client_info=info)
    assert server.methods == []


async def test_a_refusal_to_a_client_that_has_not_negotiated_says_so() -> None:
    server = Server(discover=result(DISCOVERED), list=error(-32602, "Invalid request parameters"))
    async with talking_to(server) as peer:
        with pytest.raises(JSONRPCError) as caught:
            await peer.request("tools/list")
        assert str(caught.value) == (
            "Invalid request parameters (code -32602). This client has not negotiated with the server: "
            "await peer.negotiate(client_info=...) first"
        )
        await peer.negotiate(client_info=CLIENT)
        with pytest.raises(JSONRPCError) as caught:
            await peer.request("tools/list")
        assert str(caught.value) == "Invalid request parameters (code -32602)"


async def test_era_modern_never_falls_back() -> None:
    server = Server(initialize=result(INITIALIZED))
    async with talking_to(server) as peer:
        with pytest.raises(VersionMismatch, match="does not speak 2026-07-28: it refused"):
            await peer.negotiate(client_info=CLIENT, era="modern")
        server.answers["discover"] = result({"supportedVersions": ["2025-11-25"]})
        with pytest.raises(VersionMismatch, match="the server has 2025-11-25"):
            await peer.negotiate(client_info=CLIENT, era="modern")
    assert server.methods == ["server/discover", "server/discover"]


@pytest.mark.parametrize(
    ("initialize", "expected", "text"),
    [
        pytest.param(
            result({**INITIALIZED, "protocolVersion": "1.0"}), VersionMismatch, "has 1.0; .* 2025-11-25", id="version"
        ),
        pytest.param(
            error(-32602, "no", {"supported": ["1.0"]}), VersionMismatch, "has 1.0; .* 2025-11-25", id="refusal"
        ),
        pytest.param(error(-32603, "broken"), JSONRPCError, "broken", id="error"),
        pytest.param(result("hello"), ProtocolViolation, "names no version", id="garbage"),
        pytest.param(result({"protocolVersion": 1}), ProtocolViolation, "names no version", id="no version"),
    ],
)
async def test_a_handshake_that_fails(initialize: Answer, expected: type[Exception], text: str) -> None:
    server = Server(initialize=initialize)
    async with talking_to(server) as peer:
        with pytest.raises(expected, match=text):
            await peer.negotiate(client_info=CLIENT)
    assert server.methods == ["server/discover", "initialize"]


async def test_a_legacy_server_without_a_description() -> None:
    server = Server(initialize=result({"protocolVersion": "2024-11-05", "capabilities": 1, "instructions": 2}))
    assert await negotiate(server) == Negotiated("legacy", "2024-11-05", {}, {}, None)


@pytest.mark.parametrize("lost_at", ["server/discover", "initialize"])
async def test_a_connection_lost_midway(lost_at: str) -> None:
    async def vanish(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            if message.method == lost_at:
                connection._supervisor.abort()
                await trio.sleep_forever()
            await connection.tx.send(ErrorResponse(message.id, *UNKNOWN))

    async with talking_to(vanish) as peer:
        with pytest.raises(ConnectionLost):
            await peer.negotiate(client_info=CLIENT)


async def test_an_answer_that_cannot_be_decoded_counts_as_legacy() -> None:
    async def garble(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                if message.method == "server/discover":
                    await connection.tx._frames.send(  # type: ignore[attr-defined]  # the frames below the connection
                        Frame(f'{{"jsonrpc":"2.0","id":{message.id},"result":NaN}}'.encode())
                    )
                else:
                    await connection.tx.send(Response(message.id, INITIALIZED))

    async with talking_to(garble) as peer:
        with trio.fail_after(4):
            assert (await peer.negotiate(client_info=CLIENT)).era == "legacy"


async def test_in_the_modern_era_the_callers_meta_wins() -> None:
    server = Server(discover=result(DISCOVERED), work=lambda request: Response(request.id, request.params))
    async with talking_to(server) as peer:
        await peer.negotiate(client_info=CLIENT)
        capabilities = {"io.modelcontextprotocol/clientCapabilities": {"roots": {}}, "traceparent": "00-1"}
        answered = await peer.request("work", {"_meta": capabilities}, on_progress=print)
        assert answered == {"_meta": {**META, "progressToken": 2, **capabilities}}
        assert await peer.request("work") == {"_meta": META}
