"""Reconnection, cancelled at every step; see ``tests/contract/test_cancellation.py``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio
import trio.testing

from tests.support.cancel_everywhere import Cut, sweep
from trioxport import (
    Backoff,
    Connection,
    ConnectionLost,
    Failover,
    Notification,
    Reconnect,
    Request,
    Response,
    Target,
    Undelivered,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport.transports.memory import MemorySwitch
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tcp

LONG: Final = 1000.0
AT_ONCE: Final = Reconnect(backoff=Backoff(base=1e-9, cap=1e-9), send_timeout=LONG, after_end=True)
PATIENT: Final[dict[str, Any]] = {"connect_timeout": LONG, "close_timeout": LONG, "reconnect": AT_ONCE}
HELLO, END = Request("hello", "initialize", {"protocolVersion": "2025-11-25"}), Request("end", "end")
NOTES: Final = [Notification("note", [number]) for number in range(3)]


class Server:
    """Answers ``initialize``, sends back notifications, and ends a connection when it is asked to."""

    def __init__(self) -> None:
        self.at_work = 0

    async def handle(self, connection: Connection) -> None:
        self.at_work += 1
        try:
            async for message in connection.rx:
                match message:
                    case Request(method="end"):
                        return
                    case Request():
                        await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))
                    case Notification():
                        await connection.tx.send(message)
                    case _:
                        raise AssertionError(message)
        except ConnectionLost:
            return
        finally:
            assert connection.statistics().discarded == {}
            self.at_work -= 1

    async def idle(self) -> None:
        """Wait until every handler is over."""
        while self.at_work:
            await trio.testing.wait_all_tasks_blocked(0.001)


def sweep_client(served: Callable[[], Any], use: Callable[[Cut, Target], Awaitable[None]]) -> None:
    """The server is not cancelled, and serves the next client as if nothing had happened."""

    async def conversation(cut: Cut) -> None:
        server, target = Server(), served()
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_transport, server.handle, target) or [target]
            await use(cut, address)
            await server.idle()
            async with open_transport(address, **PATIENT) as connection:
                await talk(connection)
            await server.idle()
            nursery.cancel_scope.cancel()

    sweep(conversation)


def in_memory() -> MemorySwitch:
    return MemorySwitch()


def tcp() -> Tcp:
    return Tcp("127.0.0.1", 0)


over_each = pytest.mark.parametrize("served", [in_memory, tcp], ids=lambda served: served.__name__)


async def talk(connection: Connection) -> None:
    """A handshake, an end by the peer that counts as a loss, and messages after it."""
    tx, rx = connection
    await tx.send(HELLO)
    assert isinstance(await rx.receive(), Response)
    await tx.send(NOTES[0])
    assert await rx.receive() == NOTES[0]
    await tx.send(END)
    assert isinstance(await rx.receive(), Undelivered)
    await tx.send(NOTES[1])
    assert await rx.receive() == NOTES[1]
    await tx.send(NOTES[2])
    assert await rx.receive() == NOTES[2]


async def all_of_it(cut: Cut, target: Target) -> None:
    with cut.here():
        async with open_transport(target, **PATIENT) as connection:
            await talk(connection)


@pytest.mark.deadline(60)
@over_each
def test_a_client(served: Callable[[], Any]) -> None:
    sweep_client(served, all_of_it)


async def with_a_stand_in(cut: Cut, target: Target) -> None:
    with cut.here():
        async with open_transport(Failover(["memory://nobody", target, target]), **PATIENT) as connection:
            await talk(connection)


def test_targets_that_stand_in_for_each_other() -> None:
    sweep_client(in_memory, with_a_stand_in)


async def losing(cut: Cut, target: Target) -> None:
    """Cancelled during a reconnection, only the calls are cancelled, not the connection."""
    async with trio.open_nursery() as nursery:
        connection = await connect_transport(nursery, target, **PATIENT)
        tx, rx = connection
        await tx.send(HELLO)
        assert isinstance(await rx.receive(), Response)
        await tx.send(END)
        left: list[object] = []
        sent = False
        with cut.here():
            left.append(await rx.receive())
            await tx.send(NOTES[0])
            sent = True
        if not left:
            left.append(await rx.receive())
        assert isinstance(left[0], Undelivered)
        if not sent:
            await tx.send(NOTES[0])
        await tx.send(NOTES[1])
        received = [await rx.receive()]
        while received[-1] != NOTES[1]:
            received.append(await rx.receive())
        assert received == NOTES[:2]
        await connection.aclose()
        assert connection.state == "closed"


@over_each
def test_a_loss(served: Callable[[], Any]) -> None:
    sweep_client(served, losing)


async def closing(cut: Cut, target: Target) -> None:
    """Closing alone is cancelled, while the connection may just come back."""
    async with trio.open_nursery() as nursery:
        connection = await connect_transport(nursery, target, **PATIENT)
        await connection.tx.send(END)
        assert isinstance(await connection.rx.receive(), Undelivered)
        with cut.here():
            await connection.aclose()
    assert connection.state == "closed"
    with pytest.raises(trio.ClosedResourceError):
        await connection.rx.receive()


@over_each
def test_closing(served: Callable[[], Any]) -> None:
    sweep_client(served, closing)


@pytest.mark.deadline(120)
def test_a_child_that_is_started_again() -> None:
    """It ends with an error after each message."""
    target = Stdio("sh", ["-c", "head -n 1; exit 1"])

    async def conversation(cut: Cut) -> None:
        async with open_transport(target, **PATIENT) as connection:
            tx, rx = connection
            await tx.send(NOTES[0])
            assert await rx.receive() == NOTES[0]
            first = connection.info.peer
            with cut.here():
                async for _ in connection.state_changes():
                    if connection.info.peer != first:
                        break
                await tx.send(NOTES[1])
                assert await rx.receive() == NOTES[1]
                await connection.aclose()

    sweep(conversation)
