"""``memory://``: both sides in one program, with the contract of a wire."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trioxport import (
    Connection,
    ConnectionLost,
    Limits,
    Notification,
    Request,
    Response,
    ServerUnreachable,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.codecs import MessagePack


@asynccontextmanager
async def serving(
    handler: Callable[[Connection], Awaitable[object]], target: str = "memory://here", **arguments: Any
) -> AsyncGenerator[trio.CancelScope]:
    """Serve for the time of a block, or until the scope that it gets is cancelled."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(partial(serve_transport, handler, target, **arguments)) == [target]
            yield nursery.cancel_scope
            nursery.cancel_scope.cancel()


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        assert isinstance(message, Request)
        await connection.tx.send(Response(message.id, message.params))


@pytest.mark.parametrize("buffered", [0, 1, 64])
async def test_a_conversation(buffered: int) -> None:
    limits = Limits(max_buffered_messages=buffered)
    async with serving(echo, limits=limits), open_transport("memory://here", limits=limits) as (tx, rx):
        for number in range(10):
            await tx.send(Request(number, "x", [number]))
            assert await rx.receive() == Response(number, [number])
        await tx.aclose()
        assert [message async for message in rx] == []


async def test_clients_have_connections_of_their_own() -> None:
    async with (
        serving(echo),
        open_transport("memory://here") as one,
        open_transport("memory://here") as two,
    ):
        await two.tx.send(Request(1, "x", ["two"]))
        await one.tx.send(Request(1, "x", ["one"]))
        assert await one.rx.receive() == Response(1, ["one"])
        assert await two.rx.receive() == Response(1, ["two"])


async def test_any_codec_fits() -> None:
    async with serving(echo, codec=MessagePack), open_transport("memory://here", codec=MessagePack) as (tx, rx):
        await tx.send(Request(1, "x", [b"\n\0"]))
        assert await rx.receive() == Response(1, [b"\n\0"])


async def test_the_two_sides_share_no_object() -> None:
    received: list[Any] = []

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            received.append(message)
            await connection.tx.send(Notification("seen"))

    params: dict[str, Any] = {"list": [1]}
    request = Request(1, "x", params, metadata={"mine": 1})
    async with serving(handler), open_transport("memory://here") as (tx, rx):
        await tx.send(request)
        params["list"].append(2)
        assert await rx.receive() == Notification("seen")
        await tx.send(Notification("done"))
        assert await rx.receive() == Notification("seen")
    assert received[0] == Request(1, "x", {"list": [1]})
    assert received[0] is not request
    assert received[0].metadata == {}


async def test_nobody_serves_the_name() -> None:
    with pytest.raises(ServerUnreachable, match="memory://elsewhere: no server listens under this name") as caught:
        async with open_transport("memory://elsewhere"):
            pytest.fail("it opened")
    assert caught.value.outcome == "not_sent"
    assert caught.value.retryable


async def test_a_name_is_free_again_when_its_server_is_gone() -> None:
    for _ in range(2):
        async with serving(echo), open_transport("memory://here") as (tx, rx):
            await tx.send(Request(1, "x", ["again"]))
            assert await rx.receive() == Response(1, ["again"])
    with pytest.raises(ServerUnreachable):
        async with open_transport("memory://here"):
            pytest.fail("it opened")


async def test_a_name_that_is_taken() -> None:
    async with serving(echo):
        with pytest.raises(UsageError, match="memory://here: this name is served already"):
            await serve_transport(echo, "memory://here")
        async with serving(echo, "memory://there"), open_transport("memory://there") as (tx, rx):
            await tx.send(Request(1, "x", ["other"]))
            assert await rx.receive() == Response(1, ["other"])


async def test_names_end_with_the_run_they_were_made_in() -> None:
    def another_run() -> str:
        async def main() -> str:
            with pytest.raises(ServerUnreachable):
                async with open_transport("memory://here"):
                    pytest.fail("it opened")
            return "separate"

        return trio.run(main)

    async with serving(echo):
        assert await trio.to_thread.run_sync(another_run) == "separate"


async def test_a_server_that_is_cancelled_settles_what_its_clients_sent() -> None:
    begun = trio.Event()

    async def handler(connection: Connection) -> None:
        await connection.tx.send(Notification("first"))
        begun.set()
        await trio.sleep_forever()

    async with serving(handler) as server:
        with trio.CancelScope(shield=True):
            async with open_transport("memory://here") as (tx, rx):
                await tx.send(Request(1, "x"))
                await begun.wait()
                server.cancel()
                assert await rx.receive() == Notification("first")
                undelivered = await rx.receive()
                assert isinstance(undelivered, Undelivered)
                assert (undelivered.id, undelivered.outcome) == (1, "unknown")
                with pytest.raises(ConnectionLost, match="cancelled"):
                    await rx.receive()
        with pytest.raises(ServerUnreachable), trio.CancelScope(shield=True):
            async with open_transport("memory://here"):
                pytest.fail("it opened")


async def test_a_handler_that_raises_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            if message.method == "fail":
                raise ValueError("a mistake in the handler")
            await connection.tx.send(Response(message.id, "fine"))

    async with serving(handler):
        async with open_transport("memory://here", close_timeout=1) as (tx, rx):
            await tx.send(Request(1, "fail"))
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered) and undelivered.id == 1
        async with open_transport("memory://here") as (tx, rx):
            await tx.send(Request(2, "x"))
            assert await rx.receive() == Response(2, "fine")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None and str(record.exc_info[1]) == "a mistake in the handler"


async def test_a_client_that_is_cancelled_does_not_keep_its_handler() -> None:
    received: list[object] = []
    over = trio.Event()

    async def handler(connection: Connection) -> None:
        received.append(await connection.rx.receive())
        with pytest.raises(ConnectionLost, match="cancelled"):
            await connection.rx.receive()
        over.set()

    async with serving(handler):
        with trio.CancelScope() as scope:
            async with open_transport("memory://here") as (tx, _):
                await tx.send(Notification("x"))
                scope.cancel()
                await trio.sleep_forever()
        await over.wait()
    assert received == [Notification("x")]


async def test_a_peer_that_never_reads_makes_send_wait(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(connection: Connection) -> None:
        await trio.sleep_forever()

    limits = Limits(max_buffered_messages=3)
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_transport, handler, "memory://here", limits=limits))
            accepted = 0
            with trio.CancelScope() as scope:
                async with open_transport("memory://here", limits=limits, close_timeout=1) as (tx, _):
                    with trio.move_on_after(10):
                        while True:
                            await tx.send(Notification("x"))
                            accepted += 1
                    scope.cancel()
            assert 1 <= accepted <= 6
            nursery.cancel_scope.cancel()
