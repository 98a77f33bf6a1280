"""``open_bare_nursery``: the exception that leaves a nursery, of those of its body and its children."""

from __future__ import annotations

import pytest
import trio

from trioxport._core.nursery import open_bare_nursery


async def _fail() -> None:
    raise ValueError("of a task")


async def _fail_beside_tasks() -> None:
    async with open_bare_nursery() as outer:
        outer.start_soon(_fail)
        async with open_bare_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
            await trio.sleep_forever()


def test_a_task_fails_while_several_others_are_cancelled() -> None:
    """Their cancellations come out of the inner block as a group, which is no exception of the body."""
    with pytest.raises(ValueError, match="of a task"):
        trio.run(_fail_beside_tasks)


async def test_cancellations_of_several_tasks_end_with_the_scope() -> None:
    with trio.CancelScope() as scope:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(trio.sleep_forever)
            tasks.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_exception_of_the_body_goes_on_when_tasks_fail() -> None:
    async def fail_too() -> None:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(_fail)
            raise KeyError("of the body")

    with pytest.raises(KeyError):
        await fail_too()
