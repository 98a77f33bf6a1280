"""Rules 4 to 6: half-close, the end and the loss, and what is raised on leaving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trioxport.errors import ConnectionLost, TransportError
from trioxport.messages import Request, Response
from trioxport.testing.checked import CheckedConnection, number_of
from trioxport.testing.harness import KILL_ID, ContractHarness
from trioxport.testing.progress import Finding, expect, raised, shown

SILENT: Final = (1, 2, 3)
"""The ids of requests that the peer does not answer."""


async def half_closes(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        for request_id in (1, 2, 3):
            await end.send(Request(request_id, "check/answer_at_end"))
        for number in range(20):
            await end.note(number)
        await end.close_sending()
        try:
            await end.note(20)
        except trio.ClosedResourceError:
            pass
        else:
            raise Finding("send after tx.aclose() raised nothing")
        for request_id in (1, 2, 3):
            answer = await end.receive(f"the response to request {request_id} after the half-close")
            if not isinstance(answer, Response) or answer.id != request_id:
                raise Finding(f"in place of response {request_id} came {shown(answer)} after the half-close")
            noted = answer.result["noted"]
            expect(noted == list(range(20)), f"of 20 messages sent before the half-close arrived {shown(noted)}")
        await end.expect_end("the half-close, once the peer is done")

    await harness.on_both_sides(check)


async def sees_half_close(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        await end.send(Request(1, "check/half_close"))
        await end.receive_unanswered({1}, "the peer's half-close")
        await end.expect_end("the peer's half-close")

    await harness.on_both_sides(check)


async def ends_orderly(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        await end.send(Request(1, "check/silent"))
        await end.send(Request(2, "check/notify", {"count": 5}))
        await end.send(Request(3, "check/end"))
        numbers = [number_of(await end.receive(f"notification {number} of 5")) for number in range(5)]
        expect(numbers == list(range(5)), f"five notifications arrived as {numbers}")
        answer = await end.receive("the response to check/notify")
        expect(
            isinstance(answer, Response) and answer.id == 2,
            f"in place of the response that the peer sent just before its end came {shown(answer)}",
        )
        await end.receive_unanswered({1, 3}, "the peer's end")
        await end.expect_end("the peer's end")

    await harness.on_both_sides(check)


async def on_sides_that_can_be_cut(
    harness: ContractHarness, check: Callable[[CheckedConnection], Awaitable[None]]
) -> None:
    """Run ``check`` on both sides if the pair has a cut; a peer that kills itself takes its own side with it."""
    if harness.pair.cut is not None:
        await harness.on_both_sides(check)
        return
    async with harness.talk() as end:
        await harness.require_cut(end)
        await check(end)


async def reports_loss(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        for request_id in SILENT:
            await end.send(Request(request_id, "check/silent"))
        await end.ask("check/echo")
        await harness.cut(end)
        due = set(SILENT) if harness.pair.cut else {*SILENT, KILL_ID}
        for undelivered in (await end.receive_unanswered(due, "the loss")).values():
            expect(undelivered.outcome == "unknown", f"a written request came back as {undelivered.outcome!r}")
        for _ in range(2):
            await _expect_loss(lambda: end.receive("rx.receive() to raise ConnectionLost"), "rx.receive()")
        await _expect_loss(lambda: end.note(1), "tx.send()")

    await on_sides_that_can_be_cut(harness, check)


async def _expect_loss(operation: Callable[[], Awaitable[object]], name: str) -> None:
    try:
        result = await operation()
    except trio.BrokenResourceError as error:
        expect(isinstance(error, TransportError), f"{name} on a lost connection raised {raised(error)}")
    except trio.EndOfChannel:
        raise Finding(
            f"{name} on a lost connection raised EndOfChannel: the loss was taken for an orderly end"
        ) from None
    else:
        raise Finding(f"{name} on a lost connection raised nothing and returned {shown(result)}")


async def keeps_serving(harness: ContractHarness) -> None:
    async with harness.serving() as target:
        async with harness.open(target) as end:
            await end.ask("check/echo")
            await harness.cut(end)
            await _expect_loss(lambda: end.receive("rx.receive() to raise ConnectionLost"), "rx.receive()")
        async with harness.open(target) as end:
            await end.ask("check/echo", {"after": "the loss of another connection"})


class _ErrorOfBlock(Exception):
    pass


async def raises_unseen_failure(harness: ContractHarness) -> None:
    try:
        async with harness.talk() as end:
            await harness.require_cut(end)
            await end.ask("check/echo")
            await harness.cut(end)
            await _until_noticed(end)
    except ConnectionLost:
        return
    raise Finding("the connection was lost, no send or receive raised it, and leaving the block raised nothing")


async def keeps_exception_of_block(harness: ContractHarness) -> None:
    await _keeps_exception(harness, lost=False)


async def keeps_exception_of_block_after_loss(harness: ContractHarness) -> None:
    await _keeps_exception(harness, lost=True)


async def _keeps_exception(harness: ContractHarness, *, lost: bool) -> None:
    mine = _ErrorOfBlock("of the block")
    try:
        async with harness.talk() as end:
            if lost:
                await harness.require_cut(end)
            await end.ask("check/echo")
            if lost:
                await harness.cut(end)
                await _until_noticed(end)
            raise mine
    except _ErrorOfBlock as error:
        expect(error is mine, "the exception of the block came out as another object")


async def _until_noticed(end: CheckedConnection) -> None:
    """Wait for the loss without looking at a channel: that would count as seeing the failure."""
    with end.progress.awaiting("connection.state to show the loss, with no send and no receive under way"):
        async for state in end.connection.state_changes():
            if state != "open":
                return
