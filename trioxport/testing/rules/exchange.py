"""Rules 1 to 3: connecting, listening, sending, receiving."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack
from typing import Final

import trio

from trioxport._core.nursery import open_bare_nursery, sole_exception
from trioxport.connection import Connection
from trioxport.errors import ConnectError, UsageError
from trioxport.frames import Limits
from trioxport.messages import Request, Response
from trioxport.opening import open_transport, serve_transport
from trioxport.testing.checked import CheckedConnection, number_of, numbered
from trioxport.testing.harness import ContractHarness
from trioxport.testing.peer import LIMITS
from trioxport.testing.progress import Finding, expect, raised, shown

PAUSES_SECONDS: Final = (0.5, 2.0, 8.0)
"""Times in which the peer reads nothing, in turn: a slow machine takes longer to fill what is between the two sides."""
CONNECTIONS: Final = 3


async def opens(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        expect(await end.ask("check/echo", {"a": 1}) == {"a": 1}, "the peer's answer came back changed")

    await harness.on_both_sides(check)


async def serves_several_at_once(harness: ContractHarness) -> None:
    async with harness.serving() as target, AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(harness.open(target)) for _ in range(CONNECTIONS)]
        for number, end in enumerate(reversed(ends)):
            answer = await end.ask("check/echo", {"number": number})
            expect(answer == {"number": number}, f"one of {CONNECTIONS} connections got {shown(answer)}")


async def fails_plainly(harness: ContractHarness) -> None:
    unreachable = harness.pair.unreachable
    assert unreachable is not None
    settings = harness.settings
    try:
        with harness.progress.awaiting("open_transport() to refuse the unreachable target"):
            async with open_transport(unreachable, layers=settings.layers, codec=settings.codec):
                raise Finding("the unreachable target was opened")
    except ConnectError as error:
        expect(bool(error.target), "the ConnectError names no target")
        expect(bool(str(error)), "the ConnectError says nothing")
        kind = type(error) is not ConnectError or error.retryable
        expect(kind, f"the unreachable target was taken for a bug of the transport: {raised(error.__cause__ or error)}")


async def refuses_taken_address(harness: ContractHarness) -> None:
    taken = harness.pair.taken
    assert taken is not None
    harness.progress.on("server")
    with trio.move_on_after(harness.progress.timeout):
        try:
            await serve_transport(_ignore_connection, taken)
        except UsageError as error:
            cause = None if error.__cause__ is None else sole_exception(error.__cause__)
            if cause is None or isinstance(cause, OSError | UsageError):
                return
            raise Finding(f"listening at an address in use raised {raised(cause)}") from error
    raise Finding("listening at an address in use raised nothing: two servers share it, or one of them gets nothing")


async def _ignore_connection(connection: Connection) -> None:
    del connection


async def keeps_order(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        for number in range(100):
            await end.note(number)
        await _expect_noted(end, 100, "messages in order")

    await harness.on_both_sides(check)


async def keeps_any_limits(harness: ContractHarness) -> None:
    for count in (0, 1):
        harness.progress.condition = f"with max_buffered_messages={count}"
        limits = Limits(max_message_size=LIMITS.max_message_size, max_buffered_messages=count)

        await harness.with_limits(limits).on_both_sides(_send_ten)


async def _send_ten(end: CheckedConnection) -> None:
    for number in range(10):
        await end.note(number)
    await _expect_noted(end, 10, "messages")


async def takes_many_senders(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        async def send(first: int) -> None:
            for number in range(first, first + 10):
                await end.connection.tx.send(numbered(number))

        with harness.progress.awaiting("10 tasks to send 10 messages each"):
            async with open_bare_nursery() as tasks:
                for first in range(0, 100, 10):
                    tasks.start_soon(send, first)
        _expect_all(sorted(await end.noted()), 100, "messages of 10 tasks")

    await harness.on_both_sides(check)


async def _expect_noted(end: CheckedConnection, count: int, what: str) -> None:
    noted = await end.noted()
    if len(noted) < count and len(await end.noted()) > len(noted):
        raise Finding(
            f"of {count} {what} only {len(noted)} had arrived when the request behind them was answered, and more "
            "after that: they came in another order"
        )
    _expect_all(noted, count, what)


def _expect_all(noted: list[int], count: int, what: str) -> None:
    if noted == list(range(count)):
        return
    missing = sorted(set(range(count)) - set(noted))
    facts = [
        f"{len(missing)} were lost ({shown(missing)})" if missing else "",
        f"{len(noted) - len(set(noted))} came twice" if len(noted) > len(set(noted)) else "",
        "they came in another order" if noted != sorted(noted) else "",
    ]
    raise Finding(f"of {count} {what} {' and '.join(fact for fact in facts if fact)}: {shown(noted)}")


async def pushes_back(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        count, blocked, pause = 0, False, 0.0
        for seconds in PAUSES_SECONDS:
            await end.ask("check/pause", {"seconds": seconds})
            pause = trio.current_time() + seconds
            count, blocked = await end.fill(numbered, first=count, until=pause)
            if blocked:
                break
        expect(blocked, f"no send had to wait although the peer read nothing for {PAUSES_SECONDS[-1]:g} s")
        await trio.sleep_until(pause)  # a request that waits for the peer could run into a layer's timeout
        noted = await end.noted()
        missing, extra = sorted(set(range(count)) - set(noted)), sorted(set(noted) - set(range(count)))
        expect(not missing, f"of {count} messages that send() accepted {shown(missing)} were lost")
        expect(not extra, f"a send() that was cancelled had sent its message ({shown(extra)})")
        expect(noted == list(range(count)), "behind a peer that did not read messages came twice, or in another order")

    await harness.on_both_sides(check)


async def loses_nothing_when_cancelled(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        await end.send(Request(1, "check/notify", {"count": 100}))
        numbers: list[int] = []
        with harness.progress.awaiting("100 messages, with receives that are cancelled in between"):
            for turn in itertools.count():
                with trio.CancelScope() as scope:
                    if turn % 3 == 0:
                        scope.cancel()
                    elif turn % 3 == 1:
                        scope.deadline = trio.current_time() + turn % 7 / 5000
                    message = await end.connection.rx.receive()
                    if isinstance(message, Response):
                        break
                    numbers.append(number_of(message))
        _expect_all(numbers, 100, "messages of which no receive but cancelled ones was given up")

    await harness.on_both_sides(check)
