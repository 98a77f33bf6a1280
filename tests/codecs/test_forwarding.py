"""Payloads that pass through: as they came, or under another id with all the rest as it was."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from trioxport.codecs import JSON, MessagePack
from trioxport.codecs.forwarding import Forwarding, renamed
from trioxport.errors import DecodeError
from trioxport.messages import ErrorResponse, Message, Notification, Request, Response
from trioxport.metadata import Metadata

CODEC = Forwarding()
ODD = b'{ "id" : 7, "jsonrpc":"2.0","method":"x","params":{"n":1.50, "big":123456789012345678901234567890}, "more":1e2}'
LONE = b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"text":"\\ud800","_meta":{"progressToken":1,"a":2}}}'


def received(payload: bytes, codec: Forwarding = CODEC) -> Message:
    message: Message = codec.decode(payload)
    return attrs.evolve(message, metadata=Metadata(encoded=codec.form(payload, message)))


def test_a_message_that_nothing_changes_is_forwarded_as_it_came() -> None:
    assert CODEC.encode(received(ODD)) == ODD
    assert (CODEC.name, CODEC.content_type, CODEC.binary) == ("JSON", "application/json", False)
    assert repr(CODEC) == "Forwarding(JSON)"


def test_lines_are_joined_since_a_line_is_a_message_on_other_wires() -> None:
    payload = b'{"jsonrpc":"2.0",\r\n "method":"x",\n "params":{"text":"a\\nb"}}'
    assert CODEC.encode(received(payload)) == payload.replace(b"\n", b" ").replace(b"\r", b" ")


@pytest.mark.parametrize(
    ("payload", "changes"),
    [
        (ODD, {"method": "y"}),
        (ODD, {"id": 8}),
        (ODD, {"extra": {}}),
        (b'{"jsonrpc":"2.0","method":"x"}', {"params": {"a": 1}}),
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}', {"result": {"a": 2}}),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no","more":2}}', {"message": "yes"}),
    ],
)
def test_a_changed_message_is_encoded(payload: bytes, changes: dict[str, Any]) -> None:
    message = attrs.evolve(received(payload), **changes)
    assert CODEC.encode(message) == JSON.encode(message)


def test_a_message_from_another_codec_is_encoded() -> None:
    message = Request(1, "x", {"a": 1})
    packed = received(MessagePack.encode(message), Forwarding(MessagePack))
    assert CODEC.encode(packed) == JSON.encode(message)
    assert renamed(packed, 2) == Request(2, "x", {"a": 1})
    assert Forwarding(MessagePack).binary


@pytest.mark.parametrize("payload", [ODD, LONE])
def test_another_id_leaves_the_rest_of_the_payload(payload: bytes) -> None:
    forwarded = CODEC.encode(renamed(received(payload), "other"))
    assert json.loads(forwarded) == {**json.loads(payload), "id": "other"}
    if payload is ODD:
        assert b"1.50" in forwarded
        assert b"1e2" in forwarded


@pytest.mark.parametrize("payload", [ODD, LONE])
def test_other_members_of_the_parameters(payload: bytes) -> None:
    message = renamed(received(payload), 9, params={"added": True}, meta={"progressToken": 5})
    seen = json.loads(CODEC.encode(message))
    expected = json.loads(payload)
    expected["id"] = 9
    expected["params"]["added"] = True
    expected["params"]["_meta"] = {**expected["params"].get("_meta", {}), "progressToken": 5}
    assert seen == expected
    assert JSON.decode(JSON.encode(message)) == JSON.decode(CODEC.encode(message))


@pytest.mark.parametrize("payload", [ODD, LONE])
def test_an_id_that_is_a_lone_surrogate(payload: bytes) -> None:
    forwarded = CODEC.encode(renamed(received(payload), "\ud800", meta={"progressToken": "\udfff"}))
    seen = json.loads(forwarded)
    assert (seen["id"], seen["params"]["_meta"]["progressToken"]) == ("\ud800", "\udfff")
    assert b"\n" not in forwarded


@pytest.mark.parametrize("more", [b"", b'"more":"\\ud800",'])
@pytest.mark.parametrize("result", [b"5", b"null", b"[1]", b'{"_meta":null}', b'{"_meta":[]}'])
def test_a_member_of_a_result_that_is_no_object(result: bytes, more: bytes) -> None:
    message = renamed(received(b'{"jsonrpc":"2.0",' + more + b'"id":1,"result":' + result + b"}"), 2, meta={"a": 1})
    assert json.loads(CODEC.encode(message))["result"] == {"_meta": {"a": 1}}


def test_members_of_an_error_that_a_message_has_no_place_for() -> None:
    payload = b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no","data":null,"more":2}}'
    seen = json.loads(CODEC.encode(renamed(received(payload), 5)))
    assert seen == {**json.loads(payload), "id": 5}


@pytest.mark.parametrize(
    "message",
    [Request(1, "x"), Notification("x", {"a": 1}), Response(1, {"a": 1}), ErrorResponse(1, 2, "no")],
    ids=lambda message: type(message).__name__,
)
def test_messages_without_a_payload(message: Message) -> None:
    meta = {} if isinstance(message, ErrorResponse) else {"b": 2}
    changed = renamed(message, None if isinstance(message, Notification) else 3, meta=meta)
    assert CODEC.encode(changed) == JSON.encode(changed)
    assert changed != message


@pytest.mark.parametrize("name", [b"other", b"\\ud800"])
def test_a_message_that_is_nested_too_deep_to_be_changed(name: bytes) -> None:
    def deeper(frames: int, message: Message) -> None:
        if frames:
            deeper(frames - 1, message)
        else:
            renamed(message, 2, meta={"a": 1})

    for depth in range(500, 20_000, 20):
        nested = b"[" * depth + b"]" * depth
        try:
            message = received(b'{"jsonrpc":"2.0","method":"' + name + b'","id":1,"params":{"x":' + nested + b"}}")
        except DecodeError:
            break
        deeper(100, message)
