"""Bindings over a wire of whole messages keep the contract with two or three methods."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.nats_links import nats_link
from trioxport import (
    ConnectionLost,
    Incoming,
    Limits,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    Undelivered,
    open_transport,
)
from trioxport.abc import FrameChannels, Scope
from trioxport.codecs import MessagePack
from trioxport.codecs.json import JSON
from trioxport.testing import check_transport
from trioxport.testing.rules import RULES
from trioxport.transports.message_wire import Credit, carry_messages


@attrs.define(slots=False)
class QueueWire:
    """A wire of two queues, driven by a test."""

    written: list[Any] = attrs.field(factory=list)
    failure: Exception | None = None
    stuck: bool = False
    gate: trio.Event | None = None

    def __attrs_post_init__(self) -> None:
        self.arrive, self._arrived = trio.open_memory_channel[bytes | Credit | Exception | None](math.inf)
        self.taken = trio.Event()

    async def send(self, payload: bytes) -> None:
        self.taken.set()
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if self.stuck:
            await trio.sleep_forever()
        self.written.append(payload)

    async def send_eof(self) -> None:
        self.written.append("end")

    async def receive(self) -> bytes | Credit | None:
        found = await self._arrived.receive()
        if isinstance(found, Exception):
            raise found
        return found

    async def grant(self, messages: int) -> None:
        self.written.append(messages)

    def tell(self, *items: Any) -> None:
        for item in items:
            self.arrive.send_nowait(item)


def over(wire: QueueWire, **options: Any) -> Callable[[Scope], Any]:
    @asynccontextmanager
    async def transport(scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with carry_messages(wire, scope, **options) as channels:
            yield channels

    return transport


async def everything(rx: trio.abc.ReceiveChannel[Incoming]) -> tuple[list[Incoming], Exception | None]:
    found: list[Incoming] = []
    try:
        while True:
            found.append(await rx.receive())
    except trio.EndOfChannel:
        return found, None
    except ConnectionLost as error:
        return found, error


def note(number: int) -> Notification:
    return Notification("n", {"number": number})


# NATS, the documentation's example of a broker.


@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: codec.name)
@pytest.mark.parametrize("rule", RULES)
async def test_the_binding_to_nats_keeps_the_contract(rule: int, codec: Any) -> None:
    await check_transport(nats_link(silence=2), rules=[rule], codec=codec)


# The wire's side.


async def test_messages_go_each_by_itself_and_the_end_last() -> None:
    wire = QueueWire()
    wire.tell(JSON.encode(note(1)), None)
    async with open_transport(over(wire)) as (tx, rx):
        await tx.send(note(2))
        await tx.send(note(3))
        assert await everything(rx) == ([note(1)], None)
    assert wire.written == [JSON.encode(note(2)), JSON.encode(note(3)), "end"]


@pytest.mark.parametrize(
    ("raised", "reason", "retryable"),
    [
        (ConnectionLost("the broker said no"), "the broker said no", True),
        (OSError(104, "Connection reset by peer"), "the connection broke: Connection reset by peer", True),
        (trio.BrokenResourceError("gone"), "the connection broke: gone", True),
        (KeyError("bug"), "the transport failed: KeyError('bug')", False),
    ],
)
async def test_whatever_receive_raises_is_the_loss_behind_what_had_arrived(
    raised: Exception, reason: str, retryable: bool
) -> None:
    wire = QueueWire()
    wire.tell(JSON.encode(note(1)), JSON.encode(note(2)), raised)
    async with open_transport(over(wire)) as (_, rx):
        found, error = await everything(rx)
    assert found == [note(1), note(2)]
    assert isinstance(error, ConnectionLost)
    assert (error.reason, error.retryable) == (reason, retryable)


async def test_a_send_that_raises_is_a_loss_and_what_was_never_given_to_it_is_not_sent() -> None:
    wire = QueueWire(failure=KeyError("bug"), gate=(gate := trio.Event()))
    async with open_transport(over(wire), limits=Limits(max_buffered_messages=8), close_timeout=0.1) as (tx, rx):
        for number in range(4):
            await tx.send(Request(number, "r"))
        gate.set()
        found, error = await everything(rx)
    outcomes = {each.original.id: each.outcome for each in found if isinstance(each, Undelivered)}  # type: ignore[union-attr]  # requests
    assert outcomes == {0: "unknown", 1: "not_sent", 2: "not_sent", 3: "not_sent"}
    assert isinstance(error, ConnectionLost)


async def test_a_message_that_the_wire_refuses_comes_back_alone() -> None:
    wire = QueueWire(failure=MessageTooLarge("the broker takes 5 bytes"))
    async with open_transport(over(wire)) as (tx, rx):
        await tx.send(Request(1, "r"))
        refused = await rx.receive()
        wire.failure = None
        await tx.send(Request(2, "r"))
        wire.tell(JSON.encode(Response(2, {})), None)
        assert await rx.receive() == Response(2, {})
    assert isinstance(refused, Undelivered)
    assert (refused.id, refused.outcome) == (1, "not_sent")


async def test_a_message_over_the_limit_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioxport")
    wire = QueueWire()
    wire.tell(b'"%s"' % (b"x" * 2000), JSON.encode(note(1)), None)
    async with open_transport(over(wire), limits=Limits(max_message_size=1000)) as (_, rx):
        assert await everything(rx) == ([note(1)], None)
    assert "a message of 2002 bytes is over the limit" in caplog.text


# Credits and silence.


async def test_messages_wait_for_the_credit_of_the_peer() -> None:
    wire = QueueWire()
    async with open_transport(over(wire, grant=wire.grant), limits=Limits(max_buffered_messages=4)) as (tx, rx):
        for number in range(4):
            await tx.send(note(number))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.written == [4]
        wire.tell(Credit(3))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.written[1:] == [JSON.encode(note(number)) for number in range(3)]
        wire.tell(Credit(1), None)
        await everything(rx)
    assert wire.written[-2:] == [JSON.encode(note(3)), "end"]


async def test_what_waits_for_credit_when_the_connection_is_lost_is_not_sent() -> None:
    wire = QueueWire()
    async with open_transport(over(wire, grant=wire.grant)) as (tx, rx):
        await tx.send(Request(1, "r"))
        await trio.testing.wait_all_tasks_blocked()
        wire.tell(ConnectionLost("cut"))
        [undelivered], error = await everything(rx)
    assert isinstance(undelivered, Undelivered)
    assert (undelivered.outcome, isinstance(error, ConnectionLost)) == ("not_sent", True)


async def test_what_the_application_takes_is_granted_anew() -> None:
    wire = QueueWire()
    async with open_transport(over(wire, grant=wire.grant), limits=Limits(max_buffered_messages=4)) as (_, rx):
        wire.tell(*(JSON.encode(note(number)) for number in range(4)))
        await trio.testing.wait_all_tasks_blocked()
        assert wire.written == [4]
        for _ in range(4):
            await rx.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert sum(wire.written) >= 6
        wire.tell(None)


async def test_an_application_that_reads_no_more_holds_nobody_up() -> None:
    wire = QueueWire()
    async with open_transport(over(wire, grant=wire.grant), limits=Limits(max_buffered_messages=4)) as (_, rx):
        wire.tell(*(JSON.encode(note(number)) for number in range(4)))
        await trio.testing.wait_all_tasks_blocked()
        await rx.aclose()
        wire.tell(*(JSON.encode(note(number)) for number in range(4)))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(wire.written) >= 8
        wire.tell(None)


async def test_an_application_that_reads_no_more_gives_no_credit_twice() -> None:
    """A peer that sent what it was granted twice would be lost to a wire with room for it once."""
    wire = QueueWire()
    async with open_transport(over(wire, grant=wire.grant), limits=Limits(max_buffered_messages=8)) as (_, rx):
        await wait_all_tasks_blocked()
        wire.tell(*(JSON.encode(note(number)) for number in range(5)))
        await rx.receive()
        await wait_all_tasks_blocked()
        await rx.aclose()
        await wait_all_tasks_blocked()
        assert sum(wire.written) in (8 + 4, 8 + 5)
        wire.tell(*(JSON.encode(note(number)) for number in range(8)))
        await wait_all_tasks_blocked()
        assert 13 <= sum(wire.written) <= 13 + 8
        wire.tell(None)


async def test_a_message_that_comes_back_costs_no_credit_and_gives_none() -> None:
    wire = QueueWire(failure=MessageTooLarge("of the wire's own"))
    limits = Limits(max_buffered_messages=4)
    async with open_transport(over(wire, grant=wire.grant), limits=limits) as (tx, rx):
        wire.tell(Credit(4))
        for number in range(6):
            await tx.send(note(number))
            with trio.fail_after(5):
                assert isinstance(await rx.receive(), Undelivered)
        await wait_all_tasks_blocked()
        assert wire.written == [4]
        wire.tell(None)


async def test_a_grant_that_fails_is_a_loss() -> None:
    wire = QueueWire()

    async def grant(messages: int) -> None:
        raise OSError(32, "Broken pipe")

    async with open_transport(over(wire, grant=grant), close_timeout=0.1) as (_, rx):
        _, error = await everything(rx)
    assert isinstance(error, ConnectionLost)
    assert error.reason == "the connection broke: Broken pipe"


async def test_silence_is_a_loss_and_signs_of_life_are_given(autojump_clock: trio.testing.MockClock) -> None:
    wire = QueueWire()
    async with open_transport(over(wire, grant=wire.grant, silence=15)) as (_, rx):
        await trio.sleep(10)
        wire.tell(Credit(0))
        _, error = await everything(rx)
    assert isinstance(error, ConnectionLost)
    assert error.reason == "the peer has been silent for 15 s"
    assert trio.current_time() == pytest.approx(25, abs=0.1)
    assert wire.written[:5] == [64, 0, 0, 0, 0]


async def test_a_write_that_is_stuck_ends_with_close_timeout(autojump_clock: trio.testing.MockClock) -> None:
    wire = QueueWire(stuck=True)

    async def leave_while_it_is_stuck() -> None:
        async with open_transport(over(wire), close_timeout=3) as (tx, _):
            await tx.send(note(1))
            await wire.taken.wait()

    with pytest.raises(ConnectionLost, match="closed before everything"):
        await leave_while_it_is_stuck()
    assert trio.current_time() == pytest.approx(3, abs=0.1)
