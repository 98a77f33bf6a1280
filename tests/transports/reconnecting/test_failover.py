"""Failover between targets, on the mock clock."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.support.scripted_transport import EVERY_SECOND, Shore, policy
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


def three() -> tuple[Shore, Shore, Shore]:
    return Shore("one:"), Shore("two:"), Shore("three:")


async def test_the_first_that_opens_is_used(autojump_clock: MockClock) -> None:
    one, two, three_ = three()
    one.refusals.append(NameResolutionError("no such host"))
    async with open_transport(Failover([one, two, three_])) as connection:
        far = await two.far_end()
        assert connection.info.target == "two:"
        await connection.tx.send(PING)
        far.answer(await far.request())
        assert await connection.rx.receive() == Response(1, None)
    assert (len(one.attempts), len(two.attempts), len(three_.attempts)) == (1, 1, 0)


async def test_on_loss_the_next_is_used_and_after_the_last_the_first(autojump_clock: MockClock) -> None:
    shores = three()
    async with open_transport(Failover(shores)) as connection:
        tx, rx = connection
        for number, shore in enumerate(shores * 2):
            far = await shore.far_end()
            assert connection.info.target == str(shore)
            answered, left = Request(f"{number} a", "ping"), Request(f"{number} b", "tools/call")
            await tx.send(answered)
            await tx.send(left)
            far.answer(answered)
            assert await rx.receive() == Response(answered.id, None)
            far.lose()
            settled = await rx.receive()
            assert isinstance(settled, Undelivered) and settled.original == left


async def test_alone_it_gives_up_after_one_round_without_waiting(autojump_clock: MockClock) -> None:
    one, two, three_ = three()
    async with open_transport(Failover([one, two, three_])) as (_, rx):
        started = trio.current_time()
        for shore in (one, two, three_):
            shore.refusals.extend([ServerUnreachable(f"{shore} is down")] * 100)
        (await one.far_end()).lose()
        with pytest.raises(ConnectionLost, match=r"two:: two: is down; three:: three: is down; one:: one: is down"):
            await rx.receive()
        assert trio.current_time() - started < 0.1


async def test_alone_it_gives_up_on_targets_that_open_and_say_nothing(autojump_clock: MockClock) -> None:
    shores = three()
    async with open_transport(Failover(shores)) as (_, rx):
        for shore in (*shores, shores[0]):
            (await shore.far_end()).lose()
        with pytest.raises(ConnectionLost, match="gone"):
            await rx.receive()


async def test_under_reconnect_a_round_is_an_attempt(autojump_clock: MockClock) -> None:
    one, two, three_ = shores = three()
    reconnect = policy(backoff=EVERY_SECOND)
    async with open_transport(Failover(shores), reconnect=reconnect) as connection:
        for shore in shores:
            shore.refusals.extend([ServerUnreachable("down")] * 5)
        far = await one.far_end()
        far.lose()
        far = await two.far_end()
        assert [len(shore.attempts) for shore in shores] == [6, 6, 5]
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
    for shore in (one, two):
        shore.refusals.extend([SpawnError("no such program")] * 9)
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
        far = await one.far_end()
        await tx.send(hello)
        far.answer(await far.request(), {"protocolVersion": "2025-11-25"})
        await rx.receive()
        far.lose()
        far = await two.far_end()
        assert (await far.request()).params == hello.params


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
