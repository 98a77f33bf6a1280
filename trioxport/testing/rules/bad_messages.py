"""Rule 8: payloads that are no valid messages."""

from __future__ import annotations

from typing import Final

from trioxport._core.supervisor import Supervisor
from trioxport.abc import Carries
from trioxport.errors import MessageTooLarge
from trioxport.messages import Request, Undelivered
from trioxport.testing.checked import CheckedConnection
from trioxport.testing.harness import ContractHarness
from trioxport.testing.peer import LIMITS
from trioxport.testing.progress import Finding, expect, shown

GARBAGE: Final = {
    "plain text": b"this is no message",
    "a message without a method": b'{"jsonrpc":"2.0"}',
    "another version of JSON-RPC": b'{"jsonrpc":"1.0","method":"check/note"}',
    "an array": b'["not","an","object"]',
    "bytes that are no UTF-8": b"\xff\xfe\xfd",
    "deep nesting": b"[" * 100_000,
    "a message over the limit": b"x" * (LIMITS.max_message_size + 1),
}
ANY_BYTES: Final = b"\xff\n\x00\r\n\xfe"
"""A payload that arrives in one piece only on a wire that carries any bytes."""


async def survives_garbage(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        for number, (what, garbage) in enumerate(GARBAGE.items(), 1):
            await end.send_raw(garbage)
            await end.ask("check/echo", {"after": what})
            await end.ask("check/garbage", {"bytes": garbage[: 64 * 1024].decode("latin-1")})
            count = _discarded(end)
            expect(count == number, f"{number} bad messages were received, the last one {what}, and {count} counted")

    await harness.on_both_sides(check)


async def says_what_it_carries(harness: ContractHarness) -> None:
    """Add a hint, never a finding: a wire that carries more than it declares is only less efficient."""
    async with harness.talk() as end:
        before = _discarded(end)
        await end.ask("check/garbage", {"bytes": ANY_BYTES.decode("latin-1")})
        if _discarded(end) == before + 1 and _carries(end) == "text":
            harness.progress.hints.append(
                "the wire carries any bytes in one piece, but says that it carries text: with "
                "FrameChannels(..., carries='bytes') Compression and Signing need a third less"
            )


def _carries(end: CheckedConnection) -> Carries | None:
    scope = end.connection.scope
    return scope.carries if isinstance(scope, Supervisor) else None


def _discarded(end: CheckedConnection) -> int:
    return sum(end.connection.statistics().discarded.values())


async def settles_what_is_too_large(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        try:
            await end.send(Request(1, "check/echo", {"large": "x" * LIMITS.max_message_size}))
        except MessageTooLarge as error:
            expect(error.outcome == "not_sent", "a message too large to send was not called not_sent")
        else:
            raise Finding("a message over the limit was accepted")
        if end.connection.scope.settings.codec.binary:
            return  # no id can be found in a fragment of a binary message
        await end.send(Request(2, "check/too_large"))
        answer = await end.receive("the Undelivered of request 2, whose response is over the limit")
        expect(
            isinstance(answer, Undelivered) and answer.id == 2,
            f"in place of the Undelivered of request 2, whose response is over the limit, came {shown(answer)}",
        )
        await end.ask("check/echo")

    await harness.on_both_sides(check)
