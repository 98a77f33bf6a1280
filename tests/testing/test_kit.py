"""The test kit itself: what it tells an author, what it leaves behind, and that its faults are what they are called."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.support.broken_transports import FAULTS, WaitsByTheSystemsClock
from tests.support.heartbeat_transport import BEAT_SECONDS, Beating
from tests.support.reference_transport import Board, Carrier, Reference, pair_of
from trioxport import ConnectionLost, Notification, Request, Response, UsageError, open_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import FrameChannels, Scope
from trioxport.testing import (
    ContractBroken,
    Faults,
    MakePair,
    MemoryWire,
    TransportPair,
    check_pair,
    check_transport,
    open_cuttable_proxy,
    serve_check_peer,
    tcp_pair,
    transport_checks,
)
from trioxport.testing.__main__ import main
from trioxport.testing.contract import memory_pair
from trioxport.testing.peer import CheckPeer, process_name
from trioxport.transports.stdio import StdioServer

BEATING_PEER = Path(__file__).parents[1] / "programs" / "beating_peer.py"


@pytest.fixture(autouse=True)
def _quiet() -> Generator[None]:
    """Bad messages are logged."""
    level = logging.getLogger("trioxport").level
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    logging.getLogger("trioxport").setLevel(level)


def reference(board: Board, **options: Any) -> TransportPair:
    return TransportPair(Reference(board), Reference(board), timeout=0.5, **options)


class TestOneProcess:
    """Without a cut there is nothing to break but the process of the check itself."""

    async def test_checks_of_a_loss_are_skipped_and_say_so(self) -> None:
        report = await check_transport(reference(Board()), rules=[5, 6])
        assert {result.name: result.reason for result in report.skipped} == dict.fromkeys(
            [
                "reports_loss",
                "returns_what_was_not_sent",
                "keeps_serving",
                "raises_unseen_failure",
                "keeps_exception_of_block_after_loss",
            ],
            "the pair has no cut=, and its peer runs in this process",
        )
        assert {result.name for result in report.passed} == {"ends_orderly", "keeps_exception_of_block"}

    async def test_a_peer_that_make_pair_serves_is_not_killed_either(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            async with open_bare_nursery() as tasks:
                [address] = await tasks.start(serve_check_peer, "tcp://127.0.0.1:0")
                yield TransportPair(open=address)
                tasks.cancel_scope.cancel()

        report = await check_transport(make_pair, rules=[6])
        assert [result.name for result in report.skipped] == [
            "raises_unseen_failure",
            "keeps_exception_of_block_after_loss",
        ]

    async def test_the_peer_kills_no_process_that_asks_it_to_kill_itself(self) -> None:
        wire = MemoryWire(1)
        async with open_transport(wire.client) as (tx, _), open_transport(wire.server) as connection:
            await tx.send(Request(1, "check/kill", {"process": process_name()}))
            with pytest.raises(ValueError, match="does not kill the process that checks"):
                await CheckPeer(connection).run()


class TestTimers:
    """A poll every 5 ms and a heartbeat of 5 s are no obstacle, and are no excuse."""

    async def test_both_sides_in_this_process(self) -> None:
        started = time.monotonic()
        await check_transport(tcp_pair(Beating.at, heartbeat=BEAT_SECONDS))
        assert time.monotonic() - started < 15

    @pytest.mark.deadline(120)
    async def test_the_peer_in_another_process(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            command = [sys.executable, str(BEATING_PEER)]
            process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
            assert process.stdout is not None
            try:
                port = int(await process.stdout.receive_some())
                yield TransportPair(open=Beating.at(port), heartbeat=BEAT_SECONDS)
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                    await process.stdout.aclose()

        report = await check_transport(make_pair, rules=[5, 9, 10])
        assert [result.name for result in report.skipped] == ["keeps_serving"]

    async def test_a_heartbeat_in_another_process_that_is_too_short_skips_the_check(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            async with open_bare_nursery() as tasks:
                [address] = await tasks.start(serve_check_peer, "tcp://127.0.0.1:0")
                yield TransportPair(open=address, heartbeat=1.0)
                tasks.cancel_scope.cancel()

        report = await check_transport(make_pair, rules=[10])
        assert [(each.name, "a heartbeat of 1 s" in each.reason) for each in report.skipped] == [
            ("follows_the_clock", True)
        ]


@attrs.define
class Counted:
    """A function that makes pairs, and counts the threads in which they are left."""

    inner: MakePair
    made: int = 0
    left: list[str] = attrs.Factory(list[str])

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[TransportPair]:
        self.made += 1
        try:
            async with open_bare_nursery() as tasks, self.inner() as pair:
                tasks.start_soon(trio.sleep_forever)
                yield pair
                tasks.cancel_scope.cancel()
        finally:
            self.left.append(threading.current_thread().name)


class TestLeaving:
    @pytest.mark.parametrize("name", ["TypoInThePump", "ShieldedLinger", "NeverStarted"])
    async def test_a_pair_is_left_when_its_check_fails(self, name: str) -> None:
        make_pair = Counted(FAULTS[name].make_pair)
        with pytest.raises(ContractBroken):
            await check_transport(make_pair)
        assert make_pair.made == len(make_pair.left) == 1

    async def test_the_pair_of_the_other_thread_is_left_too(self) -> None:
        make_pair = Counted(pair_of(WaitsByTheSystemsClock))
        [check] = [check for check in transport_checks([10]) if check.name == "follows_the_clock"]
        with pytest.raises(ContractBroken):
            await check_transport(make_pair, checks=[check])
        assert make_pair.made == 2
        assert make_pair.left[1] == threading.current_thread().name != make_pair.left[0]

    async def test_a_pair_that_cannot_be_left_is_an_error_of_the_kit(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            yield reference(Board())
            await trio.sleep_forever()

        with pytest.raises(UsageError, match="make_pair was not left in time after the check keeps_order"):
            await check_transport(make_pair, rules=[2])

    async def test_a_failure_goes_before_what_leaving_the_pair_raises(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            async with FAULTS["TypoInThePump"].make_pair() as pair:
                yield pair
            raise OSError("the broker does not end")

        with pytest.raises(ContractBroken) as caught:
            await check_transport(make_pair)
        [note] = caught.value.__notes__
        assert note.startswith("Leaving make_pair raised OSError('the broker does not end') in make_pair (test_kit")

    async def test_a_cancelled_check_ends_its_other_thread(self) -> None:
        [check] = [check for check in transport_checks([10]) if check.name == "follows_the_clock"]
        make_pair = Counted(pair_of(timeout=30.0))
        with trio.move_on_after(0.1) as scope:
            await check_transport(make_pair, checks=[check])
        assert scope.cancelled_caught
        assert len(make_pair.left) == make_pair.made == 2


class TestPairs:
    async def test_a_broker_is_restored_before_the_pair_is_opened_again(self) -> None:
        board = Board()
        happened: list[str] = []

        async def cut() -> None:
            happened.append("cut")
            await board.cut()

        async def restore() -> None:
            happened.append("restored")

        report = await check_transport(reference(board, cut=cut, restore=restore), rules=[5])
        assert happened == ["cut", "restored"] * 2 or happened == ["cut", "restored", "cut"] * 2
        assert [result.reason for result in report.skipped] == [
            "cut= stops a broker, and with it the listener (restore=)"
        ]

    async def test_two_transports_are_enough(self) -> None:
        def make() -> tuple[Any, Any]:
            wire = MemoryWire(1)
            return wire.client, wire.server

        report = await check_pair(make)
        assert len(report.passed) > 20
        assert not report.failed

    async def test_a_broken_one_of_two_transports_is_found(self) -> None:
        def make() -> tuple[Any, Any]:
            wire = MemoryWire(1)

            @asynccontextmanager
            async def broken(scope: Scope) -> AsyncGenerator[Any]:
                async with wire.server(scope) as channels:
                    reversed_ends: Any = (channels.receive, channels.send)
                    yield FrameChannels(*reversed_ends)

            return wire.client, broken

        with pytest.raises(ContractBroken, match="check opens"):
            await check_pair(make)

    async def test_a_proxy_that_cuts_is_ready(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            async with open_cuttable_proxy() as proxy:
                yield TransportPair(
                    "tcp://127.0.0.1:0",
                    through=lambda address: f"tcp://127.0.0.1:{proxy.forward(address)}",
                    cut=proxy.cut,
                )

        report = await check_transport(make_pair, rules=[5])
        assert report.skipped == []

    async def test_a_proxy_of_a_server_that_is_gone_ends_the_connection(self) -> None:
        async with open_cuttable_proxy() as proxy:
            with pytest.raises(UsageError, match="not to 'nowhere'"):
                proxy.forward("nowhere")
            async with await trio.open_tcp_stream("127.0.0.1", proxy.forward("tcp://127.0.0.1:1")) as stream:
                assert await stream.receive_some() == b""


class TestBadInput:
    """Arguments that make no pair are one clear error, and no broken contract."""

    async def test_a_rule_that_is_none(self) -> None:
        with pytest.raises(UsageError, match=r"no rule 99\. Its rules are 1 to 10"):
            await check_transport(memory_pair, rules=[99])

    async def test_rules_and_checks(self) -> None:
        with pytest.raises(UsageError, match="rules= or checks="):
            await check_transport(memory_pair, rules=[1], checks=transport_checks())

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({}, "needs serve=, what to serve in this process, or open="),
            ({"open": "tcp://h:1", "through": str}, "takes open= or through=, not both"),
            ({"serve": "tcp://127.0.0.1:0", "restore": trio.sleep}, "restore= comes after cut="),
            ({"serve": MemoryWire(1).client}, "can be opened, but not served"),
            ({"serve": "nats://h"}, "no transport for the scheme 'nats'"),
            ({"serve": "tcp://127.0.0.1:0", "unreachable": StdioServer()}, "can be served, but not opened"),
        ],
    )
    def test_a_pair_that_is_none(self, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(UsageError, match=says):
            TransportPair(**arguments)

    @pytest.mark.parametrize("arguments", [{"timeout": 0}, {"heartbeat": -1}])
    def test_times_that_are_none(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must be > 0"):
            TransportPair("tcp://127.0.0.1:0", **arguments)

    async def test_no_address_and_nothing_to_open(self) -> None:
        with pytest.raises(ContractBroken, match="the server reports no address, so what clients open is not known"):
            await check_transport(TransportPair(Reference(Board())))

    async def test_a_function_that_is_no_context_manager(self) -> None:
        async def make_pair() -> AsyncGenerator[TransportPair]:
            yield reference(Board())

        with pytest.raises(UsageError, match="asynccontextmanager above it"):
            await check_transport(make_pair)  # type: ignore[arg-type] # the mistake

    async def test_something_else_than_a_pair(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[str]:
            yield "tcp://127.0.0.1:0"

        with pytest.raises(UsageError, match="has to yield a TransportPair, not 'tcp"):
            await check_transport(make_pair)  # type: ignore[arg-type] # the mistake

    async def test_a_pair_that_cannot_be_set_up(self) -> None:
        @asynccontextmanager
        async def make_pair() -> AsyncGenerator[TransportPair]:
            async with open_bare_nursery() as tasks:
                tasks.start_soon(trio.sleep_forever)
                await trio.run_process(["/no/such/broker"])
            yield reference(Board())

        with pytest.raises(FileNotFoundError, match="/no/such/broker"):
            await check_transport(make_pair)


class TestReport:
    async def test_a_report_is_a_table(self) -> None:
        report = await check_transport(memory_pair, rules=[1], seed=7)
        lines = str(report).splitlines()
        assert lines[0].split() == ["rule", "check", "outcome", "seconds"]
        assert lines[1].split()[:3] == ["1", "opens", "passed"]
        assert lines[4].endswith("the pair has no taken=")
        assert lines[5].startswith("4 checks: 3 passed, 1 skipped, 0 failed in ")
        assert lines[5].endswith(", seed 7")

    async def test_a_wire_that_carries_more_than_it_says_is_told(self) -> None:
        class SaysNothing(Reference):
            @asynccontextmanager
            async def carry(self, end: Any, scope: Scope) -> AsyncGenerator[Any]:
                async with super().carry(end, scope) as channels:
                    yield attrs.evolve(channels, carries="text")

        report = await check_transport(pair_of(SaysNothing), rules=[8])
        assert ["carries='bytes'" in hint for hint in report.hints] == [True]
        assert "hint: the wire carries any bytes" in str(report)

    @pytest.mark.parametrize("check", transport_checks([3, 4]))
    async def test_checks_are_parameters_of_a_test(self, check: Any, request: pytest.FixtureRequest) -> None:
        assert request.node.name.endswith(f"[{check.rule}-{check.name}]")
        [result] = (await check_transport(memory_pair, checks=[check])).passed
        assert result.name == check.name

    def test_a_failure_is_one_error_that_says_everything(self) -> None:
        """Outside of a group, although the pair is made with a nursery."""

        class Bug(Carrier):
            async def write(self) -> None:
                async for frame in self.outgoing:
                    if self.scope.settings.role == "server" and b"check/note" not in frame.payload:
                        raise KeyError("bug")
                    await self.end.send(frame.payload)
                await self.end.send(None)

        with pytest.raises(ContractBroken) as caught:
            trio.run(partial(check_transport, Counted(pair_of(carrier=Bug)), seed=3))
        broken = caught.value
        assert (broken.rule, broken.check, broken.side, broken.step) == (1, "opens", "client", 4)
        first, rule, happened, client, server, look = str(broken).splitlines()
        assert first == "rule 1, check opens, the client's side, step 4, seed 3"
        assert rule == "The rule: Entering returns once messages can be sent, or raises one plain ConnectError"
        assert happened.startswith("What happened: ")
        assert "Undelivered" in happened or "ConnectionLost" in happened
        assert client.startswith("client: the connection is ")
        assert server.startswith("server: its transport raised KeyError('bug') in write (test_kit.py:")
        assert look.startswith("Look at: what both sides do before they yield")

    async def test_a_step_tells_what_was_awaited_for_how_long(self) -> None:
        with pytest.raises(ContractBroken) as caught:
            await check_transport(FAULTS["DropsWhatIsTooLarge"].make_pair, rules=[8])
        assert caught.value.what_happened == (
            "waited 0.5 s for the Undelivered of request 2, whose response is over the limit, in vain"
        )
        assert caught.value.__cause__ is None

    async def test_an_exception_of_a_transport_is_the_cause(self) -> None:
        with pytest.raises(ContractBroken) as caught:
            await check_transport(FAULTS["YieldsNothing"].make_pair)
        assert "a transport yields FrameChannels(send, receive), and this one yielded None" in str(
            caught.value.__cause__
        )


class TestCommand:
    """``python -m trioxport.testing TARGET``."""

    def test_both_sides_in_one_process(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["tcp://127.0.0.1:0", "--rule", "3", "--rule", "6", "--seed", "5"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines[1:3]] == ["loses_nothing_when_cancelled", "keeps_exception_of_block"]
        assert lines[-1].endswith("seed 5")

    def test_the_peer_in_another_process(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["tcp://127.0.0.1:0", "--peer-process", "--rule", "6", "--codec", "JSON"]) == 0
        assert "3 checks: 3 passed, 0 skipped, 0 failed" in capsys.readouterr().out

    def test_as_a_program(self) -> None:
        command = [sys.executable, "-m", "trioxport.testing", "memory://checked", "--rule", "3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 checks: 1 passed" in done.stdout

    def test_a_rule_that_does_not_hold(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        board = Board()
        monkeypatch.setattr(
            "trioxport.targets._registered", {"broken": lambda url: FAULTS["Reorders"].transport(board)}
        )
        monkeypatch.setattr(Carrier, "write", FAULTS["Reorders"].carrier.write)
        assert main(["broken:", "--rule", "2", "--timeout", "0.5"]) == 1
        assert "rule 2, check keeps_order" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["nats://h"], "no transport for the scheme 'nats'"),
            (["tcp://127.0.0.1:0", "--rule", "11"], "no rule 11"),
            (["tcp://192.0.2.1:1", "--peer-process", "--rule", "3", "--timeout", "1"], "did not serve within 1 s"),
        ],
    )
    @pytest.mark.filterwarnings("default::ResourceWarning")
    def test_arguments_that_cannot_be_right(
        self, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 2
        assert says in capsys.readouterr().err

    def test_a_target_that_cannot_be_served_reaches_another_process(self, capsys: pytest.CaptureFixture[str]) -> None:
        peer = Path(__file__).parents[1] / "programs" / "check_peer.py"
        assert main([f"stdio:{sys.executable} {peer} newline JSON", "--rule", "3"]) == 0
        assert "1 passed" in capsys.readouterr().out


class TestFaults:
    async def conversation(self, faults: Faults, count: int = 50) -> list[object]:
        """The numbers, or the errors' names, that a peer receives when ``count`` notes are sent through ``faults``."""
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
