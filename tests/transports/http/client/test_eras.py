"""Detection of a server's era by a client of Streamable HTTP, and the cache of it."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio

from tests.support.legacy_script import INITIALIZE, legacy
from tests.support.scripted_http import Reply, Script, serving
from trioxport import ErrorResponse, HTTPStatusError, Request, Response, Undelivered, open_transport
from trioxport.abc import Era
from trioxport.peer import open_peer
from trioxport.transports.http.client import era_cache

BOUND: Final = 15.0
CLIENT: Final = {"name": "c", "version": "1"}
META: Final = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
DISCOVERED: Final = {"supportedVersions": ["2026-07-28"], "capabilities": {}}


async def modern(reply: Reply) -> None:
    if reply.asked.rpc == "initialize":
        await reply.error(-32022, reply.asked.message["id"], 400)
    elif reply.asked.method != "POST":
        await reply.status(405)
    else:
        await reply.result(DISCOVERED if reply.asked.rpc == "server/discover" else None)


async def simply_legacy(reply: Reply) -> None:
    await (reply.status(400) if reply.asked.rpc == "server/discover" else legacy()(reply))


async def era_of(url: str) -> tuple[Era | None, Era]:
    """The era of a server as it is known on connecting, and as it is found."""
    async with open_transport(url) as connection, open_peer(connection) as peer:
        before = connection.info.era
        negotiated = await peer.negotiate(client_info=CLIENT)
        assert await peer.request("tools/list") == {}
        assert connection.info.era == negotiated.era
        return before, negotiated.era


# Detection.


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


# The cache.


async def test_a_legacy_server_is_asked_once() -> None:
    with trio.fail_after(BOUND):
        async with serving(simply_legacy) as server:
            assert await era_of(server.url) == (None, "legacy")
            asked = len(server.asked)
            assert await era_of(server.url) == ("legacy", "legacy")
            assert server.rpcs().count("server/discover") == 1
            assert server.rpcs()[asked] == "initialize"
            assert await era_of(server.url + "?other=query") == ("legacy", "legacy")
            assert await era_of(server.url + "/other/path") == (None, "legacy")


async def test_a_modern_server_is_known_as_such() -> None:
    with trio.fail_after(BOUND):
        async with serving(modern) as server:
            assert await era_of(server.url) == (None, "modern")
            assert await era_of(server.url) == ("modern", "modern")
            assert "initialize" not in server.rpcs()


@pytest.mark.parametrize("refusal", [None, lambda reply: reply.status(405), lambda reply: reply.error(-32601, 1, 200)])
async def test_a_legacy_server_that_became_a_modern_one(refusal: Script | None) -> None:
    async def scripted(reply: Reply) -> None:
        await (refusal if refusal is not None and reply.asked.rpc == "initialize" else modern)(reply)

    with trio.fail_after(BOUND):
        async with serving(scripted) as server:
            era_cache.learn(server.url, "legacy")
            assert await era_of(server.url) == ("legacy", "modern")
            assert await era_of(server.url) == ("modern", "modern")


async def test_a_legacy_server_that_refuses_to_be_one_is_known_no_longer() -> None:
    async def script(reply: Reply) -> None:
        await reply.status(405)

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            era_cache.learn(server.url, "legacy")
            async with open_transport(server.url) as (tx, rx):
                await tx.send(INITIALIZE)
                assert isinstance(await rx.receive(), Undelivered)
            assert server.rpcs() == ["initialize", "GET"]
            assert era_cache.known(server.url) is None


async def test_a_modern_server_that_became_a_legacy_one() -> None:
    with trio.fail_after(BOUND):
        async with serving(simply_legacy) as server:
            era_cache.learn(server.url, "modern")
            assert await era_of(server.url) == ("modern", "legacy")
            assert await era_of(server.url) == ("legacy", "legacy")


async def test_a_legacy_server_in_trouble_stays_one() -> None:
    """A failure says nothing of the era."""

    async def script(reply: Reply) -> None:
        await reply.status(503)

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            era_cache.learn(server.url, "legacy")
            with pytest.raises(HTTPStatusError):
                await era_of(server.url)
            assert server.rpcs() == ["initialize"]
            assert era_cache.known(server.url) == "legacy"


@pytest.mark.parametrize(
    ("refusal", "era"),
    [
        (lambda reply: reply.status(400), "legacy"),
        (lambda reply: reply.status(404, b"<h1>", content_type="text/html"), "legacy"),
        (lambda reply: reply.error(-32000, None, 400), "legacy"),
        (lambda reply: reply.error(-32020, 1, 400), "modern"),
        (lambda reply: reply.error(-32022, 1, 400), "modern"),
        (lambda reply: reply.error(-32601, 1, 404), "modern"),
        (lambda reply: reply.status(401), None),
        (lambda reply: reply.status(500), None),
    ],
)
async def test_the_first_request_tells_the_era(refusal: Script, era: Era | None) -> None:
    with trio.fail_after(BOUND):
        async with serving(refusal) as server, open_transport(server.url) as connection:
            await connection.tx.send(Request(1, "tools/list", META))
            assert isinstance(await connection.rx.receive(), ErrorResponse)
            assert connection.info.era == era


async def test_who_does_not_know_what_every_modern_server_knows_is_legacy() -> None:
    async def script(reply: Reply) -> None:
        await reply.error(-32601, 1, 404)

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await connection.tx.send(Request(1, "server/discover", META))
            assert isinstance(await connection.rx.receive(), ErrorResponse)
            assert connection.info.era == "legacy"


async def test_a_session_goes_on_whatever_is_refused_later() -> None:
    async def script(reply: Reply) -> None:
        await reply.status(400)

    with trio.fail_after(BOUND):
        async with serving(legacy(script)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(INITIALIZE)
            await rx.receive()
            await tx.send(Request(1, "tools/list"))
            assert isinstance(await rx.receive(), Undelivered)
            assert era_cache.known(server.url) == "legacy"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(era_cache, "MAX_ENDPOINTS", 2)
    for host in ("a", "b"):
        era_cache.learn(f"https://{host}/mcp", "legacy")
    assert era_cache.known("https://A/mcp?x=1") == "legacy"
    era_cache.learn("https://c/mcp", "sse")
    known = [era_cache.known(f"https://{host}/mcp") for host in ("a", "b", "c")]
    assert known == ["legacy", None, "sse"]
    assert era_cache.known("https://a:8443/mcp") is None
    assert era_cache.known("http://a/mcp") is None
