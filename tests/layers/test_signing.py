"""Signing: what is not signed, was changed, or comes again does not pass, and everything else does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.support import links
from tests.support.protected_wire import NOTES, Server, Wire, sent_by_client
from trioxport import (
    Connection,
    Limits,
    Message,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Codec, Layer
from trioxport.codecs import JSON, MessagePack
from trioxport.framing.envelope import MARK
from trioxport.layers import Compression, Signing
from trioxport.testing import check_layer, check_transport

OLD: Final = b"o" * 32
NEW: Final = b"n" * 32


async def refused(arriving: Iterable[bytes], layer: Signing | None = None) -> int:
    server = Server(layer or Signing({"new": NEW}))
    await server.take(arriving)
    assert server.received == []
    return server.discarded


async def test_what_is_signed_passes() -> None:
    payloads = await sent_by_client(Signing({"new": NEW}))
    server = Server(Signing({"new": NEW}))
    await server.take(payloads)
    assert server.received == NOTES
    assert all(b"\n" not in payload for payload in payloads)


@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: codec.name)
async def test_it_keeps_the_contract(codec: Any) -> None:
    await check_layer(Signing({"new": NEW}), codec=codec)


async def test_it_keeps_the_contract_with_compression_over_a_wire_for_text(tmp_path: Path) -> None:
    layers: list[Layer] = [Compression(min_size=0, effort=1), Signing({"new": NEW})]
    await check_transport(links.tcp_link(tmp_path), layers=layers, peer_layers=layers, rules=[1, 2, 3, 4, 5])


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 0.999])
async def test_a_changed_message_is_refused(place: float) -> None:
    [payload] = await sent_by_client(Signing({"new": NEW}), NOTES[:1])
    changed = bytearray(payload)
    changed[int(len(payload) * place)] ^= 1
    assert await refused([bytes(changed)]) == 1


@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
def test_any_change_is_refused(changes: list[tuple[int, int]]) -> None:
    async def check() -> None:
        [payload] = await sent_by_client(Signing({"new": NEW}), NOTES[:1])
        changed = bytearray(payload)
        for place, bits in changes:
            changed[place % len(changed)] ^= bits
        if changed != payload:
            assert await refused([bytes(changed)]) == 1

    trio.run(check)


async def test_what_is_not_signed_or_by_another_key_is_refused() -> None:
    others = await sent_by_client(Signing({"new": OLD}), NOTES[:1])
    unknown = await sent_by_client(Signing({"other": NEW}), NOTES[:1])
    assert await refused([JSON.encode(NOTES[0]), *others, *unknown, b"~gzip~x", b"~hmac-sha256~x"]) == 5


async def test_a_message_that_comes_again_or_late_is_refused() -> None:
    first, second, third = await sent_by_client(Signing({"new": NEW}))
    server = Server(Signing({"new": NEW}))
    await server.take([first, first, third, second, third])
    assert server.received == [NOTES[0], NOTES[2]]
    assert server.discarded == 3


async def test_a_recorded_connection_cannot_be_played_to_another() -> None:
    payloads = await sent_by_client(Signing({"new": NEW}))
    layer = Signing({"new": NEW})
    await Server(layer).take(payloads[:2])
    assert await refused(payloads[:2], layer) == 2
    going_on = Server(layer)  # as after a reconnection below the layer, which goes on counting
    await going_on.take(payloads[2:])
    assert going_on.received == NOTES[2:]


async def test_a_recording_is_refused_by_its_age_where_nobody_remembers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = await sent_by_client(Signing({"new": NEW}))
    now = time.time()
    for seconds in (302, -302):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now + seconds)
        assert await refused(payloads) == 3
    monkeypatch.setattr(time, "time", lambda: now + 290)
    server = Server(Signing({"new": NEW}))
    await server.take(payloads)
    assert server.received == NOTES


async def test_streams_are_forgotten_once_they_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Signing({"new": NEW}, max_age=10)
    now = time.time()
    for step in range(5):
        monkeypatch.setattr(time, "time", lambda step=step: now + 20 * step)
        payloads = await sent_by_client(Signing({"new": NEW}))
        await Server(layer).take(payloads)
        assert len(layer._seen._streams) == 1
        assert await refused(payloads, layer) == 3


async def test_a_stream_is_kept_while_one_of_its_messages_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the sender is set back between its messages; then other connections come and go."""
    now = time.time()
    wire = Wire()
    async with open_transport(wire, layers=[Signing({"new": NEW})]) as (tx, _):
        await tx.send(NOTES[0])
        monkeypatch.setattr(time, "time", lambda: now - 400)
        await tx.send(NOTES[1])
    monkeypatch.setattr(time, "time", lambda: now)
    layer = Signing({"new": NEW})
    await Server(layer).take(wire.sent)
    await Server(layer).take(await sent_by_client(Signing({"new": NEW})))
    assert await refused(wire.sent, layer) == 2


