"""Messages are values; an ``Undelivered`` is the settlement of one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from trioxport import (
    ConnectionLost,
    DecodeError,
    ErrorResponse,
    Frame,
    Limits,
    Message,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    Undelivered,
    UsageError,
)
from trioxport.messages import NOTHING, UNDELIVERED_CODE

EXAMPLES: list[Message] = [
    Request(1, "tools/call", {"name": "echo"}),
    Notification("notifications/initialized"),
    Response("a", {"tools": []}),
    ErrorResponse(None, -32700, "Parse error", data=[1]),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_messages_are_frozen_values(message: Any) -> None:
    field = attrs.fields(type(message))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(message, field, "other")
    assert not hasattr(message, "__dict__")
    assert message == attrs.evolve(message)
    assert message == attrs.evolve(message, metadata={"note": 1})
    assert message != attrs.evolve(message, extra={"note": 1})
    assert message != attrs.evolve(message, **{field: "other"})
    for copied in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert copied == message


def test_kinds_of_message_are_never_equal() -> None:
    call: Message = Request(1, "x")
    assert call != Notification("x")


def test_the_default_is_an_empty_mapping_that_stays_empty() -> None:
    message = Notification("x")
    assert message.extra == {} and message.metadata == {}
    assert len(NOTHING) == 0 and list(NOTHING) == [] and not NOTHING and repr(NOTHING) == "{}"
    with pytest.raises(KeyError):
        NOTHING["a"]
    with pytest.raises(TypeError):
        NOTHING["a"] = 1  # type: ignore[index]  # that it cannot be done is the point
    assert pickle.loads(pickle.dumps(NOTHING)) is NOTHING
    assert copy.deepcopy(NOTHING) is NOTHING


def test_an_undelivered_is_an_error_response_that_names_the_cause() -> None:
    request = Request("a", "tools/call", {"name": "pay"})
    cause = ConnectionLost("the wire broke", target="tcp://127.0.0.1:1")
    undelivered = Undelivered.of(request, cause)
    assert isinstance(undelivered, ErrorResponse)
    assert (undelivered.id, undelivered.code, undelivered.message) == ("a", UNDELIVERED_CODE, str(cause))
    assert undelivered.original is request
    assert undelivered.cause is cause
    assert undelivered.outcome == "unknown"


def test_the_outcome_is_the_causes_and_unknown_if_it_names_none() -> None:
    request = Request(1, "x")
    assert Undelivered.of(request, UsageError("no")).outcome == "not_sent"
    assert Undelivered.of(request, ConnectionLost("no", outcome="not_sent")).outcome == "not_sent"
    assert MessageTooLarge("no").outcome is None
    assert Undelivered.of(request, MessageTooLarge("no")).outcome == "unknown"
    assert Undelivered.of(request, DecodeError("no")).outcome == "unknown"


@pytest.mark.parametrize("message", EXAMPLES[1:], ids=lambda message: type(message).__name__)
def test_a_message_that_is_no_request_has_no_id_to_settle(message: Message) -> None:
    undelivered = Undelivered.of(message, ConnectionLost("the wire broke"))
    assert undelivered.id is None
    assert undelivered.original is message


def test_limits_are_positive() -> None:
    assert Limits().max_message_size == 16 * 1024 * 1024
    assert Limits(1, 0) == Limits(max_message_size=1, max_buffered_messages=0)
    for wrong in ({"max_message_size": 0}, {"max_buffered_messages": -1}):
        with pytest.raises(UsageError, match="has to be"):
            Limits(**wrong)


def test_a_frame_is_a_payload_with_optional_fields() -> None:
    frame = Frame(b"{}")
    assert (frame.payload, frame.message, frame.headers, frame.error) == (b"{}", None, None, None)


def test_headers_of_a_message_are_not_shown() -> None:
    shown = repr(Request(1, "ping", metadata={"headers": {"Authorization": "Bearer s3cret"}, "timeout": 2}))
    assert "s3cret" not in shown
    assert "'timeout': 2" in shown
    assert repr(Notification("x")) == "Notification(method='x', params=None, extra={}, metadata={})"
