"""Rule 5: what was accepted and never written comes back as ``"not_sent"``, so that it may be sent again."""

from __future__ import annotations

import trio

from trioxport.errors import TransportError
from trioxport.messages import Request, RequestId, Undelivered
from trioxport.testing.checked import CheckedConnection
from trioxport.testing.harness import ContractHarness
from trioxport.testing.progress import CheckSkipped, expect, shown
from trioxport.testing.rules.ends import on_sides_that_can_be_cut


async def returns_what_was_not_sent(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        await harness.require_cut(end)
        sent = await (_cut_behind_a_pause if harness.pair.cut else _kill_behind_a_pause)(harness, end)
        outcomes = await _outcomes(end)
        expect(sent <= outcomes.keys(), f"of {len(sent)} requests {len(sent - outcomes.keys())} did not come back")
        not_sent = {request_id for request_id in sent if outcomes[request_id] == "not_sent"}
        if harness.peers:
            await _compare_with_peer(harness, sent, not_sent)
        else:
            expect(bool(not_sent), f"none of {len(sent)} requests behind a peer that did not read came as 'not_sent'")

    await on_sides_that_can_be_cut(harness, check)


async def _cut_behind_a_pause(harness: ContractHarness, end: CheckedConnection) -> set[RequestId]:
    await end.ask("check/pause", {"seconds": 2 * harness.progress.timeout})
    count, _ = await end.fill(_waiting)
    await harness.cut(end)
    return {f"waiting-{number}" for number in range(count)}


async def _kill_behind_a_pause(harness: ContractHarness, end: CheckedConnection) -> set[RequestId]:
    await harness.kill_peer(end)
    try:
        count, _ = await end.fill(_waiting)
    except TransportError:
        raise CheckSkipped("the wire could not be filled before the peer's process was gone") from None
    return {f"waiting-{number}" for number in range(count)}


def _waiting(number: int, ballast: str) -> Request:
    return Request(f"waiting-{number}", "check/silent", {"ballast": ballast})


async def _outcomes(end: CheckedConnection) -> dict[RequestId, str | None]:
    """The outcome of each request that comes back until the loss is raised."""
    outcomes: dict[RequestId, str | None] = {}
    while True:
        try:
            message = await end.receive("the Undelivered of requests that waited, or the loss")
        except (TransportError, trio.EndOfChannel):
            return outcomes
        if isinstance(message, Undelivered) and message.id is not None:
            outcomes[message.id] = message.outcome


async def _compare_with_peer(harness: ContractHarness, sent: set[RequestId], not_sent: set[RequestId]) -> None:
    """The peer knows what arrived: nothing of that was not sent, and some of the rest must have been."""
    peer = harness.peers[-1]
    peer.resume()
    with harness.progress.awaiting("the peer to receive what had arrived, and then the loss"):
        await peer.ended.wait()
    arrived = set(peer.received)
    wrong = sorted(map(str, not_sent & arrived))
    expect(not wrong, f"requests {shown(wrong)} came back as 'not_sent', but had reached the peer")
    missing = len(sent - arrived)
    expect(
        bool(not_sent) or not missing,
        f"{missing} of {len(sent)} requests never reached the peer, and all of them came back as 'unknown'",
    )
