"""The catalogue of WebSocket peers against frames of our own, as server and as client, on raw sockets.

The codec hands payloads through, so that an echo shows the frames themselves.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import groupby
from typing import Final

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_websocket import RawPeer, raw_client, raw_server
from tests.support.websocket_cases import CASES, CLOSE, TEXTS, Case, Said, masked_with, text
from trioxport import Connection, ConnectionLost, Message, Notification, open_transport, serve_transport
from trioxport.messages import RequestId
from trioxport.transports.websocket import WebSocket

SECTIONS: Final = [section for section, _ in groupby(CASES, lambda case: case.section)]
CASE_SECONDS: Final = 5.0
KEY: Final = b"\x9a\x02\xf0\x71"


@attrs.frozen
class Payloads:
    """A codec of messages that are nothing but their payload."""

    binary: bool
    name: str = "payloads"
    content_type: str = "application/octet-stream"

    def encode(self, message: Message) -> bytes:
        assert isinstance(message, Notification) and isinstance(message.params, list)
        payload: bytes = message.params[0]
        return payload

    def decode(self, payload: bytes) -> Message:
        return Notification("payload", [payload])

    def identify(self, fragment: bytes) -> RequestId | None:
        return None

    def identify_request(self, fragment: bytes) -> RequestId | None:
        return None


async def echo(connection: Connection) -> None:
    with suppress(ConnectionLost):
        async for message in connection.rx:
            assert isinstance(message, Notification)
            await connection.tx.send(message)


class Reader:
    """Takes apart what comes: whole frames, masked or not, without reserved bits. Independent of what is tested."""

    def __init__(self, peer: RawPeer, *, masked: bool) -> None:
        self._peer = peer
        self._masked = masked
        self._data = b""

    async def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            more = self._peer.rest or bytes(await self._peer.stream.receive_some())
            self._peer.rest = b""
            if not more:
                raise EOFError(self._data)
            self._data += more
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    async def frame(self) -> Said:
        first, size = await self._take(2)
        assert first & 0xF0 == 0x80 and (size >= 0x80) is self._masked
        size &= 0x7F
        if size >= 126:
            size = int.from_bytes(await self._take(2 if size == 126 else 8), "big")
        key = await self._take(4) if self._masked else bytes(4)
        return first & 0x0F, masked_with(key, await self._take(size))

    async def all_frames(self) -> list[Said]:
        """What comes until a close frame, and after it nothing may."""
        frames: list[Said] = []
        while not frames or frames[-1][0] != CLOSE:
            frames.append(await self.frame())
        return frames

    async def end(self) -> None:
        with pytest.raises(EOFError) as ended:
            await self._take(1)
        assert ended.value.args == (b"",)


async def send(peer: RawPeer, case: Case, *, client: bool) -> None:
    frames = [frame.written(KEY if client else None) for frame in case.frames]
    whole = b"".join(frames)
    chunks = frames
    if case.chop == "whole":
        chunks = [whole]
    elif isinstance(case.chop, int):
        chunks = [whole[at : at + case.chop] for at in range(0, len(whole), case.chop)]
    with suppress(trio.BrokenResourceError):  # a violation may be answered before all of it is sent
        for chunk in chunks:
            await peer.stream.send_all(chunk)
            if case.chop == "pauses":
                await wait_all_tasks_blocked()


async def play(peer: RawPeer, case: Case, *, client: bool) -> str | None:
    """Send what a case has, and read the answers; returns what is wrong with them."""
    reader = Reader(peer, masked=not client)
    frames: list[Said] = []

    async def read() -> None:
        nonlocal frames
        frames = await reader.all_frames()

    with trio.move_on_after(CASE_SECONDS) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await send(peer, case, client=client)
        await peer.stream.send_eof()
        await reader.end()
    if patience.cancelled_caught:
        return f"{case.number}: the connection does not end"
    *answers, (_, said) = frames
    code = int.from_bytes(said[:2], "big") if said else 1005
    expected = [*case.answers]
    if answers != (expected[: len(answers)] if case.cut_short else expected) or code != case.close:
        shown = [(opcode, payload[:40]) for opcode, payload in answers]
        return f"{case.number}: answers {shown}, closed with {code} instead of {case.close}"
    return None


@asynccontextmanager
async def served(*, binary: bool) -> AsyncGenerator[str]:
    target = WebSocket("ws://127.0.0.1:0/", max_connections=10)
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_transport, echo, target, codec=Payloads(binary)))
        yield address
        nursery.cancel_scope.cancel()


async def play_to_server(cases: list[Case]) -> list[str | None]:
    wrong: list[str | None] = []
    async with served(binary=False) as texts, served(binary=True) as binaries:
        for case in cases:
            async with raw_client(binaries if case.binary else texts) as peer:
                wrong.append(await play(peer, case, client=True))
    return wrong


async def play_to_client(cases: list[Case]) -> list[str | None]:
    wrong: list[str | None] = []
    left = iter(cases)

    async def handle(peer: RawPeer) -> None:
        await peer.accept()
        wrong.append(await play(peer, next(left), client=False))

    async with raw_server(handle) as address:
        for case in cases:
            target = WebSocket(address)
            with suppress(ConnectionLost):
                async with open_transport(target, codec=Payloads(case.binary)) as connection:
                    await echo(connection)
            await wait_all_tasks_blocked()
    return wrong


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("play_to", [play_to_server, play_to_client])
async def test_the_catalogue(play_to: Callable[[list[Case]], Awaitable[list[str | None]]], section: str) -> None:
    cases = [case for case in CASES if case.section == section]
    wrong = await play_to(cases)
    assert len(wrong) == len(cases)
    assert [each for each in wrong if each is not None] == []


def test_the_catalogue_is_long_and_has_no_number_twice() -> None:
    numbers = [case.number for case in CASES]
    assert len({*numbers}) == len(numbers) >= 300
    assert SECTIONS == ["0", "1", "2", "3", "4", "5", "6", "7", "9", "10"]


@pytest.mark.parametrize(("about", "valid", "payloads"), TEXTS, ids=[about for about, *_ in TEXTS])
def test_another_decoder_agrees_on_what_is_utf_8(about: str, valid: bool, payloads: list[bytes]) -> None:
    for payload in payloads:
        if valid:
            payload.decode()
        else:
            with pytest.raises(UnicodeDecodeError):
                payload.decode()


async def test_the_referee_finds_a_wrong_answer() -> None:
    assert await play_to_server([text("0.0.0", b"\xff", valid=True)]) == [
        "0.0.0: answers [], closed with 1007 instead of 1000"
    ]
