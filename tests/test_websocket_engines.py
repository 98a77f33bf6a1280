"""Both engines keep the contract, each with itself and with the other; and the stream under the library."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import links
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_websocket import raw_client
from test_websocket import HELLO, LOCAL, Recorder, echo, serving

from trioxport import ConnectionLost, Limits, UsageError
from trioxport.codecs import MessagePack
from trioxport.framing.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    CloseReason,
    Violation,
    close_payload,
    frame,
)
from trioxport.framing.websocket_boundaries import Boundaries
from trioxport.testing import RULES, check_transport
from trioxport.transports.http.server import HttpServer, Upgrades
from trioxport.transports.websocket import WebSocket

HTTP = "http://127.0.0.1:0/mcp"

OTHERS: list[Any] = [("native", "native"), ("native", "trio-websocket"), ("trio-websocket", "native")]
"""Of the client and of the server; the default with itself is among the transports of the contract."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("client", "server"), OTHERS)
async def test_the_contract_over_ws(client: Any, server: Any, rule: int, tmp_path: Path) -> None:
    await check_transport(links.ws_link(tmp_path, client, server), rules=[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("client", "server"), OTHERS)
async def test_the_contract_over_wss_in_message_pack(client: Any, server: Any, rule: int, tmp_path: Path) -> None:
    await check_transport(links.wss_link(tmp_path, client, server), rules=[rule], codec=MessagePack)


def test_there_is_no_other_engine() -> None:
    engine: Any = "asyncio"
    with pytest.raises(UsageError, match=r"'asyncio', .* trio-websocket, native"):
        WebSocket(LOCAL, engine=engine)


@pytest.mark.parametrize(
    ("target", "by_library"),
    [
        (WebSocket(LOCAL), True),
        (HttpServer(HTTP, websocket=True), True),
        (WebSocket(LOCAL, engine="native"), False),
        (HttpServer(HTTP, websocket=Upgrades(engine="native")), False),
    ],
)
async def test_which_engine_speaks(target: Any, by_library: bool, caplog: pytest.LogCaptureFixture) -> None:
    """trio-websocket is the one that says so in a log of its own."""
    caplog.set_level("DEBUG", "trio-websocket")
    async with serving(echo, target) as address, raw_client(address.replace("http", "ws")) as peer:
        await peer.send(TEXT, HELLO)
        assert await peer.receive() == b'{"jsonrpc":"2.0","id":1,"result":[]}'
        assert {record.name for record in caplog.records} == ({"trio-websocket"} if by_library else set())


# The stream under the library.

KEY = b"\x01\x02\x03\x04"


def written(opcode: int, payload: bytes = b"", key: bytes | None = KEY, *, final: bool = True) -> bytes:
    header, body = frame(opcode, payload, key)
    return bytes([header[0] if final else header[0] & 0x7F]) + header[1:] + body


BEFORE = b"".join(
    [
        written(TEXT, b"one"),
        written(TEXT, b"t", final=False),
        written(PING, b"in between"),
        written(CONTINUATION, b"", final=False),
        written(CONTINUATION, b"wo"),
        written(BINARY, bytes(300)),
        written(TEXT),
    ]
)


@given(st.lists(st.integers(0, len(BEFORE) + 12), max_size=5))
def test_what_the_library_gets_is_what_came_before_the_close_frame(cuts: list[int]) -> None:
    data = BEFORE + written(CLOSE, close_payload(1001, "bye"))
    places = [0, *sorted(cuts), len(data)]
    boundaries = Boundaries(1000, masked=True)
    passed = b"".join(boundaries.feed(data[at:end]) for at, end in pairwise(places) if at < end)
    assert passed == BEFORE
    assert boundaries.complete == 4 and not boundaries.pending
    assert boundaries.end == CloseReason(1001, "bye")


@pytest.mark.parametrize(
    "data",
    [
        written(CLOSE, b"", None),
        written(CLOSE, b"", final=False),
        b"\xc8\x80" + KEY,
        b"\x88\xfe\x00\x80" + KEY + bytes(128),
        b"\x8f\x80" + KEY,
    ],
)
def test_what_no_frame_may_be_the_library_has_to_refuse(data: bytes) -> None:
    boundaries = Boundaries(1000, masked=True)
    assert boundaries.feed(data) == data
    assert boundaries.end is None


def test_a_message_that_is_far_too_large_is_not_passed_on() -> None:
    boundaries = Boundaries(100, masked=True)
    first = written(TEXT, bytes(300), final=False)
    assert (
        boundaries.feed(first + written(CONTINUATION, bytes(100))[:10])
        == first + written(CONTINUATION, bytes(100))[:10]
    )
    boundaries = Boundaries(100, masked=True)
    assert boundaries.feed(first + written(CONTINUATION, bytes(101))[:10]) == first
    assert isinstance(boundaries.end, Violation) and boundaries.end.code == 1009


async def test_parts_of_one_byte_are_not_kept_without_end() -> None:
    recorder = Recorder()
    parts = written(CONTINUATION, b"x", final=False) * 2000
    async with (
        serving(recorder.handle, limits=Limits(max_message_size=10_000)) as address,
        raw_client(address) as peer,
    ):
        await peer.stream.send_all(written(TEXT, b"x", final=False) + parts)
        assert (await peer.closing()).code == 1009
        await peer.stream.send_eof()
        await recorder.over.wait()
    assert isinstance(recorder.failure, ConnectionLost)
