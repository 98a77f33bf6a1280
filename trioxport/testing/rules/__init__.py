"""The contract of a connection, rule by rule, as checks. Where a link is served here, both sides are checked."""

from __future__ import annotations

from typing import Final

import attrs

from trioxport.testing.bench import Check
from trioxport.testing.rules import bad_messages, closing, ends, exchange


@attrs.frozen
class Rule:
    """One numbered rule: what it says, the checks that show it, and what to look at when one fails.

    Those of ``wire_checks`` are about the end of a connection that is one wire.
    """

    says: str
    checks: tuple[Check, ...]
    advice: str
    wire_checks: tuple[Check, ...] = ()


RULES: Final[dict[int, Rule]] = {
    1: Rule(
        "Entering returns once messages can be sent, or raises one plain ConnectError",
        (exchange.opens, exchange.fails_plainly),
        "what the transport does before it yields, and which errors of the wire it maps to ConnectError",
    ),
    2: Rule(
        "send is ordered, pushes back, is safe from many tasks, and accepts a message wholly or not at all",
        (exchange.keeps_order, exchange.takes_many_senders, exchange.pushes_back),
        "buffers without a bound, and pumps that take frames which they cannot write yet",
    ),
    3: Rule(
        "a cancelled receive loses nothing",
        (exchange.loses_nothing_when_cancelled,),
        "awaits after the inner receive: transform synchronously, or keep the item first",
    ),
    4: Rule(
        "closing tx flushes and tells the peer that no more comes, and rx goes on until the peer is done",
        (),
        "whether the transport tells the peer's end by scope.peer_done() and keeps the other direction open",
        (ends.half_closes, ends.sees_half_close),
    ),
    5: Rule(
        "an orderly end is EndOfChannel; a loss delivers what had arrived, then Undelivered, then ConnectionLost",
        (),
        "whether the transport closes its half of rx at the end, and tells a loss by scope.lost() or on leaving",
        (ends.ends_orderly, ends.reports_loss),
    ),
    6: Rule(
        "a failure that nobody saw is raised on leaving; an exception of the block leaves as the same object",
        (ends.keeps_exception_of_block,),
        "whether a broken wire is noticed when nobody uses the channels",
        (ends.raises_unseen_failure, ends.keeps_exception_of_block_after_loss),
    ),
    7: Rule(
        "leaving flushes and closes within close_timeout; cancelled, it waits for nobody",
        (closing.flushes_on_leaving, closing.leaves_in_time, closing.leaves_at_once_when_cancelled),
        "what the transport does after its yield, and shields without a deadline",
    ),
    8: Rule(
        "a bad message never kills a healthy connection; it is reported and counted",
        (bad_messages.survives_garbage, bad_messages.settles_what_is_too_large),
        "the framing: can it find the next message after one that it refuses?",
    ),
    9: Rule(
        "tx and rx may be closed from any task, in any order, and twice",
        (closing.closes_in_any_order, closing.closes_from_any_task),
        "aclose() of wrapped channels that is not safe to call again",
    ),
    10: Rule(
        "all waits go through Trio's clock",
        (closing.follows_the_clock,),
        "time.sleep, time.monotonic and socket timeouts: use trio.current_time() and trio.sleep()",
    ),
}
