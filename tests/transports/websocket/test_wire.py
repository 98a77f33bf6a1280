"""WebSockets on frames of our own, which are stricter than what a library does: handshakes, close frames and pongs."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_websocket import RawPeer, raw_client, raw_server, response
from tests.transports.websocket.test_handshake import opened
from tests.transports.websocket.test_websocket import HELLO, LOCAL, Recorder, echo, serving
from trioxport import ConnectError, Connection, ConnectionLost, Notification, open_transport
from trioxport.framing.websocket import CLOSE, PING, PONG, TEXT, CloseReason, Control, close_payload
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports.websocket import WebSocket
from trioxport.transports.websocket.wire import MAX_OWED_PONGS, WebSocketWire

# Handshakes.


@pytest.mark.parametrize(
    ("right", "wrong", "about"),
    [
        ("HTTP/1.1 101", "HTTP/1.0 101", "HTTP/1.0"),
        ("HTTP/1.1 101", "HTTP/2.0 101", "no answer of HTTP"),
        ("HTTP/1.1 101", "HTTP/1.1  101", "no answer of HTTP"),
        ("Upgrade: websocket", "Upgrade: h2c", "Upgrade header"),
        ("Upgrade: websocket", "Upgrade: websocket, h2c", "Upgrade header"),
        ("Connection: Upgrade", "Connection: keep-alive", "Connection header"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Accept"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x\r\nSec-WebSocket-Accept: ", "Sec-WebSocket-Accept"),
        ("Upgrade: ", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: ", "extension"),
        ("Upgrade: ", "Sec-WebSocket-Protocol: mcp\r\nSec-WebSocket-Protocol: mcp\r\nUpgrade: ", "subprotocol"),
        ("Upgrade: ", "Sec-WebSocket-Protocol: MCP\r\nUpgrade: ", "subprotocol"),
        ("Upgrade: ", "Bad Name: x\r\nUpgrade: ", "headers are not written"),
        ("Upgrade: ", "Folded: x\r\n y\r\nUpgrade: ", "headers are not written"),
        ("Upgrade: ", "Bare: x\ny: z\r\nUpgrade: ", "headers are not written"),
    ],
)
async def test_an_agreement_that_rfc_6455_does_not_know(right: str, wrong: str, about: str) -> None:
    async def handler(peer: RawPeer) -> None:
        agreement = response(await peer.read_head()).decode()
        await peer.stream.send_all(agreement.replace(right, wrong, 1).encode())
        await peer.stream.send_eof()

    async with raw_server(handler) as address:
        with pytest.raises(ConnectError, match=f"does not speak WebSocket here: .*{about}") as raised:
            await opened(WebSocket(address))
        assert not raised.value.retryable


@pytest.mark.parametrize("spelling", ["connection: keep-alive, UPGRADE", "Connection:\tupgrade\t"])
async def test_an_agreement_in_another_spelling(spelling: str) -> None:
    async def handler(peer: RawPeer) -> None:
        agreement = response(await peer.read_head()).decode()
        agreement = agreement.replace("Connection: Upgrade", spelling).replace(
            "Upgrade: websocket", "UPGRADE: WebSocket"
        )
        await peer.stream.send_all(agreement.encode())
        await peer.closing()
        await peer.send(CLOSE)

    async with raw_server(handler) as address:
        await opened(WebSocket(address))


# Close frames.

CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
NATIVE = WebSocket(LOCAL)


@pytest.mark.parametrize("code", CODES)
async def test_a_server_answers_every_close_frame_with_its_code(code: int) -> None:
    recorder = Recorder()
    async with serving(recorder.handle, NATIVE) as address, raw_client(address) as peer:
        await peer.send(CLOSE, close_payload(code, "because"))
        assert await peer.closing() == CloseReason(code)
        with pytest.raises(EOFError):
            await peer.receive()
        await recorder.over.wait()
    assert (recorder.failure is None) is (code in (1000, 1001))


@pytest.mark.parametrize("code", CODES)
async def test_a_client_answers_every_close_frame_with_its_code(code: int) -> None:
    answers: list[CloseReason] = []

    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await peer.send(CLOSE, close_payload(code))
        answers.append(await peer.closing())

    async with raw_server(handler) as address:
        with suppress(ConnectionLost):
            async with open_transport(WebSocket(address)) as (_, rx):
                async for _ in rx:
                    pass
    assert answers == [CloseReason(code)]


async def test_a_close_frame_within_a_message_is_answered() -> None:
    recorder = Recorder()
    async with serving(recorder.handle, NATIVE) as address, raw_client(address) as peer:
        await peer.send(TEXT, b"the beginning", final=False)
        await peer.send(CLOSE, close_payload(1000))
        assert await peer.closing() == CloseReason(1000)
        await recorder.over.wait()
    assert recorder.failure is not None and "in the middle of a message" in str(recorder.failure)


async def test_a_close_frame_is_answered_although_the_handler_does_not_look() -> None:
    async def handler(connection: Connection) -> None:
        await trio.sleep_forever()

    async with serving(handler, NATIVE) as address, raw_client(address) as peer:
        await peer.send(CLOSE, close_payload(1011))
        assert await peer.closing() == CloseReason(1011)


async def test_a_peer_that_closes_and_reads_nothing_is_not_waited_for(jumping_clock: MockClock) -> None:
    recorder = Recorder()

    async def handler(connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.handle, connection)
            with suppress(ConnectionLost):
                while True:
                    await connection.tx.send(Notification("large", {"ballast": "x" * 1024**2}))

    async with serving(handler, NATIVE) as address, raw_client(address) as peer:
        await wait_all_tasks_blocked(0.02)
        began = trio.current_time()
        await peer.send(CLOSE, close_payload(1011))
        await recorder.over.wait()
        assert trio.current_time() - began < 5


# Pings.


async def pongs_until_answer(peer: RawPeer) -> list[bytes]:
    """The payloads of the pongs that come before the next message."""
    pongs: list[bytes] = []
    while isinstance(found := await peer.receive(), Control):
        assert found.opcode == PONG
        pongs.append(found.payload)
    return pongs


@pytest.mark.parametrize("apart", [False, True])
async def test_every_ping_is_answered_once_in_order_and_before_the_next_message(apart: bool) -> None:
    async with serving(echo, NATIVE) as address, raw_client(address) as peer:
        for turn in range(50):
            names = [b"%d.%d" % (turn, number) for number in range(turn % 7)]
            parts = [*(peer.written(PING, name) for name in names), peer.written(TEXT, HELLO)]
            for part in parts if apart else [b"".join(parts)]:
                await peer.stream.send_all(part)
            assert await pongs_until_answer(peer) == names
        await peer.send(CLOSE)
        assert await peer.closing() == CloseReason(1005)


async def test_a_client_answers_every_ping_once_and_in_order() -> None:
    names = [b"%d" % number for number in range(60)]

    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        for start in range(0, 60, 10):
            await peer.stream.send_all(b"".join(peer.written(PING, name) for name in names[start : start + 10]))
        for name in names:
            assert await peer.receive() == Control(PONG, name)
        await peer.send(CLOSE)
        await peer.closing()

    async with raw_server(handler) as address, open_transport(WebSocket(address)) as (_, rx):
        assert [message async for message in rx] == []


async def test_pings_that_come_while_a_ping_is_being_written_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write waits for the peer: what comes meanwhile must not be forgotten."""
    send_all = PromptSocket.send_all

    async def send_slowly(self: PromptSocket, data: bytes) -> None:
        await wait_all_tasks_blocked(0.01)
        await send_all(self, data)

    monkeypatch.setattr(PromptSocket, "send_all", send_slowly)
    async with serving(echo, NATIVE) as address, raw_client(address) as peer:
        for number in range(10):
            await peer.send(PING, b"%d" % number)
            await wait_all_tasks_blocked()
        assert [await peer.receive() for _ in range(10)] == [Control(PONG, b"%d" % number) for number in range(10)]


