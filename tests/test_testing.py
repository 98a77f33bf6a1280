"""The test kit itself: it finds what is wrong, and its faults are what they are called."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.abc import ReceiveChannel, SendChannel
from trio.testing import MockClock

from trioxport import ConnectionLost, Frame, Notification, Request, Response, open_transport
from trioxport.abc import Accept, FrameChannels, Scope, Transport
from trioxport.testing import ContractBroken, Faults, Link, MakeLink, MemoryWire, check_transport
from trioxport.testing.contract import memory_link
from trioxport.transports.memory import MemorySwitch

Bend = Callable[[FrameChannels, Scope], FrameChannels]


@attrs.frozen
class Bent:
    """A transport, and a listener, that does one thing wrong."""

    inner: MemorySwitch
    bend: Bend

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        return self._bent(self.inner, scope)

    async def listen(
        self, accept: Accept, *, allow_plaintext: bool = False, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        async def accept_bent(transport: Transport) -> None:
            await accept(lambda scope: self._bent(transport, scope))

        await self.inner.listen(accept_bent, task_status=task_status)

    @asynccontextmanager
    async def _bent(self, transport: Transport, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with transport(scope) as channels:
            yield self.bend(channels, scope)


def link_of(bend: Bend) -> MakeLink:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        switch = MemorySwitch()

        async def cut() -> None:
            switch.cut()

        bent = Bent(switch, bend)
        yield Link(server=bent, client=bent, cut=cut)

    return make


@attrs.frozen(eq=False)
class Wrapped(SendChannel[Any], ReceiveChannel[Any]):
    """Channels to make worse."""

    inner: Any

    async def send(self, value: Any) -> None:
        await self.inner.send(value)

    async def receive(self) -> Any:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


class LosesOnCancel(Wrapped):
    async def receive(self) -> Any:
        frame = await self.inner.receive()
        await trio.lowlevel.checkpoint()
        return frame


@attrs.frozen(eq=False)
class Hoards(Wrapped):
    hoard: trio.MemorySendChannel[Frame]

    async def send(self, value: Any) -> None:
        await self.hoard.send(value)

    async def aclose(self) -> None:
        await self.hoard.aclose()


class NeverEnds(Wrapped):
    async def receive(self) -> Any:
        try:
            return await self.inner.receive()
        except trio.EndOfChannel:
            await trio.sleep_forever()


class DropsBadFrames(Wrapped):
    async def receive(self) -> Any:
        while True:
            frame = await self.inner.receive()
            if frame.payload.startswith(b"{"):
                return frame


def loses_on_cancel(channels: FrameChannels, scope: Scope) -> FrameChannels:
    return FrameChannels(channels.send, LosesOnCancel(channels.receive))


def hoards(channels: FrameChannels, scope: Scope) -> FrameChannels:
    send, receive = trio.open_memory_channel[Frame](math.inf)

    async def pump() -> None:
        async for frame in receive:
            await channels.send.send(frame)
        await channels.send.aclose()

    scope.start_soon(pump)
    return FrameChannels(Hoards(channels.send, send), channels.receive)


def never_ends(channels: FrameChannels, scope: Scope) -> FrameChannels:
    return FrameChannels(channels.send, NeverEnds(channels.receive))


def drops_bad_frames(channels: FrameChannels, scope: Scope) -> FrameChannels:
    return FrameChannels(channels.send, DropsBadFrames(channels.receive))


@pytest.mark.parametrize(
    ("rule", "bend"), [(2, hoards), (3, loses_on_cancel), (8, drops_bad_frames)], ids=["hoards", "loses", "drops"]
)
async def test_finds_a_broken_rule(rule: int, bend: Bend) -> None:
    with pytest.raises(ContractBroken, match=rf"rule {rule}: (?s:.*)What happened: (?s:.*)Look at: "):
        await check_transport(link_of(bend), rules=[rule])


@pytest.mark.parametrize("rule", [4, 5])
async def test_finds_an_end_that_never_comes(rule: int, autojump_clock: MockClock) -> None:
    with pytest.raises(ContractBroken, match=r"it took longer than 10 s"):
        await check_transport(link_of(never_ends), rules=[rule])


async def test_finds_an_unreachable_target_that_opens() -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        async with memory_link() as link:
            yield attrs.evolve(link, unreachable=MemoryWire(1).client)

    with pytest.raises(ContractBroken, match="the unreachable target was opened"):
        await check_transport(make, rules=[1])


async def test_a_good_transport_passes() -> None:
    await check_transport(link_of(lambda channels, scope: channels), rules=[1, 3, 5, 9])


class TestFaults:
    async def conversation(self, faults: Faults, count: int = 50) -> list[object]:
        """What a peer receives, as numbers or errors' names, when ``count`` notes are sent through ``faults``."""
        wire = MemoryWire(1000)
        got: list[object] = []
        async with open_transport(wire.client, layers=[faults]) as (tx, _), open_transport(wire.server) as peer:
            try:
                for number in range(count):
                    await tx.send(Notification("note", {"number": number}))
            except ConnectionLost:
                got.append("lost")
            await tx.aclose()
            async for message in peer.rx:
                assert isinstance(message, Notification)
                got.append(message.params.get("number") if isinstance(message.params, dict) else None)
            got += peer.statistics().discarded
        return got

    async def test_nothing_happens_without_probabilities(self) -> None:
        assert await self.conversation(Faults(0)) == list(range(50))

    async def test_drops(self) -> None:
        got = await self.conversation(Faults(0, drop=0.5))
        assert got == sorted(set(got), key=int)  # type: ignore[arg-type]  # only numbers
        assert 10 < len(got) < 40

    async def test_duplicates(self) -> None:
        got = await self.conversation(Faults(0, duplicate=0.5))
        assert sorted(set(got), key=int) == list(range(50))  # type: ignore[arg-type]  # only numbers
        assert 60 < len(got) < 90

    async def test_corrupts_and_truncates(self) -> None:
        assert "DecodeError" in await self.conversation(Faults(0, corrupt=0.5))
        assert "DecodeError" in await self.conversation(Faults(0, truncate=0.5))

    async def test_cuts(self) -> None:
        got = await self.conversation(Faults(0, cut=0.1))
        assert got[0] == "lost"
        assert got[1:] == list(range(len(got) - 1))

    async def test_delays_and_keeps_the_order(self, autojump_clock: MockClock) -> None:
        started = trio.current_time()
        assert await self.conversation(Faults(0, delay=2.0), 20) == list(range(20))
        assert 5 < trio.current_time() - started < 40

    async def test_is_the_same_for_the_same_seed_only(self) -> None:
        first, again, other = [await self.conversation(Faults(seed, drop=0.5)) for seed in (1, 1, 2)]
        assert first == again
        assert first != other

    async def test_a_cut_while_receiving_ends_the_waiting(self) -> None:
        wire = MemoryWire(10)
        lost = False
        async with open_transport(wire.server) as peer:
            async with (
                open_transport(wire.client, layers=[Faults(0, cut=1.0)]) as (tx, rx),
                trio.open_nursery() as nursery,
            ):

                async def receive() -> None:
                    nonlocal lost
                    with pytest.raises(ConnectionLost, match="cut by Faults"):
                        await rx.receive()
                    lost = True

                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(ConnectionLost):
                    await tx.send(Notification("note"))
            assert lost
            del peer

    async def test_a_cut_in_place_of_something_received(self) -> None:
        wire = MemoryWire(10)
        async with (
            open_transport(wire.client, layers=[Faults(0, cut=1.0)]) as (_, rx),
            open_transport(wire.server) as peer,
        ):
            await peer.tx.send(Notification("note"))
            with pytest.raises(ConnectionLost, match="cut by Faults"):
                await rx.receive()

    async def test_requests_and_responses_survive_what_is_only_slow(self, autojump_clock: MockClock) -> None:
        wire = MemoryWire(10)
        async with (
            open_transport(wire.client, layers=[Faults(3, delay=5.0)]) as (tx, rx),
            open_transport(wire.server) as peer,
        ):
            await tx.send(Request(1, "echo"))
            request = await peer.rx.receive()
            assert isinstance(request, Request)
            await peer.tx.send(Response(request.id, {}))
            with trio.move_on_after(0.1):
                await rx.receive()
            assert await rx.receive() == Response(1, {})
