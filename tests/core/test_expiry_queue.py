"""The queue of items that wait for the same time: one task expires each in its turn."""

from __future__ import annotations

import trio
import trio.testing

from trioxport._core.expiry_queue import ExpiryQueue


async def test_items_expire_in_their_order_unless_they_are_taken_out(autojump_clock: trio.testing.MockClock) -> None:
    expired: list[tuple[str, float]] = []
    began = trio.current_time()
    queue = ExpiryQueue[str](10, lambda item: expired.append((item, trio.current_time() - began)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run)
        queue.add("taken out")
        queue.add("first")
        await trio.sleep(3)
        queue.add("second")
        queue.discard("taken out")
        assert [(item, queue.waited(item)) for item in queue] == [("first", 3), ("second", 0)]
        await trio.sleep(20)
        queue.discard("unknown")
        queue.add("first")  # the queue was empty: its task waits for this
        await trio.sleep(9)
        assert expired == [("first", 10), ("second", 13)]
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert expired == [("first", 10), ("second", 13), ("first", 33)]
