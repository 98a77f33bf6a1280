"""Batching: what goes together and what does not, and what comes of a batch on the other side."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Literal

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioxport import (
    Connection,
    ConnectionLost,
    Frame,
    Incoming,
    Limits,
    Message,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.abc import Carries, FrameChannels, Layer, Scope
from trioxport.layers import Batching, Compression, Signing, Tap
from trioxport.testing import check_layer, check_transport
from trioxport.testing.contract import memory_pair

REVISION = "2025-03-26"


def notes(*numbers: int) -> list[Notification]:
    return [Notification("note", {"number": number}) for number in numbers]


@attrs.define
class Wire:
    """A transport that keeps what is sent over it, and receives what it is given; ``refuses``: cannot deliver it."""

    arriving: Sequence[bytes] = ()
    sent: list[bytes] = attrs.Factory(list[bytes])
    carries: Carries = "bytes"
    refuses: bool = False

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        to_wire, outgoing = trio.open_memory_channel[Frame](0)
        incoming, from_wire = trio.open_memory_channel[Frame](99)
        for payload in self.arriving:
            incoming.send_nowait(Frame(payload))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, outgoing, incoming)
            with incoming, from_wire:
                yield FrameChannels(to_wire, from_wire, self.carries)

    async def _keep(self, outgoing: trio.MemoryReceiveChannel[Frame], incoming: trio.MemorySendChannel[Frame]) -> None:
        async for frame in outgoing:
            self.sent.append(frame.payload)
            if self.refuses:
                error = ConnectionLost("no way through", outcome="not_sent")
                await incoming.send(Frame(b"", frame.message, error=error))

    def shapes(self) -> list[Any]:
        """The payloads on the wire: lists of numbers for batches, numbers for single messages."""
        return [_shape(json.loads(payload)) for payload in self.sent]


def _shape(value: Any) -> Any:
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return value["params"]["number"] if "params" in value else value.get("id", value.get("method"))


async def sent(
    messages: Sequence[Message], layer: Batching | None = None, revision: str | None = REVISION, **options: Any
) -> list[Any]:
    wire = Wire(**{key: options.pop(key) for key in ("carries",) if key in options})
    async with open_transport(wire, layers=[layer or Batching()], **options) as connection:
        connection.info.protocol_version = revision
        for message in messages:
            await connection.tx.send(message)
    return wire.shapes()


async def test_what_is_sent_without_a_pause_goes_together() -> None:
    assert await sent(notes(1, 2, 3)) == [[1, 2, 3]]


@pytest.mark.parametrize("revision", [None, "2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28"])
async def test_no_other_revision_has_batches(revision: str | None) -> None:
    assert await sent(notes(1, 2, 3), revision=revision) == [1, 2, 3]


async def test_over_http_nothing_goes_together() -> None:
    assert await sent(notes(1, 2, 3), carries="http") == [1, 2, 3]


async def test_how_many_go_together_is_bounded_by_number_and_by_size() -> None:
    assert await sent(notes(1, 2, 3, 4, 5), Batching(max_messages=2)) == [[1, 2], [3, 4], 5]
    size = len(json.dumps({"jsonrpc": "2.0", "method": "note", "params": {"number": 1}}, separators=(",", ":")))
    assert await sent(notes(1, 2, 3, 4, 5), Batching(max_size=3 * size + 2)) == [[1, 2, 3], [4, 5]]
    assert await sent(notes(1, 2, 3), Batching(max_size=1)) == [1, 2, 3]
    assert await sent(notes(1, 2, 3), limits=Limits(max_message_size=4 * size + 4)) == [[1, 2], 3]


async def test_calls_and_answers_go_apart_and_keep_their_order() -> None:
    messages: list[Message] = [
        *notes(1, 2),
        Response("a", {}),
        Response("b", {}),
        Request("init", "initialize"),
        *notes(3),
        Response("c", {}),
    ]
    assert await sent(messages) == [[1, 2], ["a", "b"], "init", 3, "c"]


async def test_what_another_layer_made_of_a_payload_goes_alone() -> None:
    wire = Wire()
    long = {"number": 1, "text": "x" * 999}
    async with open_transport(wire, layers=[Compression(min_size=500), Batching()]) as connection:
        connection.info.protocol_version = REVISION
        for message in (*notes(1), Notification("note", long), *notes(2, 3)):
            await connection.tx.send(message)
    assert [payload[:1] for payload in wire.sent] == [b"{", b"~", b"["]


async def test_a_message_with_headers_of_its_own_goes_alone() -> None:
    with_headers = Notification("note", {"number": 2}, metadata={"headers": {"traceparent": "00-1-2-01"}})
    assert await sent([*notes(1), with_headers, *notes(3, 4)]) == [1, 2, [3, 4]]


async def test_a_message_waits_for_others_as_long_as_the_window_is(autojump_clock: trio.testing.MockClock) -> None:
    wire = Wire()
    async with open_transport(wire, layers=[Batching(window=5)]) as connection:
        connection.info.protocol_version = REVISION
        for number in range(4):
            await connection.tx.send(notes(number)[0])
            await trio.sleep(2)
        assert wire.shapes() == [[0, 1, 2]]
        await trio.sleep(3.5)
        assert wire.shapes() == [[0, 1, 2], 3]


async def test_closing_sends_what_waits_at_once(autojump_clock: trio.testing.MockClock) -> None:
    wire = Wire()
    began = trio.current_time()
    async with open_transport(wire, layers=[Batching(window=60)]) as connection:
        connection.info.protocol_version = REVISION
        for note in notes(1, 2):
            await connection.tx.send(note)
    assert wire.shapes() == [[1, 2]]
    assert trio.current_time() - began < 1


async def test_both_sides_learn_the_revision_from_the_handshake() -> None:
    sent_by: dict[str, list[bytes]] = {"client": [], "server": []}

    async def serve(connection: Connection) -> None:
        tx, rx = connection
        requests = []
        async for message in rx:
            if isinstance(message, Request) and message.method == "initialize":
                await tx.send(Response(message.id, {"protocolVersion": REVISION, "serverInfo": {}, "capabilities": {}}))
            elif isinstance(message, Request):
                requests.append(message)
            if len(requests) == 3:
                for request in requests:
                    await tx.send(Response(request.id, request.params))

    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[list[str]]) -> None:
            layers: list[Layer] = [Batching(), Tap(sent_by["server"].append)]
            await serve_transport(serve, "tcp://127.0.0.1:0", layers=layers, task_status=task_status)

        [address] = await nursery.start(start)
        async with open_transport(address, layers=[Batching(), Tap(sent_by["client"].append)]) as (tx, rx):
            await tx.send(Request(0, "initialize", {"protocolVersion": REVISION}))
            await rx.receive()
            for number in (1, 2, 3):
                await tx.send(Request(number, "echo", {"number": number}))
            answers = [await rx.receive() for _ in range(3)]
        nursery.cancel_scope.cancel()
    assert answers == [Response(number, {"number": number}) for number in (1, 2, 3)]
    for lines in sent_by.values():
        frames = [frame for frame in map(json.loads, lines) if frame["direction"] == "sent"]
        assert [frame["payload"][0] for frame in frames] == ["{", "["]


async def test_a_batch_that_was_not_agreed_on_is_refused_and_settles_what_it_answers() -> None:
    wire = Wire([b'[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","method":"note"}]'])
    async with open_transport(wire, layers=[Batching()]) as connection:
        await connection.tx.send(Request(1, "ask"))
        answer = await connection.rx.receive()
        with trio.move_on_after(0.01):
            await connection.rx.receive()
        assert connection.statistics().discarded == {"ProtocolViolation": 2}
    assert isinstance(answer, Undelivered)
    assert "which revision 2025-03-26 alone has" in str(answer.cause)


async def test_a_bad_message_in_a_batch_leaves_the_others_alone() -> None:
    wire = Wire([b'[{"jsonrpc":"2.0","method":"a"}, 7, {"no":"message"}, {"jsonrpc":"2.0","method":"b"}]', b"[", b"[]"])
    async with open_transport(wire, layers=[Batching()]) as connection:
        connection.info.protocol_version = REVISION
        assert await connection.rx.receive() == Notification("a")
        assert await connection.rx.receive() == Notification("b")
        with trio.move_on_after(0.01):
            await connection.rx.receive()
        assert connection.statistics().discarded == {"ProtocolViolation": 3, "DecodeError": 1}


async def test_each_message_of_a_batch_that_cannot_be_delivered_comes_back() -> None:
    async with open_transport(Wire(refuses=True), layers=[Batching()]) as connection:
        connection.info.protocol_version = REVISION
        messages: list[Message] = [Request(1, "ask"), *notes(2), Request(3, "ask")]
        for message in messages:
            await connection.tx.send(message)
        found = [await connection.rx.receive() for _ in range(3)]
    assert [isinstance(each, Undelivered) and each.outcome for each in found] == ["not_sent"] * 3
    assert [each.id for each in found if isinstance(each, Undelivered)] == [1, None, 3]


async def test_what_a_layer_below_refuses_comes_back_to_a_receive_that_waits() -> None:
    layers: list[Layer] = [Batching(), Signing({"key": b"k" * 32})]
    found: list[Any] = []
    async with (
        open_transport(Wire(), layers=layers, limits=Limits(max_message_size=200)) as connection,
        trio.open_nursery() as nursery,
    ):

        async def receive() -> None:
            found.append(await connection.rx.receive())

        connection.info.protocol_version = REVISION
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await connection.tx.send(Request(1, "ask", {"text": "x" * 120}))
    [answer] = found
    assert isinstance(answer, Undelivered)
    assert answer.id == 1
    assert answer.outcome == "not_sent"
    assert isinstance(answer.cause, MessageTooLarge)


@attrs.frozen
class Agreed:
    """A frame layer that only says that the connection speaks the revision."""

    level: ClassVar[Literal["frame"]] = "frame"

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        scope.info.protocol_version = REVISION
        return channels


async def test_it_keeps_the_contract() -> None:
    await check_layer(Batching())


@pytest.mark.parametrize("window", [0, 0.001])
async def test_it_keeps_the_contract_where_messages_go_together(window: float) -> None:
    layers: list[Layer] = [Batching(window=window), Agreed()]
    await check_transport(memory_pair, layers=layers, peer_layers=layers)


async def test_requests_that_wait_when_the_peer_ends_come_back_and_the_rest_is_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Incoming] = []

    async def serve(connection: Connection) -> None:
        await connection.tx.aclose()
        heard.extend([message async for message in connection.rx])

    async with trio.open_nursery() as nursery:
        layers: list[Layer] = [Batching(window=60), Agreed()]
        await nursery.start(partial(serve_transport, serve, "memory://ends", layers=layers))
        async with open_transport("memory://ends", layers=layers) as (tx, rx):
            messages: list[Message] = [*notes(1), Request(1, "ask"), *notes(2)]
            for message in messages:
                await tx.send(message)
            told = await rx.receive()
            assert trio.current_time() < 60
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
        nursery.cancel_scope.cancel()
    assert isinstance(told, Undelivered)
    assert (told.id, told.outcome) == (1, "not_sent")
    assert heard == notes(1, 2)
