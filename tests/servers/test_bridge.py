"""Bridges to servers that others wrote: the official SDK's programs see through a bridge what they see without it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.support.bridges import (
    INITIALIZED,
    PlayedServer,
    answered,
    bridged,
    legacy_client,
    modern,
    next_request,
    refusal,
)
from tests.support.sdk_programs import PROGRAMS, build_server, run_program
from trioxport import (
    Connection,
    ErrorResponse,
    Notification,
    Request,
    Response,
    Target,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Era
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.peer import open_peer
from trioxport.protocol import META
from trioxport.servers.bridge import Sharing, open_bridge, per_session, serve_bridge
from trioxport.transports.memory import MemorySwitch

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the legacy era

HTTP = "http://127.0.0.1:0/mcp"
DISCOVERED = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}}
both_modes = pytest.mark.parametrize("sharing", ["shared", "per-session"])


@asynccontextmanager
async def served(listen: Target, **options: Any) -> AsyncGenerator[tuple[Target, Target]]:
    """The SDK's server of ``sdk_programs``, and a bridge to it: the targets of both."""
    direct = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_sdk, build_server(), direct))
        addresses = await nursery.start(partial(serve_bridge, listen, direct, **options))
        yield direct, addresses[0] if addresses else listen
        nursery.cancel_scope.cancel()


@both_modes
@pytest.mark.parametrize("listen", ["memory", "http"])
@pytest.mark.parametrize(("mode", "program"), PROGRAMS)
async def test_programs_see_what_they_see_without_a_bridge(
    mode: str, program: str, listen: str, sharing: Sharing
) -> None:
    async with served(MemorySwitch(), sharing=sharing) as (direct, _):
        seen = await run_program(mode, program, lambda: sdk_transport(direct))
    async with served(HTTP if listen == "http" else MemorySwitch(), sharing=sharing) as (_, behind):
        assert await run_program(mode, program, lambda: sdk_transport(behind)) == seen


@both_modes
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_values_pass_as_they_are(sharing: Sharing, era: str) -> None:
    """Integers beyond 64 bits, lone surrogates, and members that JSON-RPC does not define."""
    params = {"big": 2**70, "text": "\ud800", "float": 1.5, "nothing": None, "_meta": {META + "protocolVersion": "x"}}
    if era == "legacy":
        del params["_meta"]
    server = PlayedServer()
    async with bridged(server, sharing=sharing) as target, open_transport(target) as connection:
        await connection.tx.send(Request(2**64, "odd", params, {"extra": 2**65}))
        played = await (server.legacy() if era == "legacy" and sharing == "shared" else first(server, era, sharing))
        request = await next_request(played)
        assert (request.method, request.params, request.extra) == ("odd", params, {"extra": 2**65})
        await played.tx.send(Response(request.id, {"big": -(2**90), "text": "\udfff"}, {"extra": 1}))
        answer = await connection.rx.receive()
        assert answer == Response(2**64, {"big": -(2**90), "text": "\udfff"}, {"extra": 1})


async def first(server: PlayedServer, era: str, sharing: Sharing) -> Any:
    return await (server.modern() if era == "modern" else server.connection())


async def test_a_header_that_transports_set_cannot_be_forwarded() -> None:
    with pytest.raises(UsageError, match="the header mcp-session-id cannot be forwarded"):
        async with open_bridge("memory://x", forward_headers=["Mcp-Session-Id"]):
            pytest.fail("opened")


async def test_mistakes_of_the_caller_are_raised_at_once() -> None:
    with pytest.raises(UsageError, match="sharing has to be one of 'shared', 'per-session'"):
        async with open_bridge("memory://x", sharing="both"):  # type: ignore[arg-type]  # a mistake
            pytest.fail("opened")
    with pytest.raises(TypeError, match="open_transport has no option 'layer'"):
        async with open_bridge("memory://x", layer=[]):
            pytest.fail("opened")
    with pytest.raises(UsageError, match="no transport for the scheme 'nothing'"):
        await serve_bridge(MemorySwitch(), "nothing://x")
    with pytest.raises(TypeError, match="serve_bridge has no option 'share', did you mean 'sharing'"):
        await serve_bridge(MemorySwitch(), "memory://x", share="shared")  # type: ignore[call-arg]  # a mistyped name


