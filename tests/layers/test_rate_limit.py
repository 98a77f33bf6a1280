"""The rate limit: who may send when, against a plain reference, and what it does to both directions of a connection."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.scripted_connection import accepted_peer
from trioxport import Connection, ErrorResponse, Message, Notification, RateLimited, Request, Response, UsageError
from trioxport.layers import Rate, RateLimit, TokenBucket
from trioxport.testing import check_layer

PLENTY = Rate(1e6)

senders = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 1.1, 5.0]), st.sampled_from([math.inf, 0.45, 1.73, 3.91])),
    min_size=1,
    max_size=25,
)


def reference(rate: Rate, arrivals: list[float], patience: list[float]) -> list[float | None]:
    """The time at which each sender passes, first come, first served; None for one that gives up before."""
    tokens, counted_at, free_at = float(rate.burst), 0.0, 0.0
    passed: list[float | None] = []
    for arrival, seconds in zip(arrivals, patience, strict=True):
        at = max(arrival, free_at)
        tokens, counted_at = min(rate.burst, tokens + (at - counted_at) / rate.interval), at
        granted = at + max(0.0, (1 - tokens) * rate.interval)
        if granted - arrival < 1e-6:
            granted = arrival
        free_at = max(at, min(granted, arrival + seconds))
        tokens, counted_at = min(rate.burst, tokens + (free_at - counted_at) / rate.interval), free_at
        if granted <= arrival + seconds:
            passed.append(granted)
            tokens -= 1
        else:
            passed.append(None)
    return passed


@given(st.builds(Rate, st.sampled_from([1, 3]), per=st.sampled_from([1.0, 7.0]), burst=st.integers(1, 3)), senders)
@settings(max_examples=100, deadline=None)
def test_senders_pass_in_turn_as_soon_as_the_rate_allows(rate: Rate, plan: list[tuple[float, float]]) -> None:
    arrivals = list(accumulate(gap for gap, _ in plan))
    patience = [seconds for _, seconds in plan]
    passed: list[float | None] = [None] * len(plan)

    async def send_one(connection: Connection, number: int, started: float) -> None:
        with trio.move_on_after(patience[number]):
            await connection.tx.send(Notification("note", {"number": number}))
            passed[number] = trio.current_time() - started

    async def run() -> None:
        async with accepted_peer(RateLimit(rate)) as (connection, _), trio.open_nursery() as nursery:
            started = trio.current_time()
            for number, arrival in enumerate(arrivals):
                await trio.sleep_until(started + arrival)
                nursery.start_soon(send_one, connection, number, started)
                await wait_all_tasks_blocked()

    trio.run(run, clock=MockClock(autojump_threshold=0))
    expected = reference(rate, arrivals, patience)
    assert [at is None for at in passed] == [at is None for at in expected]
    assert [at for at in passed if at is not None] == pytest.approx([at for at in expected if at is not None], abs=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        RateLimit(PLENTY, PLENTY),
        RateLimit(Rate(5000, burst=1), Rate(5000, burst=1)),
        RateLimit(TokenBucket(PLENTY), on_limit="raise"),
        RateLimit(),
    ],
    ids=["never reached", "reached", "shared, raising", "none"],
)
@pytest.mark.deadline(60)
async def test_the_contract_holds(layer: RateLimit) -> None:
    await check_layer(layer)


async def test_a_send_over_the_limit_raises_and_tells_when_to_come_back(autojump_clock: MockClock) -> None:
    async with accepted_peer(RateLimit(Rate(2, per=10), on_limit="raise")) as ((tx, _), scripted):
        for request_id in (1, 2):
            await tx.send(Request(request_id, "ping"))
            await scripted.request()
        with pytest.raises(RateLimited, match="Send less often") as caught:
            await tx.send(Request(3, "ping"))
        assert caught.value.retry_after == pytest.approx(5) and caught.value.outcome == "not_sent"
        assert scripted.nothing_sent()
        await trio.sleep(caught.value.retry_after or 0)
        await tx.send(Request(3, "ping"))


@pytest.mark.parametrize("on_limit", ["wait", "raise"])
async def test_answers_and_cancellations_are_never_held_back(on_limit: str) -> None:
    free: list[Message] = [
        Response(7, {}),
        ErrorResponse(8, -1, "no"),
        Notification("notifications/cancelled", {"requestId": 1}),
    ]
    layer = RateLimit(Rate(1, per=3600), Rate(1, per=3600), on_limit=on_limit)  # type: ignore[arg-type]  # one of both
    async with accepted_peer(layer) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        await scripted.request()
        for message in free:
            await tx.send(message)
            assert await scripted.sent() == message
        scripted.say(Request(1, "roots/list"))
        assert isinstance(await rx.receive(), Request)
        scripted.say(free[-1])
        assert await rx.receive() == free[-1]


async def test_a_limit_is_each_connection_s_own_and_a_bucket_is_shared(autojump_clock: MockClock) -> None:
    async def seconds_for_two(layer: RateLimit) -> float:
        started = trio.current_time()
        async with accepted_peer(layer) as (first, _), accepted_peer(layer) as (second, _):
            await first.tx.send(Request(1, "ping"))
            await second.tx.send(Request(1, "ping"))
        return trio.current_time() - started

    rate = Rate(1, per=8)
    assert await seconds_for_two(RateLimit(rate)) == 0
    assert await seconds_for_two(RateLimit(TokenBucket(rate))) == pytest.approx(8)


async def test_what_is_received_too_fast_is_held_up_in_order_and_lost_by_no_cancellation(
    autojump_clock: MockClock,
) -> None:
    async with accepted_peer(RateLimit(receive=Rate(1, per=4))) as ((_, rx), scripted):
        messages: list[Message] = [Notification("note", {"number": number}) for number in range(3)]
        for message in messages:
            scripted.say(message)
        started = trio.current_time()
        received: list[tuple[object, float]] = []
        while len(received) < 3:
            with trio.move_on_after(1.5):
                received.append((await rx.receive(), trio.current_time() - started))
    assert [message for message, _ in received] == messages
    assert [at for _, at in received] == pytest.approx([0, 4, 8])


async def test_who_comes_while_others_wait_waits_behind_them(autojump_clock: MockClock) -> None:
    order: list[str] = []

    async with accepted_peer(RateLimit(Rate(1))) as ((tx, _), _), trio.open_nursery() as nursery:

        async def send(name: str) -> None:
            await tx.send(Notification(name))
            order.append(name)

        await send("first")
        nursery.start_soon(send, "waiting")
        await trio.sleep(1 - 5e-7)  # the token is there already, as@scripted@as rounding errors are forgiven
        nursery.start_soon(send, "new")
    assert order == ["first", "waiting", "new"]


async def test_several_receivers_get_one_message_each(autojump_clock: MockClock) -> None:
    received: list[object] = []

    async with accepted_peer(RateLimit(receive=Rate(1, per=4))) as ((_, rx), scripted):

        async def receive() -> None:
            message = await rx.receive()
            assert isinstance(message, Notification) and isinstance(message.params, dict)
            received.append(message.params["number"])

        async with trio.open_nursery() as nursery:
            for number in range(2):
                scripted.say(Notification("note", {"number": number}))
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
            nursery.start_soon(receive)  # behind what the second holds up
            await trio.sleep(20)
            assert received == [0, 1]
            scripted.say(Notification("note", {"number": 2}))
    assert received == [0, 1, 2]


async def test_closing_ends_the_wait_of_both_directions(autojump_clock: MockClock) -> None:
    rate = Rate(1, per=3600)
    async with accepted_peer(RateLimit(rate, rate)) as ((tx, rx), scripted):
        for number in range(2):
            scripted.say(Notification("note", {"number": number}))
        await tx.send(Notification("note"))
        await rx.receive()

        async def fails_to_send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await tx.send(Notification("note"))

        async def fails_to_receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await rx.receive()

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails_to_send)
                nursery.start_soon(fails_to_send)
                nursery.start_soon(fails_to_receive)
                await wait_all_tasks_blocked()
                await tx.aclose()
                await rx.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await rx.receive()


def test_what_happens_at_the_limit_is_one_of_two_things() -> None:
    with pytest.raises(UsageError, match="on_limit"):
        RateLimit(Rate(1), on_limit="drop")  # type: ignore[arg-type]  # the mistake under test
