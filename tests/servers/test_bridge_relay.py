"""The relay of a bridge: the headers and identity of clients, and messages that one side does not take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import httpx2
import pytest
import trio

from tests.support.bridges import (
    INITIALIZED,
    MODERN,
    VERSION,
    PlayedServer,
    bridged,
    legacy_client,
    legacy_pair,
    modern,
    next_request,
)
from trioxport import Connection, ErrorResponse, Http, Notification, Request, Response, open_transport, serve_transport
from trioxport.frames import Limits
from trioxport.messages import Incoming
from trioxport.metadata import metadata_of
from trioxport.peer import open_peer
from trioxport.servers.bridge import Sharing, serve_bridge

HTTP = "http://127.0.0.1:0/mcp"


async def handler(connection: Connection) -> None:
    """Answers a request with the headers that came with it."""
    async for message in connection.rx:
        if isinstance(message, Request):
            headers = dict(metadata_of(message).get("headers", {}))
            discovered = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
            await connection.tx.send(Response(message.id, {"resultType": "complete", "headers": headers, **discovered}))


@pytest.mark.parametrize("sharing", ["shared", "per-session"])
async def test_headers_of_the_list_reach_the_server_and_no_others(sharing: Sharing) -> None:
    async with trio.open_nursery() as nursery:
        [behind] = await nursery.start(partial(serve_transport, handler, HTTP))
        serve = partial(serve_bridge, HTTP, behind, sharing=sharing, forward_headers=["X-Tenant"])
        [url] = await nursery.start(serve)

        async def headers_of(tenant: str) -> Mapping[str, str]:
            client = Http(url, headers={"X-Tenant": tenant, "X-Secret": "s", "Authorization": "Bearer t"})
            async with open_transport(client) as connection, open_peer(connection) as peer:
                await peer.negotiate(client_info={"name": "c", "version": "1"}, era="modern")
                result = await peer.request("tools/list")
            return {name.lower(): value for name, value in result["headers"].items()}

        for tenant in ("a", "b"):
            seen = await headers_of(tenant)
            assert seen["x-tenant"] == tenant
            assert not {"x-secret", "authorization"} & seen.keys()
        nursery.cancel_scope.cancel()


async def test_an_answer_that_is_too_large_for_the_client_is_an_error() -> None:
    """It is as long as the server's connection allows, and the client's id is longer than the bridge's."""
    server = PlayedServer()
    limits = Limits(max_message_size=2000)
    async with bridged(server, limits=limits) as target, open_transport(target) as client:
        await client.tx.send(modern("i" * 500, "call"))
        played = await server.modern()
        request = await next_request(played)
        await played.tx.send(Response(request.id, "x" * 1900))
        answer = await client.rx.receive()
        assert isinstance(answer, ErrorResponse)
        assert answer.message.startswith("server: ")


async def test_a_question_that_is_too_large_for_the_client_is_refused() -> None:
    server = PlayedServer()
    limits = Limits(max_message_size=2000)
    async with bridged(server, limits=limits) as target, trio.open_nursery() as nursery:
        played: list[Connection] = []

        async def play() -> None:
            played.append(await server.legacy())

        nursery.start_soon(play)
        async with legacy_client(target, sampling={}) as client:
            await client.tx.send(Request(1, "call"))
            call = await next_request(played[0])
            text = "\ud800" * 300  # its payload grows when it is encoded anew
            question = Request(5, "sampling/createMessage", {"text": text, "more": "x" * 150})
            await played[0].tx.send(question)
            seen: list[Incoming] = [await played[0].rx.receive()]
            assert isinstance(seen[0], ErrorResponse | Response)
            await played[0].tx.send(Response(call.id, "done"))


async def test_messages_of_a_client_to_a_server_that_is_gone() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, one, _):
        await played.aclose()
        await one.tx.send(Notification("notifications/roots/list_changed"))
        await one.tx.send(Response("unknown", {}))
        async with trio.open_nursery() as nursery:
            again: list[Connection] = []

            async def play() -> None:
                again.append(await server.legacy())

            nursery.start_soon(play)
            await one.tx.send(Request(2, "call"))
        while True:
            request = await next_request(again[0])
            if request.method == "call":
                break
        await again[0].tx.send(Response(request.id, "done"))
        messages = [await one.rx.receive()]
        while not isinstance(messages[-1], Response):
            messages.append(await one.rx.receive())
        assert messages[-1] == Response(2, "done")
        kinds = INITIALIZED["capabilities"]
        assert isinstance(kinds, dict)
        assert len(messages) - 1 == sum("listChanged" in kind for kind in kinds.values())


async def test_a_modern_request_to_initialize_is_refused() -> None:
    server = PlayedServer()
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(partial(serve_bridge, HTTP, server.switch))
        accepted = "application/json, text/event-stream"
        headers = {"mcp-protocol-version": VERSION, "mcp-method": "initialize", "accept": accepted}
        async with httpx2.AsyncClient() as http:
            body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"_meta": MODERN}}
            answer = await http.post(url, json=body, headers=headers)
        assert answer.status_code == 404
        assert answer.json()["error"] == {"code": -32601, "message": "Method not found"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sharing", ["shared", "per-session"])
async def test_a_server_that_does_not_read_is_the_error_of_a_message(
    sharing: Sharing, autojump_clock: trio.testing.MockClock
) -> None:
    server = PlayedServer()
    async with bridged(server, sharing=sharing) as target, trio.open_nursery() as nursery:

        async def play() -> None:
            await server.legacy()

        nursery.start_soon(play)
        async with legacy_client(target) as client:
            started = trio.current_time()

            async def send_all() -> None:
                for number in range(250):
                    await client.tx.send(Request(number, "call"))

            nursery.start_soon(send_all)
            answer = await client.rx.receive()
            assert isinstance(answer, ErrorResponse)
            assert answer.message == "server: the server has not read for 60 s"
            assert answer.data == {"server": "server", "outcome": "not_sent", "retryable": True}
            assert trio.current_time() - started == pytest.approx(60, abs=1)
            nursery.cancel_scope.cancel()
