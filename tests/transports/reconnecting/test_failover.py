"""Failover between targets, on the mock clock."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.support.scripted_transport import EVERY_SECOND, ScriptedTarget, policy
from trioxport import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    Failover,
    NameResolutionError,
    Request,
    Response,
    ServerUnreachable,
    SpawnError,
    Undelivered,
    UsageError,
    open_transport,
)
from trioxport.abc import FrameChannels

PING = Request(1, "ping")


def three() -> tuple[ScriptedTarget, ScriptedTarget, ScriptedTarget]:
    return ScriptedTarget("one:"), ScriptedTarget("two:"), ScriptedTarget("three:")


async def test_the_first_that_opens_is_used(autojump_clock: MockClock) -> None:
    one, two, three_ = three()
    one.refusals.append(NameResolutionError("no such host"))
    async with open_transport(Failover([one, two, three_])) as connection:
        scripted = await two.accepted_peer()
        assert connection.info.target == "two:"
        await connection.tx.send(PING)
        scripted.answer(await scripted.request())
        assert await connection.rx.receive() == Response(1, None)
    assert (len(one.attempts), len(two.attempts), len(three_.attempts)) == (1, 1, 0)


async def test_on_loss_the_next_is_used_and_after_the_last_the_first(autojump_clock: MockClock) -> None:
    targets = three()
    async with open_transport(Failover(targets)) as connection:
        tx, rx = connection
        for number, target in enumerate(targets * 2):
            scripted = await target.accepted_peer()
            assert connection.info.target == str(target)
            answered, left = Request(f"{number} a", "ping"), Request(f"{number} b", "tools/call")
            await tx.send(answered)
            await tx.send(left)
            scripted.answer(answered)
            assert await rx.receive() == Response(answered.id, None)
            scripted.lose()
            settled = await rx.receive()
            assert isinstance(settled, Undelivered) and settled.original == left


async def test_alone_it_gives_up_after_one_round_without_waiting(autojump_clock: MockClock) -> None:
    one, two, three_ = three()
    async with open_transport(Failover([one, two, three_])) as (_, rx):
        started = trio.current_time()
        for target in (one, two, three_):
            target.refusals.extend([ServerUnreachable(f"{target} is down")] * 100)
        (await one.accepted_peer()).lose()
        with pytest.raises(ConnectionLost, match=r"two:: two: is down; three:: three: is down; one:: one: is down"):
            await rx.receive()
        assert trio.current_time() - started < 0.1


async def test_alone_it_gives_up_on_targets_that_open_and_say_nothing(autojump_clock: MockClock) -> None:
    targets = three()
    async with open_transport(Failover(targets)) as (_, rx):
        for target in (*targets, targets[0]):
            (await target.accepted_peer()).lose()
        with pytest.raises(ConnectionLost, match="gone"):
            await rx.receive()


async def test_under_reconnect_a_round_is_an_attempt(autojump_clock: MockClock) -> None:
    one, two, three_ = targets = three()
    reconnect = policy(backoff=EVERY_SECOND)
    async with open_transport(Failover(targets), reconnect=reconnect) as connection:
        for target in targets:
            target.refusals.extend([ServerUnreachable("down")] * 5)
        scripted = await one.accepted_peer()
        scripted.lose()
        scripted = await two.accepted_peer()
        assert [len(target.attempts) for target in targets] == [6, 6, 5]
        rounds = two.attempts
        assert all(0 < later - earlier <= 1 for earlier, later in pairwise(rounds))
        assert three_.attempts == rounds[:5]
        assert connection.info.target == "two:"


async def test_nothing_opens(autojump_clock: MockClock) -> None:
    one, two, three_ = three()
    one.refusals.append(ServerUnreachable("refused", retry_after=60))
    two.refusals.append(SpawnError("no such program"))
    three_.refusals.append(ServerUnreachable("busy", retry_after=30))
    with pytest.raises(ConnectError, match=r"none of 3 targets opens: one:: refused; two:: no such program;") as caught:
        async with open_transport(Failover([one, two, three_])):
            pass
    assert type(caught.value) is ConnectError
    assert caught.value.retryable and caught.value.retry_after == 30
    assert caught.value.target == "one: or two: or three:"


async def test_what_is_wrong_for_good_everywhere_is_not_tried_again(autojump_clock: MockClock) -> None:
    one, two, _ = three()
    for target in (one, two):
        target.refusals.extend([SpawnError("no such program")] * 9)
    with pytest.raises(ConnectError) as caught:
        async with open_transport(Failover([one, two]), reconnect=policy(retry_first=True)):
            pass
    assert not caught.value.retryable
    assert len(one.attempts) == 1


async def test_a_target_that_hangs_is_left_for_the_next(autojump_clock: MockClock) -> None:
    class Hanging:
        async def __aenter__(self) -> FrameChannels:
            await trio.sleep_forever()
            raise AssertionError

        async def __aexit__(self, *_exc: object) -> None:
            raise AssertionError("was never entered")

    _, two, _ = three()
    async with open_transport(Failover([lambda _scope: Hanging(), two], attempt_timeout=4)):
        assert two.attempts == [4]
    with pytest.raises(ConnectTimeout, match="no connection within 3 s"):
        async with open_transport(Failover([lambda _scope: Hanging(), two], attempt_timeout=4), connect_timeout=3):
            pass


async def test_the_handshake_moves_along(autojump_clock: MockClock) -> None:
    """Here without a policy of its own, too."""
    one, two, _ = three()
    hello = Request(1, "initialize", {"protocolVersion": "2025-11-25"})
    async with open_transport(Failover([one, two])) as (tx, rx):
        scripted = await one.accepted_peer()
        await tx.send(hello)
        scripted.answer(await scripted.request(), {"protocolVersion": "2025-11-25"})
        await rx.receive()
        scripted.lose()
        scripted = await two.accepted_peer()
        assert (await scripted.request()).params == hello.params


def test_how_it_is_described() -> None:
    assert str(Failover(["tcp://127.0.0.1:1", "stdio:server --token secret"])) == (
        "tcp://127.0.0.1:1 or stdio:server --token ***"
    )


@pytest.mark.parametrize(
    ("targets", "complaint"), [([], "there is no target to open"), (["nowhere:"], "no transport for the scheme")]
)
def test_targets_that_cannot_be(targets: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Failover(targets)
