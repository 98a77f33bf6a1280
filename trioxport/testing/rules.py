"""The contract of a connection, rule by rule, as checks. Where a link is served here, both sides are checked."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio
from trio.testing import MockClock

from trioxport._supervisor import open_tasks
from trioxport.connection import Connection
from trioxport.errors import ConnectError, ConnectionLost, MessageTooLarge, TransportError
from trioxport.messages import ErrorResponse, Incoming, Notification, Request, Response, Undelivered
from trioxport.testing.bench import PATIENCE, Bench, Broken, Check, expect
from trioxport.testing.peer import LIMITS, RAW, CheckPeer

_ids: Final = itertools.count(1000)


@attrs.frozen
class Rule:
    """One numbered rule: what it says, the checks that show it, and what to look at when one fails."""

    says: str
    checks: tuple[Check, ...]
    advice: str


async def ask(connection: Connection, method: str, params: dict[str, Any] | None = None) -> Any:
    """Send a request and wait for its result; nothing else may come before that."""
    request = Request(next(_ids), method, params or {})
    await connection.tx.send(request)
    answer = await connection.rx.receive()
    expect(isinstance(answer, Response) and answer.id == request.id, f"{method} was answered by {answer}")
    assert isinstance(answer, Response)
    return answer.result


async def note(connection: Connection, number: int, ballast: str = "") -> None:
    """Send a numbered notification, which the peer keeps."""
    await connection.tx.send(Notification("check/note", {"number": number, "ballast": ballast}))


async def on_both_sides(bench: Bench, check: Callable[[Connection], Awaitable[None]]) -> None:
    """Run ``check`` on a client's connection, and on a server's where the server is here."""
    with trio.fail_after(2 * PATIENCE):
        async with bench.talk() as connection:
            await check(connection)
    if bench.link.server is not None:
        with trio.fail_after(2 * PATIENCE):
            async with bench.serve() as connection:
                await check(connection)


# 1. Entering.


async def opens(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        expect(await ask(connection, "check/echo", {"a": 1}) == {"a": 1}, "the peer's answer came back changed")

    await on_both_sides(bench, check)


async def fails_plainly(bench: Bench) -> None:
    if bench.link.unreachable is None:
        return
    try:
        with trio.fail_after(PATIENCE):
            async with bench.unreached():
                raise Broken("the unreachable target was opened")
    except ConnectError as error:
        expect(bool(error.target), "the ConnectError names no target")
        expect(bool(str(error)), "the ConnectError says nothing")


# 2. Sending.


async def keeps_order(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        for number in range(100):
            await note(connection, number)
        noted = (await ask(connection, "check/noted"))["noted"]
        expect(noted == list(range(100)), f"100 messages in order arrived as {noted}")

    await on_both_sides(bench, check)


async def takes_many_senders(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        async def send(first: int) -> None:
            for number in range(first, first + 10):
                await note(connection, number)

        async with open_tasks() as tasks:
            for first in range(0, 100, 10):
                tasks.start_soon(send, first)
        noted = (await ask(connection, "check/noted"))["noted"]
        expect(sorted(noted) == list(range(100)), f"100 messages of 10 tasks arrived as {noted}")

    await on_both_sides(bench, check)


async def pushes_back(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        await ask(connection, "check/pause", {"seconds": 0.5})
        accepted = await _send_until_blocked(connection)
        noted = (await ask(connection, "check/noted"))["noted"]
        expect(noted == accepted, "a cancelled send was accepted, or an accepted message is missing")

    await on_both_sides(bench, check)


async def _send_until_blocked(connection: Connection, most: int = 4000) -> list[int]:
    """Send messages of 32 KiB while the peer does not read; the numbers of those that were accepted."""
    ballast = "x" * 32 * 1024
    for number in range(most):
        with trio.move_on_after(0.1) as patience:
            await note(connection, number, ballast)
        if patience.cancelled_caught:
            return list(range(number))
    raise Broken(f"{most} messages of 32 KiB were accepted while the peer read none")


# 3. Receiving.


async def loses_nothing_when_cancelled(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        await connection.tx.send(Request(1, "check/notify", {"count": 100}))
        numbers: list[int] = []
        for turn in itertools.count():
            with trio.CancelScope() as scope:
                if turn % 3 == 0:
                    scope.cancel()
                elif turn % 3 == 1:
                    scope.deadline = trio.current_time() + turn % 7 / 5000
                message = await connection.rx.receive()
                if isinstance(message, Response):
                    break
                numbers.append(_number(message))
        expect(numbers == list(range(100)), f"100 messages arrived as {numbers} although only receives were cancelled")

    await on_both_sides(bench, check)


def _number(message: Incoming) -> int:
    expect(isinstance(message, Notification), f"a notification was due, not {message}")
    assert isinstance(message, Notification) and isinstance(message.params, dict)
    return int(message.params["number"])


# 4. Half-close.


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


# 5. The end.


async def ends_orderly(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        tx, rx = connection
        await tx.send(Request(1, "check/silent"))
        await tx.send(Request(2, "check/notify", {"count": 5}))
        await tx.send(Request(3, "check/end"))
        numbers = [_number(await rx.receive()) for _ in range(5)]
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


# 6. Failures that nobody saw, and exceptions of the block.


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
    for lost in (False, True):
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


# 7. Leaving.


async def flushes_on_leaving(bench: Bench) -> None:
    if bench.link.server is None:
        return
    peers: list[CheckPeer] = []
    over = trio.Event()

    async def handler(connection: Connection) -> None:
        peers.append(CheckPeer(connection))
        await peers[0].run()
        over.set()

    with trio.fail_after(2 * PATIENCE):
        async with bench.serving(handler) as target:
            async with bench.open(target) as connection:
                for number in range(200):
                    await note(connection, number)
            await over.wait()
    expect(
        peers[0].noted == list(range(200)), f"of 200 messages sent just before leaving {len(peers[0].noted)} arrived"
    )


async def leaves_in_time(bench: Bench) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with bench.talk(close_timeout=0.3) as connection:
            await ask(connection, "check/linger")
            started = trio.current_time()
        took = trio.current_time() - started
    expect(took < 0.3 + PATIENCE / 2, f"leaving took {took:.1f} s with a close_timeout of 0.3 s")


async def leaves_at_once_when_cancelled(bench: Bench) -> None:
    started = trio.current_time()
    with trio.fail_after(2 * PATIENCE):
        with trio.CancelScope() as scope:
            async with bench.talk(close_timeout=3600) as connection:
                await ask(connection, "check/linger")
                started = trio.current_time()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        took = trio.current_time() - started
    expect(took < PATIENCE / 2, f"leaving took {took:.1f} s although it was cancelled")


# 8. Bad messages.

GARBAGE: Final = (
    b"this is no message",
    b'{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"1.0","method":"check/note"}',
    b'["not","an","object"]',
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    b"x" * (LIMITS.max_message_size + 1),
)


async def survives_garbage(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        for number, garbage in enumerate(GARBAGE, 1):
            await RAW.send(connection, garbage)
            await ask(connection, "check/echo", {"after": number})
            await ask(connection, "check/garbage", {"bytes": garbage[: 64 * 1024].decode("latin-1")})
            count = sum(connection.statistics().discarded.values())
            expect(count == number, f"{number} bad messages were received, and {count} counted")

    await on_both_sides(bench, check)


async def settles_what_is_too_large(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        tx, rx = connection
        try:
            await tx.send(Request(1, "check/echo", {"large": "x" * LIMITS.max_message_size}))
        except MessageTooLarge as error:
            expect(error.outcome == "not_sent", "a message too large to send was not called not_sent")
        else:
            raise Broken("a message over the limit was accepted")
        if connection.scope.codec.binary:
            return  # no id can be found in a fragment of a binary message
        await tx.send(Request(2, "check/too_large"))
        answer = await rx.receive()
        expect(isinstance(answer, Undelivered) and answer.id == 2, f"a response over the limit became {answer}")
        await ask(connection, "check/echo")

    await on_both_sides(bench, check)


# 9. Closing.


async def closes_in_any_order(bench: Bench) -> None:
    for first in (0, 1):
        async with bench.talk() as connection:
            with trio.fail_after(PATIENCE):
                await ask(connection, "check/echo")
                for channel in (connection[first], connection[1 - first], *connection):
                    await channel.aclose()


async def closes_from_any_task(bench: Bench) -> None:
    outcomes: list[BaseException | Incoming] = []

    async def receive(connection: Connection) -> None:
        try:
            outcomes.append(await connection.rx.receive())
        except (trio.ClosedResourceError, trio.EndOfChannel) as error:
            outcomes.append(error)

    with trio.fail_after(2 * PATIENCE):
        async with bench.talk() as connection, open_tasks() as tasks:
            await ask(connection, "check/echo")
            tasks.start_soon(receive, connection)
            await trio.testing.wait_all_tasks_blocked(0.01)
            tasks.start_soon(connection.aclose)
            tasks.start_soon(connection.aclose)
    expect(
        len(outcomes) == 1 and not isinstance(outcomes[0], Response | ErrorResponse),
        f"a receive during which the connection was closed gave {outcomes}",
    )


# 10. Time.


async def follows_the_clock(bench: Bench) -> None:
    """An hour of ``close_timeout`` passes at once under a clock that jumps when nothing else happens."""
    remaking = bench.remake
    finished = threading.Event()

    async def leave_slowly() -> None:
        async with remaking() as same:
            started = trio.current_time()
            async with same.talk(close_timeout=3600) as connection:
                await ask(connection, "check/linger")
            expect(trio.current_time() - started < 2 * 3600, "leaving took longer than the close_timeout")
        finished.set()

    def run() -> None:
        trio.run(leave_slowly, clock=MockClock(autojump_threshold=0.2))

    with trio.fail_after(2 * PATIENCE):
        await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    expect(finished.is_set(), "the conversation under a mock clock did not finish")


RULES: Final[dict[int, Rule]] = {
    1: Rule(
        "Entering returns once messages can be sent, or raises one plain ConnectError",
        (opens, fails_plainly),
        "what the transport does before it yields, and which errors of the wire it maps to ConnectError",
    ),
    2: Rule(
        "send is ordered, pushes back, is safe from many tasks, and accepts a message wholly or not at all",
        (keeps_order, takes_many_senders, pushes_back),
        "buffers without a bound, and pumps that take frames which they cannot write yet",
    ),
    3: Rule(
        "a cancelled receive loses nothing",
        (loses_nothing_when_cancelled,),
        "awaits after the inner receive: transform synchronously, or keep the item first",
    ),
    4: Rule(
        "closing tx flushes and tells the peer that no more comes, and rx goes on until the peer is done",
        (half_closes, sees_half_close),
        "whether the transport tells the peer's end by scope.peer_done() and keeps the other direction open",
    ),
    5: Rule(
        "an orderly end is EndOfChannel; a loss delivers what had arrived, then Undelivered, then ConnectionLost",
        (ends_orderly, reports_loss),
        "whether the transport closes its half of rx at the end, and tells a loss by scope.lost() or on leaving",
    ),
    6: Rule(
        "a failure that nobody saw is raised on leaving; an exception of the block leaves as the same object",
        (raises_unseen_failure, keeps_exception_of_block),
        "whether a broken wire is noticed when nobody uses the channels",
    ),
    7: Rule(
        "leaving flushes and closes within close_timeout; cancelled, it waits for nobody",
        (flushes_on_leaving, leaves_in_time, leaves_at_once_when_cancelled),
        "what the transport does after its yield, and shields without a deadline",
    ),
    8: Rule(
        "a bad message never kills a healthy connection; it is reported and counted",
        (survives_garbage, settles_what_is_too_large),
        "the framing: can it find the next message after one that it refuses?",
    ),
    9: Rule(
        "tx and rx may be closed from any task, in any order, and twice",
        (closes_in_any_order, closes_from_any_task),
        "aclose() of wrapped channels that is not safe to call again",
    ),
    10: Rule(
        "all waits go through Trio's clock",
        (follows_the_clock,),
        "time.sleep, time.monotonic and socket timeouts: use trio.current_time() and trio.sleep()",
    ),
}
