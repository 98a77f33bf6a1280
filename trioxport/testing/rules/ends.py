"""Rules 4 to 6: half-close, the end and the loss, and what is raised on leaving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trioxport.connection import Connection
from trioxport.errors import ConnectionLost, TransportError
from trioxport.messages import Request, Response, Undelivered
from trioxport.testing.bench import PATIENCE, Bench, Broken, expect
from trioxport.testing.rules.talk import ask, note, number_of, on_both_sides


async def half_closes(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        tx, rx = connection
        for request_id in (1, 2, 3):
            await tx.send(Request(request_id, "check/answer_at_end"))
        for number in range(20):
            await note(connection, number)
        await tx.aclose()
        try:
            await note(connection, 20)
        except trio.ClosedResourceError:
            pass
        else:
            raise Broken("send after tx.aclose() raised nothing")
        answers = [message async for message in rx]
        expect(
            [answer.id for answer in answers if isinstance(answer, Response)] == [1, 2, 3],
            f"after the half-close came {answers}, where three responses were due",
        )
        last = answers[-1]
        assert isinstance(last, Response)
        expect(last.result["noted"] == list(range(20)), "what was accepted before the half-close was not flushed")

    await on_both_sides(bench, check)


async def sees_half_close(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        await connection.tx.send(Request(1, "check/half_close"))
        await _expect_unanswered(connection, {1})
        await _expect_end(connection)

    await on_both_sides(bench, check)


async def ends_orderly(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        tx, rx = connection
        await tx.send(Request(1, "check/silent"))
        await tx.send(Request(2, "check/notify", {"count": 5}))
        await tx.send(Request(3, "check/end"))
        numbers = [number_of(await rx.receive()) for _ in range(5)]
        expect(numbers == list(range(5)), f"five notifications arrived as {numbers}")
        answer = await rx.receive()
        expect(isinstance(answer, Response) and answer.id == 2, f"the response was due, not {answer}")
        await _expect_unanswered(connection, {1, 3})
        await _expect_end(connection)

    await on_both_sides(bench, check)


async def reports_loss(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        for request_id in (1, 2, 3):
            await connection.tx.send(Request(request_id, "check/silent"))
        await ask(connection, "check/echo")
        await bench.cut(connection)
        left = await _unanswered(connection, 3 if bench.link.cut else 4)
        expect(
            {1, 2, 3} <= left.keys(),
            f"three requests were unanswered, but Undelivered came for {sorted(left, key=str)}",
        )
        for undelivered in left.values():
            expect(undelivered.outcome == "unknown", f"a written request came back as {undelivered.outcome!r}")
        for _ in range(2):
            await _expect_loss(connection.rx.receive)
        await _expect_loss(lambda: note(connection, 1))

    await _on_sides_that_can_be_cut(bench, check)


async def _on_sides_that_can_be_cut(bench: Bench, check: Callable[[Connection], Awaitable[None]]) -> None:
    if bench.link.cut is not None:
        await on_both_sides(bench, check)
        return
    with trio.fail_after(2 * PATIENCE):
        async with bench.talk() as connection:
            await check(connection)


async def _unanswered(connection: Connection, count: int) -> dict[Any, Undelivered]:
    left: dict[Any, Undelivered] = {}
    for _ in range(count):
        message = await connection.rx.receive()
        expect(isinstance(message, Undelivered), f"an Undelivered was due, not {message}")
        assert isinstance(message, Undelivered)
        left[message.id] = message
    return left


async def _expect_unanswered(connection: Connection, ids: set[int]) -> None:
    left = await _unanswered(connection, len(ids))
    expect(
        left.keys() == ids, f"Undelivered was due for the requests {sorted(ids)}, but came for {sorted(left, key=str)}"
    )


async def _expect_end(connection: Connection) -> None:
    try:
        message = await connection.rx.receive()
    except trio.EndOfChannel:
        return
    raise Broken(f"after the peer's end came {message}")


async def _expect_loss(operation: Callable[[], Awaitable[object]]) -> None:
    try:
        result = await operation()
    except trio.BrokenResourceError as error:
        expect(isinstance(error, TransportError), f"a lost connection raised {error!r}, which is no TransportError")
        return
    raise Broken(f"a lost connection gave {result}")


class _OfTheBlock(Exception):
    pass


async def raises_unseen_failure(bench: Bench) -> None:
    try:
        with trio.fail_after(2 * PATIENCE):
            async with bench.talk() as connection:
                await ask(connection, "check/echo")
                await bench.cut(connection)
                await _until_noticed(connection)
    except ConnectionLost:
        return
    raise Broken("the connection was lost, nobody saw it, and leaving the block raised nothing")


async def keeps_exception_of_block(bench: Bench) -> None:
    await _keeps_exception(bench, lost=False)


async def keeps_exception_of_block_after_loss(bench: Bench) -> None:
    await _keeps_exception(bench, lost=True)


async def _keeps_exception(bench: Bench, *, lost: bool) -> None:
    mine = _OfTheBlock("of the block")
    try:
        with trio.fail_after(2 * PATIENCE):
            async with bench.talk() as connection:
                await ask(connection, "check/echo")
                if lost:
                    await bench.cut(connection)
                    await _until_noticed(connection)
                raise mine
    except _OfTheBlock as error:
        expect(error is mine, "the exception of the block came out as another object")


async def _until_noticed(connection: Connection) -> None:
    """Wait for the state to change, without looking at a channel: that would count as seeing the failure."""
    while connection.state == "open":  # noqa: ASYNC110 (there is no event to wait for)
        await trio.sleep(0.005)
