"""Encryption: a broker reads nothing, and what it changed, invented or plays again does not pass."""

from __future__ import annotations

import sys
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
    MessageTooLarge,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Carries, Layer
from trioxport.codecs import JSON, MessagePack
from trioxport.framing.envelope import Envelope, open_envelope
from trioxport.layers import Batching, Compression, Encryption
from trioxport.layers._ciphers import StreamCiphers
from trioxport.layers.encryption import CIPHERS, Cipher
from trioxport.testing import check_layer, check_transport

OLD: Final = b"o" * 32
NEW: Final = b"n" * 32

each_cipher = pytest.mark.parametrize("cipher", CIPHERS)


async def refused(arriving: Iterable[bytes], layer: Encryption | None = None) -> int:
    server = Server(layer or Encryption({"new": NEW}))
    await server.take(arriving)
    assert server.received == []
    return server.discarded


@each_cipher
async def test_messages_pass_and_cannot_be_read_on_the_way(cipher: Cipher) -> None:
    payloads = await sent_by_client(Encryption({"new": NEW}, cipher=cipher))
    assert all(payload.startswith(f"~{cipher};new;".encode()) for payload in payloads)
    assert all(b"note" not in payload and b"number" not in payload for payload in payloads)
    server = Server(Encryption({"new": NEW}))
    await server.take(payloads)
    assert server.received == NOTES


@each_cipher
@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: codec.name)
async def test_the_contract_holds(codec: Any, cipher: Cipher) -> None:
    await check_layer(Encryption({"new": NEW}, cipher=cipher), codec=codec)


async def test_the_contract_holds_with_compression_over_a_wire_for_text(tmp_path: Path) -> None:
    layers: list[Layer] = [Compression(min_size=0, effort=1), Encryption({"new": NEW})]
    await check_transport(links.tcp_link(tmp_path), layers=layers, peer_layers=layers, rules=[1, 2, 3, 4, 5])


@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
def test_any_change_is_refused(changes: list[tuple[int, int]]) -> None:
    async def check() -> None:
        [payload] = await sent_by_client(Encryption({"new": NEW}), NOTES[:1])
        changed = bytearray(payload)
        for place, bits in changes:
            changed[place % len(changed)] ^= bits
        if changed != payload:
            assert await refused([bytes(changed)]) == 1

    trio.run(check)


async def test_messages_in_clear_text_or_by_another_key_are_refused() -> None:
    others = await sent_by_client(Encryption({"new": OLD}), NOTES[:1])
    unknown = await sent_by_client(Encryption({"other": NEW}), NOTES[:1])
    forged = [
        b"~aes-256-gcm~x",
        b"~aes-256-gcm;new;s;1;x~x",
        b"~aes-256-gcm;new;s;1;1;base64~?",
        b"~aes-256-gcm;new;s;1;1~",
    ]
    assert await refused([JSON.encode(NOTES[0]), *others, *unknown, b"~gzip~x", *forged]) == 8


@pytest.mark.parametrize("place", [0, 2, 3, 4])
async def test_the_head_is_authenticated(place: int) -> None:
    [payload] = await sent_by_client(Encryption({"new": NEW}), NOTES[:1])
    envelope = open_envelope(payload)
    assert envelope is not None
    fields = list(envelope.fields)
    fields[place] = {0: "chacha20-poly1305", 2: "other"}.get(place, str(int(fields[place]) + 1) if place > 2 else "")
    assert await refused([Envelope(fields, envelope.body).pack()]) == 1


async def test_a_message_that_comes_again_or_late_is_refused() -> None:
    first, second, third = await sent_by_client(Encryption({"new": NEW}))
    server = Server(Encryption({"new": NEW}))
    await server.take([first, first, third, second, third])
    assert server.received == [NOTES[0], NOTES[2]]
    assert server.discarded == 3


async def test_a_recorded_connection_cannot_be_played_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = await sent_by_client(Encryption({"new": NEW}))
    layer = Encryption({"new": NEW})
    await Server(layer).take(payloads)
    assert await refused(payloads, layer) == 3
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 302)
    assert await refused(payloads) == 3  # an instance that has not seen it refuses it by its age


async def test_a_message_turned_back_to_its_sender_is_refused() -> None:
    layer = Encryption({"new": NEW})
    payloads = await sent_by_client(layer)
    async with open_transport(Wire(payloads), layers=[layer]) as connection:
        assert [message async for message in connection.rx] == []
        assert connection.statistics().discarded == {"ProtocolViolation": 3}