async def test_a_flood_of_pings_whose_answers_are_not_read_takes_no_memory(
    jumping_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send_nothing(_self: PromptSocket, _data: bytes) -> None:
        await trio.sleep_forever()

    recorder = Recorder()
    async with serving(recorder.handle, NATIVE) as address, raw_client(address) as peer:
        monkeypatch.setattr(PromptSocket, "send_all", send_nothing)
        await peer.stream.send_all(peer.written(PING, b"x" * 125) * 10_000)
        await wait_all_tasks_blocked(0.02)
        wires = [each for each in gc.get_objects() if isinstance(each, WebSocketWire)]
        assert max(len(wire._owed) for wire in wires) == MAX_OWED_PONGS
        await recorder.over.wait()
    assert "has taken nothing for 40 s" in str(recorder.failure)


async def test_a_peer_that_does_not_take_the_rest_of_a_message_is_given_up(
    jumping_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still sends, so that its silence is no sign."""

    async def send_nothing(_self: PromptSocket, _data: bytes) -> None:
        await trio.sleep_forever()

    async def handler(connection: Connection) -> None:
        monkeypatch.setattr(PromptSocket, "send_all", send_nothing)
        monkeypatch.setattr(PromptSocket, "send_now", lambda _self, _data: 1)
        recorder.messages.append(await connection.rx.receive())
        await connection.tx.send(Notification("answer"))
        await recorder.handle(connection)

    recorder = Recorder()
    async with serving(handler, NATIVE) as address, raw_client(address) as peer:
        await peer.send(TEXT, HELLO)
        with suppress(trio.BrokenResourceError):
            while not recorder.over.is_set():
                await peer.send(PONG)
                await trio.sleep(1)
    assert "has taken nothing for 40 s" in str(recorder.failure)