async def test_a_message_turned_back_to_its_sender_is_refused() -> None:
    layer = Signing({"new": NEW})
    payloads = await sent_by_client(layer)
    async with open_transport(Wire(payloads), layers=[layer]) as connection:
        assert [message async for message in connection.rx] == []
        assert connection.statistics().discarded == {"ProtocolViolation": 3}


async def test_keys_are_replaced_one_side_after_the_other() -> None:
    for sender, receiver in (
        ({"old": OLD}, {"old": OLD, "new": NEW}),
        ({"old": OLD, "new": NEW}, {"new": NEW, "old": OLD}),
        ({"new": NEW, "old": OLD}, {"new": NEW}),
    ):
        server = Server(Signing(receiver))
        await server.take(await sent_by_client(Signing(sender)))
        assert server.received == (NOTES if next(iter(sender)) in receiver else [])


async def test_keys_may_change_while_a_connection_is_open() -> None:
    keys = {"old": OLD}
    wire = Wire()
    async with open_transport(wire, layers=[Signing(keys)]) as (tx, _):
        await tx.send(NOTES[0])
        del keys["old"]
        keys["new"] = NEW
        await tx.send(NOTES[1])
    assert [payload.split(b";")[1] for payload in wire.sent] == [b"old", b"new"]


async def test_an_answer_that_is_not_signed_settles_its_request() -> None:
    async with open_transport(Wire([JSON.encode(Response(1, {}))]), layers=[Signing({"new": NEW})]) as (tx, rx):
        await tx.send(Request(1, "ask"))
        answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert "is not signed. Give both sides the same Signing" in str(answer.cause)


async def test_a_message_that_its_signature_makes_too_large_is_not_sent() -> None:
    async with open_transport(Wire(), layers=[Signing({"new": NEW})], limits=Limits(200)) as (tx, _):
        with pytest.raises(MessageTooLarge, match="with its signature") as caught:
            await tx.send(Notification("note", {"text": "x" * 100}))
    assert caught.value.outcome == "not_sent"


async def test_over_http_it_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no place for a signature\. Use https"):
        async with open_transport(Wire(carries="http"), layers=[Signing({"new": NEW})]):
            pass


async def test_over_http_it_is_refused_by_either_side() -> None:
    layer = Signing({"new": NEW})
    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[list[str]]) -> None:
            async def handler(connection: Connection) -> None:
                raise AssertionError("a connection came about")

            await serve_transport(handler, "http://127.0.0.1:0/mcp", layers=[layer], task_status=task_status)

        [url] = await nursery.start(start)
        with pytest.raises(UsageError, match=r"Use https"):
            async with open_transport(url, layers=[layer]):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keys", [{}, {"short": b"x" * 31}, {"a;b": NEW}, {"": NEW}])
def test_keys_that_cannot_be_used_are_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(UsageError):
        Signing(keys)


def test_keys_are_in_no_repr_and_no_error() -> None:
    assert repr(Signing({"new": b"secret" * 9})) == "Signing(keys=['new'], max_age=300.0)"
    with pytest.raises(UsageError) as caught:
        Signing({"new": b"secret"})
    assert "secret" not in str(caught.value).replace("secrets.token_bytes", "")


def test_no_message_begins_like_an_envelope() -> None:
    codecs: list[Codec] = [JSON, MessagePack]
    messages: list[Message] = [*NOTES, Request(1, "m"), Response(1, None)]
    for codec in codecs:
        for message in messages:
            assert not codec.encode(message).startswith(MARK)


@pytest.mark.parametrize("forged", [Request(1, "pay"), Request(1, "pay", {"note": "x" * 3000})], ids=["short", "large"])
async def test_a_forged_request_is_not_answered(forged: Request) -> None:
    """A signed error to it would tell the client that its own request 1 was not carried out."""
    received: list[Any] = []

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            received.append(message)  # noqa: PERF401 (what arrived before the end counts)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            limits = Limits(max_message_size=2000)
            serve = partial(
                serve_transport, handler, "tcp://127.0.0.1:0", layers=[Signing({"k1": b"x" * 32})], limits=limits
            )
            [address] = await nursery.start(serve)
            stream = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
            async with stream:
                await stream.send_all(JSON.encode(forged) + b"\n")
                await wait_all_tasks_blocked(0.05)  # an answer would be on its way
                await stream.send_eof()
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()
    assert received == []