@both_modes
async def test_a_server_that_cannot_be_reached_is_the_error_of_each_request(sharing: Sharing) -> None:
    listen, behind = MemorySwitch(), "memory://late"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_bridge, listen, behind, sharing=sharing, name="late"))
        async with open_transport(listen) as connection:
            answer = await answered(connection, modern(1, "tools/list"))
            assert isinstance(answer, ErrorResponse)
            assert answer.message == "late: no server listens under this name"
            assert answer.data == {"server": "late", "outcome": "not_sent", "retryable": True}
            await connection.tx.send(Notification("notifications/any"))
            await nursery.start(partial(serve_sdk, build_server(), behind))
            answer = await answered(connection, modern(2, "tools/list"))
            assert isinstance(answer, Response)
            assert answer.result["tools"]
        nursery.cancel_scope.cancel()


async def test_a_client_that_half_closes_gets_its_answers() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as connection:
        await connection.tx.send(modern(1, "slow"))
        await connection.tx.aclose()
        played = await server.modern()
        request = await next_request(played)
        await played.tx.send(Response(request.id, "done"))
        assert await connection.rx.receive() == Response(1, "done")
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()


async def test_a_half_close_is_passed_on_to_a_server_of_its_own() -> None:
    server = PlayedServer()
    async with bridged(server, sharing="per-session") as target, open_transport(target) as connection:
        await connection.tx.send(modern(1, "slow"))
        played = await server.modern()
        request = await next_request(played)
        await connection.tx.aclose()
        with pytest.raises(trio.EndOfChannel):
            await played.rx.receive()
        await played.tx.send(Response(request.id, "done"))
        await played.tx.aclose()
        assert await connection.rx.receive() == Response(1, "done")
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()


async def test_a_client_that_probes_in_vain_and_then_initializes() -> None:
    server = PlayedServer()
    async with bridged(server, sharing="per-session") as target, open_transport(target) as connection:
        await connection.tx.send(modern(1, "server/discover"))
        played = await server.modern()
        assert (await next_request(played)).id == 1
        await connection.tx.send(Request(2, "initialize", {"protocolVersion": "2025-11-25"}))
        with pytest.raises(trio.EndOfChannel):
            await played.rx.receive()
        played = await server.connection()
        assert (await next_request(played)).id == 2
        await played.tx.send(Response(2, {"protocolVersion": "2025-11-25"}))
        assert await connection.rx.receive() == Response(2, {"protocolVersion": "2025-11-25"})


@both_modes
@pytest.mark.parametrize("of_client", ["legacy", "modern"])
@pytest.mark.parametrize("of_server", ["legacy", "modern"])
async def test_the_end_of_a_bridge_in_every_cell(
    sharing: Sharing, of_client: Era, of_server: Era, autojump_clock: trio.abc.Clock
) -> None:
    opening: dict[str, Any] = {"server/discover": DISCOVERED} if of_server == "modern" else {"initialize": INITIALIZED}
    results = {**opening, "tools/list": {"resultType": "complete", "tools": []}}
    server, listen = MemorySwitch(), MemorySwitch()

    async def play(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                found = results.get(message.method)
                await connection.tx.send(refusal(message) if found is None else Response(message.id, found))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_transport, play, server)
            async with open_bridge(server, sharing=sharing) as bridge:
                await nursery.start(serve_transport, bridge.handler, listen)
                async with open_transport(listen) as client, open_peer(client) as peer:
                    await peer.negotiate(client_info={"name": "c", "version": "1"}, era=of_client)
                    assert (await peer.request("tools/list"))["tools"] == []
            nursery.cancel_scope.cancel()


