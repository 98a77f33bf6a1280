"""Promises of the codecs: RFC 8259 values survive, everything else is refused with the right error."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioxport import (
    DecodeError,
    ErrorResponse,
    Message,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    Undelivered,
    UsageError,
)
from trioxport.codecs import JSON, MessagePack
from trioxport.frames import EXCERPT_BYTES
from trioxport.framing import NEWLINE, Oversized

seeded = settings(derandomize=True, max_examples=60, deadline=None)

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
utf8_text = st.text(max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
any_integer = st.integers(-(2**200), 2**200)
word = st.integers(-(2**63), 2**64 - 1)


def values(text: st.SearchStrategy[str], integers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | integers | finite | text
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=20,
    )


def messages(text: st.SearchStrategy[str], integers: st.SearchStrategy[int]) -> st.SearchStrategy[Message]:
    ids = text | integers
    objects = st.dictionaries(text, values(text, integers), max_size=4)
    params = st.none() | objects | st.lists(values(text, integers), max_size=4)
    extra = st.dictionaries(
        text.filter(lambda name: name not in {"jsonrpc", "id", "method", "params", "result", "error"}),
        values(text, integers),
        max_size=2,
    )
    return st.one_of(
        st.builds(Request, ids, text, params, extra),
        st.builds(Notification, text, params, extra),
        st.builds(Response, ids, values(text, integers), extra),
        st.builds(ErrorResponse, st.none() | ids, integers, text, values(text, integers), extra),
    )


@seeded
@given(messages(any_text, any_integer))
def test_json_carries_every_value_of_rfc_8259_unchanged(message: Message) -> None:
    payload = JSON.encode(message)
    assert b"\n" not in payload
    assert JSON.decode(payload) == message
    assert repr(JSON.decode(payload)) == repr(JSON.decode(JSON.encode(JSON.decode(payload))))


@seeded
@given(messages(utf8_text, word))
def test_messagepack_carries_what_it_can_unchanged(message: Message) -> None:
    assert MessagePack.decode(MessagePack.encode(message)) == message


@seeded
@given(messages(any_text, any_integer))
def test_messagepack_refuses_what_it_cannot_carry(message: Message) -> None:
    try:
        payload = MessagePack.encode(message)
    except UsageError:
        assert not _fits_messagepack(message)
    else:
        assert MessagePack.decode(payload) == message


def _fits_messagepack(message: Message) -> bool:
    waiting: list[Any] = [json.loads(JSON.encode(message))]
    while waiting:
        match waiting.pop():
            case str() as text if any("\ud800" <= char <= "\udfff" for char in text):
                return False
            case int() as number if not -(2**63) <= number < 2**64:
                return False
            case dict() as members:
                waiting.extend(members)
                waiting.extend(members.values())
            case list() as items:
                waiting.extend(items)
            case _:
                pass
    return True


@pytest.mark.parametrize(
    "value",
    [2**63, 2**64, -(2**63) - 1, 10**300, "\ud800", "\udfff\ud800", "\u2028", "\x00", "", -0.0, 5e-324, 1.7e308],
    ids=repr,
)
def test_awkward_values_survive_json_to_the_last_bit(value: object) -> None:
    decoded = JSON.decode(JSON.encode(Response(1, {"": value})))
    assert isinstance(decoded, Response)
    assert repr(decoded.result) == repr({"": value})


def test_integers_beyond_64_bits_are_digits_on_the_wire() -> None:
    assert JSON.encode(Response(2**70, [2**64])) == b'{"jsonrpc":"2.0","id":%d,"result":[%d]}' % (2**70, 2**64)


def test_deep_but_legal_nesting_survives() -> None:
    value: Any = "core"
    for _ in range(150):
        value = [{"": value}]
    assert JSON.decode(JSON.encode(Response(1, value))) == Response(1, value)
    assert MessagePack.decode(MessagePack.encode(Response(1, value))) == Response(1, value)


def test_unknown_top_level_members_are_kept() -> None:
    payload = b'{"jsonrpc":"2.0","id":"a","method":"x","trace":{"a":1},"":null}'
    message = JSON.decode(payload)
    assert message == Request("a", "x", extra={"trace": {"a": 1}, "": None})
    assert json.loads(JSON.encode(message)) == json.loads(payload)


def test_any_mapping_can_be_sent() -> None:
    frozen: Mapping[str, Any] = MappingProxyType({"inner": MappingProxyType({"big": 2**80, "lone": "\ud800"})})
    assert JSON.decode(JSON.encode(Request(1, "x", frozen))) == Request(
        1, "x", {"inner": {"big": 2**80, "lone": "\ud800"}}
    )
    plain: Mapping[str, Any] = MappingProxyType({"inner": MappingProxyType({"a": 1})})
    assert MessagePack.decode(MessagePack.encode(Request(1, "x", plain))) == Request(1, "x", {"inner": {"a": 1}})


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=repr)
@pytest.mark.parametrize("number", NOT_FINITE, ids=repr)
@pytest.mark.parametrize("shape", [lambda n: n, lambda n: {"a": [1, {"b": n}]}, lambda n: {"a": (n,), "b": "\u2028"}])
def test_nan_and_infinity_cannot_be_sent(codec: Any, number: float, shape: Any) -> None:
    with pytest.raises(UsageError, match=repr(number)):
        codec.encode(Response(1, shape(number)))


@pytest.mark.parametrize("number", NOT_FINITE, ids=repr)
def test_nan_cannot_be_sent_next_to_what_only_the_standard_library_writes(number: float) -> None:
    with pytest.raises(UsageError):
        JSON.encode(Response(1, [number, "\ud800", 2**80]))


def test_null_is_no_reason_to_refuse() -> None:
    assert JSON.decode(JSON.encode(Response(1, [None, "null"]))) == Response(1, [None, "null"])


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[1e400]"])
@pytest.mark.parametrize("beside", ["", ',"lone":"\\ud800"', ',"big":' + "9" * 30])
def test_what_is_no_finite_number_is_not_received_as_json(literal: str, beside: str) -> None:
    with pytest.raises(DecodeError):
        JSON.decode(b'{"jsonrpc":"2.0","id":1,"result":%s%s}' % (literal.encode(), beside.encode()))


@pytest.mark.parametrize(
    "number",
    [b"\xca\x7f\xc0\x00\x00", b"\xca\xff\x80\x00\x00", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xcb\xff\xf0\0\0\0\0\0\0"],
)
def test_what_is_no_finite_number_is_not_received_as_messagepack(number: bytes) -> None:
    with pytest.raises(DecodeError):
        MessagePack.decode(b"\x83\xa7jsonrpc\xa32.0\xa2id\x01\xa6result\x91" + number)


def test_a_type_that_only_messagepack_has_is_refused_beside_what_looks_like_nan() -> None:
    ballast = b"\x92\xcb\x7f\xf8\0\0\0\0\0\0\xd4\x05\0"
    with pytest.raises(DecodeError, match="Ext"):
        MessagePack.decode(b"\x83\xa7jsonrpc\xa32.0\xa2id\x01\xa6result" + ballast)
    assert MessagePack.identify(b"\x83\xa7jsonrpc\xa32.0\xa2id\x01\xa6result" + ballast) == 1


def test_bytes_that_look_like_nan_inside_messagepack_text_are_none() -> None:
    message = Response(1, [b"\xcb\x7f\xf8\0\0\0\0\0\0", "x"])
    assert MessagePack.decode(MessagePack.encode(message)) == message


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("cannot be shown")


@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=repr)
@pytest.mark.parametrize(
    "message",
    [
        Request(1, "x", {"a": object()}),
        Request(1, "x", {("a", "b"): object()}),  # type: ignore[dict-item]  # wrong on purpose
        Request(1, "x", {"a": _deep(100_000)}),
        Request(1, "x", extra={"method": "y"}),
        Request(None, "x"),  # type: ignore[arg-type]  # wrong on purpose
        Request(True, "x"),
        Response(1.5, "x"),  # type: ignore[arg-type]  # wrong on purpose
        Request(Unshowable(), "x"),  # type: ignore[arg-type]  # wrong on purpose
        ErrorResponse(True, 1, "x"),
        Undelivered.of(Request(1, "x"), UsageError("why")),
        "not a message",
    ],
    ids=[
        "object",
        "key",
        "deep",
        "reserved",
        "no id",
        "bool id",
        "float id",
        "id without repr",
        "bool id of an error",
        "Undelivered",
        "str",
    ],
)
def test_what_has_no_encoding_is_a_usage_error(codec: Any, message: Any) -> None:
    with pytest.raises(UsageError) as caught:
        codec.encode(message)
    assert caught.value.outcome == "not_sent"


def test_a_value_that_contains_itself_is_a_usage_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for codec in (JSON, MessagePack):
        with pytest.raises(UsageError):
            codec.encode(Response(1, endless))
    with pytest.raises(UsageError):
        JSON.encode(Response(1, ["\ud800", endless]))


def test_an_integer_too_long_for_python_to_write_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="digits"):
        JSON.encode(Response(1, 10**5000))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"junk", "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":1}x', "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":1}{}', "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":"\n"}', "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"9" * 5000 + b"}", "not JSON"),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"result":1}', "not JSON"),
        (b'{"jsonrpc":"2.0","id":1,"result":"\xff"}', "not UTF-8"),
        (b'{"jsonrpc":"2.0","id":1,"result":"\xed\xa0\x80"}', "not UTF-8"),
        ('{"jsonrpc":"2.0","id":1,"result":1}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "nested too deep"),
        (b'["\\ud800",' + b"[" * 100_000 + b"]" * 100_001, "nested too deep"),
    ],
)
def test_what_is_no_json_text_is_a_decode_error(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        JSON.decode(payload)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x81", b"\xc1", b"\x80\x80", b"\x81\xa1\xff\x01", b"\x91" * 100_000 + b"\xc0", b"\xdd\xff\xff\xff\xff"],
)
def test_what_is_no_messagepack_is_a_decode_error(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="not MessagePack"):
        MessagePack.decode(payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("null", "an object, not NoneType"),
        ("3", "an object, not int"),
        ("[]", "batch"),
        ('[{"jsonrpc":"2.0","id":1,"result":1}]', "batch"),
        ("{}", "jsonrpc"),
        ('{"jsonrpc":"1.0","id":1,"result":1}', "jsonrpc"),
        ('{"jsonrpc":2.0,"id":1,"result":1}', "jsonrpc"),
        ('{"id":1,"method":"x"}', "jsonrpc"),
        ('{"jsonrpc":"2.0"}', "none of the members"),
        ('{"jsonrpc":"2.0","id":1}', "none of the members"),
        ('{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}', "both a result and an error"),
        ('{"jsonrpc":"2.0","id":1,"method":"x","result":1}', "both a method and a result or an error"),
        ('{"jsonrpc":"2.0","method":"x","error":{"code":1,"message":""}}', "both a method and a result or an error"),
        ('{"jsonrpc":"2.0","id":1,"method":"x","result":null}', "both a method and a result or an error"),
        ('{"jsonrpc":"2.0","id":null,"method":"x"}', "id is neither"),
        ('{"jsonrpc":"2.0","id":1.5,"method":"x"}', "id is neither"),
        ('{"jsonrpc":"2.0","id":1.0,"result":1}', "id is neither"),
        ('{"jsonrpc":"2.0","id":true,"result":1}', "id is neither"),
        ('{"jsonrpc":"2.0","id":null,"result":1}', "id is neither"),
        ('{"jsonrpc":"2.0","result":1}', "id is neither"),
        ('{"jsonrpc":"2.0","id":[1],"error":{"code":1,"message":""}}', "id is neither"),
        ('{"jsonrpc":"2.0","method":5}', "method is not a string"),
        ('{"jsonrpc":"2.0","id":1,"method":null}', "method is not a string"),
        ('{"jsonrpc":"2.0","method":"x","params":"y"}', "params is neither"),
        ('{"jsonrpc":"2.0","id":1,"method":"x","params":3}', "params is neither"),
        ('{"jsonrpc":"2.0","id":1,"error":{"message":"x"}}', "error is no object"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":"x"}}', "error is no object"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":true,"message":"x"}}', "error is no object"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":1}}', "error is no object"),
        ('{"jsonrpc":"2.0","id":1,"error":"x"}', "error is no object"),
    ],
)
def test_what_is_json_but_no_message_is_a_protocol_violation(payload: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        JSON.decode(payload.encode())


def test_an_error_without_an_id_is_a_message() -> None:
    expected = ErrorResponse(None, -32700, "Parse error")
    assert JSON.decode(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}') == expected
    assert JSON.decode(b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"}}') == expected


@seeded
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_any_bytes_decode_or_raise_one_of_the_two_errors(payload: bytes) -> None:
    for codec in (JSON, MessagePack):
        codec.identify(payload)
        with contextlib.suppress(DecodeError, ProtocolViolation):
            codec.decode(payload)


# identify(): which response was it, given only the two ends of it?

BULK = "x" * 4000


def fragment_of(payload: bytes) -> bytes:
    [skipped] = NEWLINE.decoder(1000).feed(payload + b"\n")
    assert isinstance(skipped, Oversized)
    return skipped.excerpt


@pytest.mark.parametrize("request_id", ["7", '"seven"', '"\u00fc"', "-1", str(10**30), '""'])
@pytest.mark.parametrize(
    "response",
    [
        '{"jsonrpc":"2.0","id":ID,"result":{"a":"BULK"}}',
        '{"jsonrpc": "2.0", "id": ID, "result": {"a": "BULK"}}',
        '{"jsonrpc":"2.0","id":ID,"error":{"code":1,"message":"BULK"}}',
        '{"id":ID,"jsonrpc":"2.0","result":{"a":"BULK"}}',
        '{"id":ID,"result":{"a":"BULK"},"jsonrpc":"2.0"}',
        '{"result":{"a":"BULK","id":99},"jsonrpc":"2.0","id":ID}',
        '{ "result" : {"id":99,"a":"BULK"} , "jsonrpc" : "2.0" , "id" : ID } ',
        '{"result":["BULK"],"id":ID,"jsonrpc":"2.0"}',
        '{"jsonrpc":"2.0","result":["BULK"],"id":ID}',
        '{"error":{"code":1,"message":"BULK"},"jsonrpc":"2.0","id":ID}\r',
    ],
)
def test_the_id_is_found_at_either_end_of_an_oversized_response(response: str, request_id: str) -> None:
    payload = response.replace("ID", request_id).replace("BULK", BULK).encode()
    assert JSON.identify(fragment_of(payload)) == json.loads(request_id)


@pytest.mark.parametrize(
    "payload",
    [
        '{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"BULK"}}',
        '{"jsonrpc":"2.0","id":1,"params":{"a":"BULK"},"method":"x"}',
        '{"jsonrpc":"2.0","method":"x","params":{"a":"BULK"},"id":1}',
        '{"method":"x","params":{"a":"BULK"},"jsonrpc":"2.0","id":1}',
        '{"params":{"a":"BULK"},"method":"x","id":1,"jsonrpc":"2.0"}',
        '{"jsonrpc":"2.0","method":"x","params":{"a":"BULK","id":1}}',
        '{"jsonrpc":"2.0","method":"x","params":{"id":1,"result":"BULK"}}',
        '{"result":{"a":"BULK","id":1}}',
        '{"result":"BULK,\\"jsonrpc\\":\\"2.0\\",\\"id\\":1}"}',
        '{"jsonrpc":"2.0","id":01,"result":"BULK"}',
        '{"jsonrpc":"2.0","id":1.5,"result":"BULK"}',
        '{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"BULK"}}',
        '{"jsonrpc":"2.0","id":"\t","result":"BULK"}',
        '[{"jsonrpc":"2.0","id":1,"result":"BULK"}]',
        "BULK",
    ],
)
def test_no_other_id_is_taken_for_that_of_a_response(payload: str) -> None:
    assert JSON.identify(fragment_of(payload.replace("BULK", BULK).encode())) is None


def test_an_id_that_is_not_utf8_identifies_nothing() -> None:
    assert JSON.identify(b'{"jsonrpc":"2.0","id":"\xff","result":"' + BULK.encode()) is None


def test_a_malformed_response_is_identified_too() -> None:
    assert JSON.identify(b'{"jsonrpc":"2.0","id":7,"result":NaN}') == 7
    assert JSON.identify(b'{"jsonrpc":"2.0","id":7,"result":"\xff"}') == 7
    assert JSON.identify(b'{"jsonrpc":"1.0","id":7,"result":1}') == 7
    assert JSON.identify(b'{"jsonrpc":"2.0","id":7,"method":"x"}') is None


@seeded
@given(
    messages(any_text, any_integer),
    st.permutations(["jsonrpc", "id", "method", "params", "result", "error"]),
    st.integers(0, 6),
)
def test_identify_never_errs_on_the_ends_of_a_message(message: Message, order: list[str], place: int) -> None:
    members = list(json.loads(JSON.encode(message)).items())
    members.sort(key=lambda member: order.index(member[0]) if member[0] in order else len(order))
    members.insert(place, ("bulk", BULK))
    text = json.dumps(dict(members), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    found = JSON.identify(fragment_of(text))
    assert found is None or (isinstance(message, Response | ErrorResponse) and found == message.id)
    asked = JSON.identify_request(fragment_of(text))
    assert asked is None or (isinstance(message, Request) and asked == message.id)


@pytest.mark.parametrize("request_id", [7, "seven", 2**64 - 1])
def test_messagepack_finds_the_id_at_the_start_of_an_oversized_response(request_id: Any) -> None:
    for message in (Response(request_id, BULK), ErrorResponse(request_id, 1, BULK)):
        assert MessagePack.identify(MessagePack.encode(message)) == request_id
        assert MessagePack.identify(MessagePack.encode(message)[:500]) == request_id


def test_messagepack_takes_no_other_id_for_that_of_a_response() -> None:
    assert MessagePack.identify(MessagePack.encode(Request(1, "x", [BULK]))[:500]) is None
    assert MessagePack.identify(MessagePack.encode(Request(1, "x"))) is None
    assert MessagePack.identify(b"\x83\xa7jsonrpc\xa32.0\xa2id\xc1\xa6result\x91") is None
    assert MessagePack.identify(b"") is None


def test_codecs_say_what_they_are() -> None:
    assert (JSON.name, JSON.content_type, JSON.binary) == ("JSON", "application/json", False)
    assert (MessagePack.name, MessagePack.content_type, MessagePack.binary) == (
        "MessagePack",
        "application/msgpack",
        True,
    )
    assert repr(JSON) == "trioxport.codecs.JSON"
    assert repr(MessagePack) == "trioxport.codecs.MessagePack"


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, [2**99], {"a": {"b": -(2**70)}}, (2**64,), [*range(200), 2**64], 2**64 - 1, "\ud800", 1.5],
    ids=repr,
)
def test_values_that_need_care_survive_beside_a_long_text(value: Any) -> None:
    sent = Request(1, "m", {"value": value, "text": "x" * 100_000})
    received = JSON.decode(JSON.encode(sent))
    assert isinstance(received, Request)
    assert isinstance(received.params, dict)
    assert received.params["value"] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": {"b": -math.inf}}], ids=repr)
def test_what_is_no_number_is_refused_beside_a_long_text(value: Any) -> None:
    with pytest.raises(UsageError, match="JSON has no"):
        JSON.encode(Request(1, "m", {"value": value, "text": "x" * 100_000}))


# identify_request(): and which request?


@pytest.mark.parametrize("request_id", ["7", '"seven"', '"\u00fc"', "-1", str(10**30), '""'])
@pytest.mark.parametrize(
    "request_",
    [
        '{"jsonrpc":"2.0","id":ID,"method":"x","params":{"a":"BULK"}}',
        '{"jsonrpc": "2.0", "id": ID, "method": "tools/call", "params": {"a": "BULK"} }',
        '{"method":"x","params":{"a":"BULK"},"jsonrpc":"2.0","id":ID}',
        '{"jsonrpc":"2.0","method":"x","params":{"a":"BULK","id":99},"id":ID}\r',
        '{"id":ID,"params":{"a":"BULK"},"method":"x","jsonrpc":"2.0"}',
        '{"params":{"id":99,"a":"BULK"},"id":ID,"method":"x"}',
        '{"jsonrpc":"2.0","id":ID,"params":"BULK","method":"x"}',
    ],
)
def test_the_id_is_found_at_either_end_of_an_oversized_request(request_: str, request_id: str) -> None:
    payload = request_.replace("ID", request_id).replace("BULK", BULK).encode()
    assert JSON.identify_request(fragment_of(payload)) == json.loads(request_id)
    assert JSON.identify(fragment_of(payload)) is None


@pytest.mark.parametrize(
    "payload",
    [
        '{"jsonrpc":"2.0","id":1,"result":{"method":"x","a":"BULK"}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"BULK"}}',
        '{"result":{"a":"BULK"},"method":"x","id":1}',
        '{"jsonrpc":"2.0","id":1,"a":"BULK"}',
        '{"jsonrpc":"2.0","method":"x","params":{"a":"BULK"}}',
        '{"jsonrpc":"2.0","method":"x","params":{"a":"BULK","id":1}}',
        '{"params":{"method":"x","a":"BULK"},"id":1}',
        '{"jsonrpc":"2.0","id":1.5,"method":"x","params":"BULK"}',
        '{"jsonrpc":"2.0","id":null,"method":"x","params":"BULK"}',
        '{"jsonrpc":"2.0","params":"BULK,\\"method\\":\\"x\\",\\"id\\":1}"}',
        '[{"jsonrpc":"2.0","id":1,"method":"x","params":"BULK"}]',
        "BULK",
    ],
)
def test_nothing_else_is_taken_for_a_request(payload: str) -> None:
    assert JSON.identify_request(fragment_of(payload.replace("BULK", BULK).encode())) is None


@pytest.mark.parametrize("request_id", [0, 7, -1, 2**40, "seven", "", "x" * 150])
def test_messagepack_finds_the_id_at_the_start_of_an_oversized_request(request_id: Any) -> None:
    request = MessagePack.encode(Request(request_id, "x", {"a": BULK}))
    assert MessagePack.identify_request(request[:EXCERPT_BYTES] + request[-EXCERPT_BYTES:]) == request_id
    assert MessagePack.identify(request[:EXCERPT_BYTES] + request[-EXCERPT_BYTES:]) is None
    response = MessagePack.encode(Response(request_id, {"a": BULK}))
    assert MessagePack.identify_request(response[:EXCERPT_BYTES] + response[-EXCERPT_BYTES:]) is None
