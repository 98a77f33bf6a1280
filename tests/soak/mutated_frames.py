"""Sequences of HTTP/2 frames that hypothesis has mutated, for a server and a client: each is answered or refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal, TypeAlias, get_args

import attrs
import hypothesis
import trio
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from tests.support.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    block,
    data,
    frame,
    goaway,
    headers,
    only,
    ping,
    reset,
    settings,
    window,
)
from trioxport.abc import Role
from trioxport.transports._http2 import Http2Error, Http2Settings, Http2Stream, open_http2

FrameBinding: TypeAlias = Literal["server", "client"]
BINDINGS: Final[tuple[FrameBinding, ...]] = get_args(FrameBinding)
BOUND_SECONDS: Final = 20.0
OPEN: Final = END_HEADERS

FRAMES: Final[Sequence[bytes]] = [
    headers(),
    headers(flags=OPEN),
    headers((b"content-length", b"1"), flags=OPEN),
    headers(stream=3),
    headers(flags=0),
    only((b":status", b"200"), flags=OPEN),
    only((b":status", b"103"), flags=OPEN),
    only((b"x", b"y")),
    frame(HEADERS, b"\0\0\0\0\1" + block(), stream=5, flags=OPEN | PRIORITIZED),
    frame(CONTINUATION, block((b"x", b"y"), request=False), stream=1, flags=END_HEADERS),
    frame(PUSH_PROMISE, b"\0\0\0\2" + block(), stream=1, flags=END_HEADERS),
    data(),
    data(end=True),
    data(b"y" * 1000, stream=3),
    frame(DATA, b"\2ab\0\0", stream=1, flags=PADDED | END_STREAM),
    frame(PRIORITY, b"\0\0\0\0\1", stream=1),
    frame(0x77, b"unknown"),
    reset(),
    reset(7, stream=3),
    settings(),
    settings((4, 0)),
    settings((4, 2**31 - 1), (3, 0), (5, 2**24 - 1)),
    settings(flags=1),
    ping(),
    ping(flags=1),
    goaway(),
    goaway(2**31 - 1, 2, b"why"),
    window(1000),
    window(1000, stream=1),
    window(2**31 - 1, stream=1),
]


@attrs.define
class FrameCounts:
    """The counts of the examples; without damage the last one is 0.

    Attributes:
        examples: The sequences that were tried.
        hung: The ones that were neither answered nor refused in time.
    """

    examples: int = 0
    hung: int = 0

    @property
    def total(self) -> int:
        return self.hung


@st.composite
def sequences(draw: st.DrawFn) -> bytes:
    """Frames in any order, of which some have other bytes than they should, or more, or fewer."""
    sent = bytearray()
    for part in draw(st.lists(st.sampled_from(FRAMES), min_size=1, max_size=12)):
        mutated = bytearray(part)
        match draw(st.integers(0, 5)):
            case 0:
                mutated[draw(st.integers(0, len(mutated) - 1))] = draw(st.integers(0, 255))
            case 1:
                mutated[draw(st.integers(0, min(8, len(mutated) - 1)))] ^= 1 << draw(st.integers(0, 7))
            case 2:
                del mutated[draw(st.integers(0, len(mutated) - 1)) :]
            case _:
                pass
        sent += mutated
    return bytes(sent)


async def handle(stream: Http2Stream) -> None:
    with stream, suppress(Http2Error):
        await stream.send_headers([(b":status", b"200")])
        while received := await stream.receive_data():
            await stream.send_data(received)
        await stream.send_trailers([(b"x", b"y")])


async def exchange(role: Role, sent: bytes, cut: int) -> None:
    """Send the sequence in two parts. Raises the exception that is not handled, or ``TooSlowError``."""
    peer, near = memory_stream_pair()
    with trio.fail_after(BOUND_SECONDS):
        async with (
            trio.open_nursery() as nursery,
            near,
            open_http2(near, Http2Settings(close_timeout=0), role=role) as connection,
        ):
            if role == "client":
                for _ in range(2):
                    nursery.start_soon(ask, await connection.request(REQUEST))
            opening = (PREFACE if role == "server" else b"") + settings()
            with suppress(trio.BrokenResourceError):
                await peer.send_all(opening + sent[:cut])
                await wait_all_tasks_blocked()
                await peer.send_all(sent[cut:])
                await peer.send_eof()
            async for stream in connection.requests:
                nursery.start_soon(handle, stream)


async def ask(stream: Http2Stream) -> None:
    with stream, suppress(Http2Error):
        await stream.send_data(b"hello", end_stream=True)
        await stream.response_head()
        while await stream.receive_data():
            pass


def try_frames(role: Role, examples: int, seed: int) -> int:
    """Try that many sequences, and return their number. Raises for the simplest one that is not handled."""
    tried = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(sequences(), st.integers(0, 200))
    def run(sent: bytes, cut: int) -> None:
        nonlocal tried
        tried += 1
        trio.run(exchange, role, sent, cut)

    run()
    return tried


async def mutated_frames(role: FrameBinding, examples: int, seed: int) -> FrameCounts:
    """Try that many sequences in a thread, each in a run of Trio of its own."""
    counts = FrameCounts()
    try:
        counts.examples = await trio.to_thread.run_sync(try_frames, role, examples, seed)
    except BaseException:
        logging.getLogger(__name__).exception("a sequence was not handled")
        counts.hung += 1
    return counts