@both_modes
async def test_a_server_that_starts_more_slowly_than_it_is_probed(
    sharing: Sharing, autojump_clock: trio.abc.Clock
) -> None:
    """Its answer to the probe, which comes late, is not that to the next request."""
    server = PlayedServer()
    async with bridged(server, sharing=sharing) as target, open_transport(target) as connection:
        await connection.tx.send(modern(1, "tools/list"))
        played = await server.connection()
        probe = await next_request(played)
        assert probe.method == "server/discover"
        cancelled = await played.rx.receive()
        assert isinstance(cancelled, Notification)
        initialize = await next_request(played)
        await played.tx.send(refusal(probe))
        await played.tx.send(Response(initialize.id, INITIALIZED))
        assert isinstance(await played.rx.receive(), Notification)
        listing = await next_request(played)
        await played.tx.send(Response(listing.id, {"tools": []}))
        answer = await connection.rx.receive()
        assert isinstance(answer, Response)
        assert answer.result["tools"] == []


@both_modes
async def test_a_legacy_client_with_a_legacy_server(sharing: Sharing) -> None:
    server = PlayedServer()
    async with bridged(server, sharing=sharing) as target, trio.open_nursery() as nursery:
        nursery.start_soon(server.legacy)
        async with legacy_client(target):
            pass


@both_modes
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_server_that_refuses_to_begin_is_the_error_of_each_request(sharing: Sharing, era: str) -> None:
    async def refuse(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await connection.tx.send(ErrorResponse(message.id, -32000, "not today"))

    listen, behind = MemorySwitch(), MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_transport, refuse, behind))
        await nursery.start(partial(serve_bridge, listen, behind, sharing=sharing))
        async with open_transport(listen) as connection:
            params = {"protocolVersion": "2025-11-25", "capabilities": {}}
            for number in (1, 2):
                first = Request(number, "initialize", params) if era == "legacy" else modern(number, "tools/list")
                answer = await answered(connection, first)
                assert isinstance(answer, ErrorResponse)
                assert answer.id == number
                assert "not today" in answer.message
        nursery.cancel_scope.cancel()


# Servers that are slow to begin, for each client anew.


async def test_a_server_that_answers_the_probe_too_late_is_not_taken_for_legacy_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = PlayedServer()
    async with bridged(server, sharing="per-session") as target:
        async with open_transport(target) as one:
            await one.tx.send(modern(1, "call"))
            played = await server.connection()
            assert (await next_request(played)).method == "server/discover"
            assert (await played.rx.receive()) == Notification("notifications/cancelled", {"requestId": 1})
            initialize = await next_request(played)
            await played.tx.send(ErrorResponse(initialize.id, -32601, "Method not found"))
            assert isinstance(await one.rx.receive(), ErrorResponse)
        async with open_transport(target) as two:
            await two.tx.send(modern(1, "call"))
            played = await server.modern()
            await played.tx.send(Response((await next_request(played)).id, "done"))
            assert await two.rx.receive() == Response(1, "done")


async def test_a_legacy_server_that_does_not_answer_the_probe_is_asked_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = PlayedServer()
    async with bridged(server, sharing="per-session") as target:
        for began in ("server/discover", "initialize"):
            async with open_transport(target) as client:
                await client.tx.send(modern(1, "call"))
                played = await server.connection()
                request = await next_request(played)
                assert request.method == began
                if began == "server/discover":
                    await played.rx.receive()
                    request = await next_request(played)
                await played.tx.send(Response(request.id, INITIALIZED))
                await played.rx.receive()
                await played.tx.send(Response((await next_request(played)).id, {}))
                assert isinstance(await client.rx.receive(), Response)


async def test_a_server_that_does_not_initialize_is_left(autojump_clock: trio.testing.MockClock) -> None:
    server = PlayedServer()
    async with bridged(server, sharing="per-session") as target:
        async with open_transport(target, close_timeout=1) as client:
            await client.tx.send(Request(1, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}))
            played = await server.connection()
            await next_request(played)
        with pytest.raises(trio.EndOfChannel):
            await played.rx.receive()


async def test_messages_before_a_server_initializes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_session, "MAX_EARLY", 2)
    server = PlayedServer()
    async with bridged(server, sharing="per-session") as target, open_transport(target) as client:
        await client.tx.send(Request(1, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}))
        played = await server.connection()
        await next_request(played)
        for _ in range(2):
            await played.tx.send(Notification("notifications/any"))
        answer = await client.rx.receive()
        assert isinstance(answer, ErrorResponse)
        assert "2 messages before" in answer.message
