"""The contract of a connection, rule by rule, as checks. Where a pair is served here, both sides are checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trioxport.errors import UsageError
from trioxport.testing.check import Check
from trioxport.testing.rules import (
    bad_messages,
    cancellation,
    clock,
    closing,
    ends,
    exchange,
    resources,
    unsent,
)

RULES: Final[dict[int, str]] = {
    1: "Entering returns once messages can be sent, or raises one plain ConnectError",
    2: "send is ordered, pushes back, is safe from many tasks, and accepts a message wholly or not at all",
    3: "a cancelled receive loses nothing",
    4: "closing tx flushes and ends the stream to the peer, and rx goes on until the peer is done",
    5: "an orderly end is EndOfChannel; a loss delivers what had arrived, then Undelivered, then ConnectionLost",
    6: "a failure that no send or receive raised is raised on leaving; an exception of the block leaves unchanged",
    7: "leaving flushes and closes within close_timeout, or at once when cancelled, and leaves nothing behind",
    8: "a bad message never kills a healthy connection; it is reported and counted",
    9: "tx and rx may be closed from any task, in any order, and twice",
    10: "all waits go through Trio's clock",
}
"""The text of each rule of the contract, by its number."""

_CHECKS: Final = (
    Check(
        1,
        exchange.opens,
        "what both sides do before they yield: the wire is connected, the pumps run, a FrameChannels is yielded; and "
        "after it: the closed sending channel is flushed and no more than a half-close, the peer gets the end, and "
        "the peer's end closes the receiving channel",
    ),
    Check(
        1,
        exchange.serves_several_at_once,
        "listen(): each accept() has to run in a task of its own, and connections share nothing",
    ),
    Check(
        1,
        exchange.fails_plainly,
        "what the transport raises when it cannot connect: a ServerUnreachable or an OSError, and no bug",
        ("unreachable",),
    ),
    Check(
        1,
        exchange.refuses_taken_address,
        "listen(): an address in use has to raise OSError or UsageError, before task_status.started()",
        ("taken",),
    ),
    Check(2, exchange.keeps_order, "the write pump and the read pump: one task each, first in, first out"),
    Check(2, exchange.takes_many_senders, "sends of several tasks that overtake or overwrite each other"),
    Check(
        2,
        exchange.keeps_any_limits,
        "buffers made of scope.settings.limits.max_buffered_messages: 0 is a rendezvous, and a window of 0 never opens",
    ),
    Check(
        2,
        cancellation.sends_wholly_or_not_at_all,
        "awaits in send() after the frame was handed on, or before it is kept: one await, and that one the memory "
        "channel's, is right",
    ),
    Check(
        2,
        exchange.pushes_back,
        "buffers without a bound, pumps that take frames which they cannot write yet, and wires without flow control: "
        "a broker needs credits from the receiving side",
    ),
    Check(
        3,
        exchange.loses_nothing_when_cancelled,
        "awaits after the inner receive: transform synchronously, or keep the item first",
    ),
    Check(
        4,
        ends.half_closes,
        "what follows when the sending channel is closed: flush, end the stream to the peer, and keep reading",
        ("wire",),
    ),
    Check(
        4,
        ends.sees_half_close,
        "the peer's end: scope.peer_done(), then close the receiving channel, and keep the other direction open",
        ("wire",),
    ),
    Check(
        5,
        ends.ends_orderly,
        "whether the side that ends flushes before it closes, and the other delivers all that had arrived, calls "
        "scope.peer_done(), and then closes the receiving channel",
        ("wire",),
    ),
    Check(
        5,
        ends.reports_loss,
        "a broken wire: raise, or call scope.lost(), and close the receiving channel; never scope.peer_done()",
        ("wire", "cut"),
    ),
    Check(
        5,
        unsent.returns_what_was_not_sent,
        "what still waits in the sending channel when the wire breaks: put Frame(b'', frame.message, "
        "error=ConnectionLost(..., outcome='not_sent')) into the receiving channel for each, before it is closed",
        ("wire", "cut"),
    ),
    Check(
        5,
        ends.keeps_serving,
        "listen(): the loss of one connection must not end the listener",
        ("wire", "cut", "serve", "no broker"),
    ),
    Check(6, ends.keeps_exception_of_block, "except clauses around the yield of the transport"),
    Check(
        6,
        ends.raises_unseen_failure,
        "whether a broken wire is noticed when no send or receive is under way: the read pump has to run all the time",
        ("wire", "cut"),
    ),
    Check(
        6,
        ends.keeps_exception_of_block_after_loss,
        "except clauses around the yield of the transport",
        ("wire", "cut"),
    ),
    Check(
        7,
        closing.flushes_on_leaving,
        "what the transport does after its yield: the write pump has to finish before it is cancelled",
        ("serve",),
    ),
    Check(
        7,
        closing.leaves_in_time,
        "what the transport does after its yield, and shields without a deadline",
    ),
    Check(
        7,
        closing.leaves_at_once_when_cancelled,
        "a finally or except clause that waits for the peer, and shields without a deadline",
    ),
    Check(
        7,
        resources.leaves_no_descriptor,
        "what is opened for a connection and not closed when the transport is left: sockets, files, pipes",
    ),
    Check(
        7,
        resources.leaves_no_task,
        "tasks that are started outside of the transport's own nursery, as by trio.lowlevel.spawn_system_task",
    ),
    Check(
        7,
        cancellation.leaves_nothing_when_cancelled_anywhere,
        "a finally clause that waits, an except clause that catches trio.Cancelled, and awaits between acquiring "
        "something and the block that releases it",
    ),
    Check(
        8,
        bad_messages.survives_garbage,
        "the framing, which has to find the next message after one that it refuses, and code of the transport that "
        "looks into payloads: what arrived goes into the receiving channel, whatever it is",
    ),
    Check(
        8,
        bad_messages.settles_what_is_too_large,
        "what becomes of a message over scope.settings.limits.max_message_size: a Frame with an error, and the first "
        "and last bytes as payload, in which the id is",
    ),
    Check(8, bad_messages.says_what_it_carries, "FrameChannels.carries"),
    Check(9, closing.closes_in_any_order, "aclose() of wrapped channels that is not safe to call again"),
    Check(9, closing.closes_from_any_task, "receives that go on, or raise something else, once they are closed"),
    Check(
        10,
        clock.follows_the_clock,
        "time.monotonic, socket timeouts and threads that wait: use trio.current_time() and trio.sleep()",
    ),
    Check(
        10,
        clock.never_blocks_the_loop,
        "time.sleep, locks, name lookups, and files or sockets that block: trio.to_thread.run_sync() has them",
    ),
)


def transport_checks(rules: Iterable[int] | None = None) -> tuple[Check, ...]:
    """The checks of the rules with these numbers, of all by default.

    ::

        @pytest.mark.parametrize("check", transport_checks())
        async def test_contract(check):
            await check_transport(make_pair, checks=[check])

    Raises:
        UsageError: There is no such rule.
    """
    numbers = list(RULES if rules is None else rules)
    for number in numbers:
        if number not in RULES:
            raise UsageError(f"the contract has no rule {number!r}", hint=f"Its rules are {min(RULES)} to {max(RULES)}")
    return tuple(check for number in numbers for check in _CHECKS if check.rule == number)