async def test_connections_have_streams_of_their_own() -> None:
    """The same message twice: another key, so that the same count is no nonce used twice."""
    layer = Encryption({"new": NEW})
    [first], [second] = [await sent_by_client(layer, NOTES[:1]) for _ in range(2)]
    heads = [open_envelope(payload) for payload in (first, second)]
    assert heads[0] is not None and heads[1] is not None
    assert heads[0].fields[2] != heads[1].fields[2]
    assert heads[0].fields[3] == heads[1].fields[3] == "1"
    assert heads[0].body != heads[1].body


async def test_keys_may_change_while_a_connection_is_open() -> None:
    keys = {"old": OLD}
    wire = Wire()
    async with open_transport(wire, layers=[Encryption(keys)]) as (tx, _):
        await tx.send(NOTES[0])
        del keys["old"]
        keys["new"] = NEW
        await tx.send(NOTES[1])
    assert [payload.split(b";")[1] for payload in wire.sent] == [b"old", b"new"]
    server = Server(Encryption({"new": NEW, "old": OLD}))
    await server.take(wire.sent)
    assert server.received == NOTES[:2]


async def test_an_answer_in_clear_text_settles_its_request() -> None:
    async with open_transport(Wire([JSON.encode(Response(1, {}))]), layers=[Encryption({"new": NEW})]) as (tx, rx):
        await tx.send(Request(1, "ask"))
        answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert "is not encrypted. Give both sides the same Encryption" in str(answer.cause)


async def test_a_message_that_encryption_makes_too_large_is_not_sent() -> None:
    async with open_transport(Wire(), layers=[Encryption({"new": NEW})], limits=Limits(200)) as (tx, _):
        with pytest.raises(MessageTooLarge, match="encrypted, a message of") as caught:
            await tx.send(Notification("note", {"text": "x" * 100}))
    assert caught.value.outcome == "not_sent"


async def test_a_message_over_the_limit_stays_one() -> None:
    layer = Encryption({"new": NEW})
    payloads = await sent_by_client(layer, [Notification("note", {"text": "x" * 2000})])
    server = Server(layer, limits=Limits(1000))
    await server.take(payloads)
    assert server.received == []


@pytest.mark.parametrize("text", ["x" * 3000, "x"], ids=["large", "small"])
async def test_a_forged_request_is_not_answered(text: str) -> None:
    """An encrypted error to it would tell the client that its own request 1 was not carried out."""

    async def handler(connection: Connection) -> None:
        assert [message async for message in connection.rx] == []

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_transport, layers=[Encryption({"new": NEW})], limits=Limits(max_message_size=2000))
            [address] = await nursery.start(serve, handler, "tcp://127.0.0.1:0")
            async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
                await stream.send_all(JSON.encode(Request(1, "pay", {"note": text})) + b"\n")
                await wait_all_tasks_blocked(0.05)  # an answer would be on its way
                await stream.send_eof()
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("carries", ["http", "events"])
async def test_over_http_it_is_refused(carries: Carries) -> None:
    with pytest.raises(UsageError, match=r"no place for an encrypted message\. Use https"):
        async with open_transport(Wire(carries=carries), layers=[Encryption({"new": NEW})]):
            pass


async def test_batching_below_it_is_refused() -> None:
    with pytest.raises(UsageError, match="Batching below Encryption has nothing to do"):
        async with open_transport(Wire(), layers=[Encryption({"new": NEW}), Batching()]):
            pass


@pytest.mark.parametrize("keys", [{}, {"short": b"x" * 31}, {"long": b"x" * 33}, {"a;b": NEW}, {"": NEW}])
def test_keys_that_cannot_be_used_are_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(UsageError):
        Encryption(keys)


def test_keys_are_in_no_repr_and_no_error() -> None:
    layer = Encryption({"new": b"secret!!" * 4})
    assert repr(layer) == "Encryption(keys=['new'], cipher='aes-256-gcm', max_age=300.0)"
    with pytest.raises(UsageError) as caught:
        Encryption({"new": b"secret!!"})
    assert "secret!!" not in str(caught.value)


def test_a_cipher_without_its_key_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="not known here"):
        StreamCiphers({}).find("aes-256-gcm", "old", "stream")


async def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trioxport.layers._ciphers")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(UsageError, match="cryptography is not installed"):
        async with open_transport(Wire(), layers=[Encryption({"new": NEW})]):
            pass
