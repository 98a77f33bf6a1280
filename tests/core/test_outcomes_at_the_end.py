"""The outcome of requests that were accepted, and not answered when the connection is lost, is unknown."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from trioxport import Request, ServerUnreachable, TransportError, Undelivered, open_transport
from trioxport.abc import FrameChannels, Scope
from trioxport.frames import Frame


@asynccontextmanager
async def reconnects_in_vain(scope: Scope) -> AsyncGenerator[FrameChannels]:
    """A transport of a user that tries to come back by itself, and fails by an error that is ``not_sent``."""
    to_wire, sent = trio.open_memory_channel[Frame](1)
    arriving, from_wire = trio.open_memory_channel[Frame](1)

    async def lose() -> None:
        await sent.receive()
        scope.lost(ServerUnreachable("nobody listens any more"))
        arriving.close()

    with to_wire, from_wire, arriving, sent:
        scope.start_soon(lose)
        yield FrameChannels(to_wire, from_wire)


async def test_a_request_that_was_written_is_unknown() -> None:
    async with open_transport(reconnects_in_vain) as (tx, rx):
        await tx.send(Request(1, "tools/call"))
        undelivered = await rx.receive()
        assert isinstance(undelivered, Undelivered)
        assert (undelivered.id, undelivered.outcome) == (1, "unknown")
        with pytest.raises(TransportError, match="nobody listens"):
            await rx.receive()
