"""The error tree: the classes, their defaults and their texts."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import trio

import trioxport
from trioxport import ConnectError, ConnectionLost, HTTPStatusError, TransportError, UsageError

# name: parent, retryable, outcome
TREE: dict[str, tuple[str, bool, str | None]] = {
    "ConnectError": ("TransportError", True, "not_sent"),
    "NameResolutionError": ("ConnectError", True, "not_sent"),
    "ServerUnreachable": ("ConnectError", True, "not_sent"),
    "ConnectTimeout": ("ConnectError", True, "not_sent"),
    "TLSError": ("ConnectError", False, "not_sent"),
    "SpawnError": ("ConnectError", False, "not_sent"),
    "ConnectionLost": ("TransportError", True, "unknown"),
    "AuthenticationError": ("TransportError", False, "not_sent"),
    "OAuthError": ("AuthenticationError", False, "not_sent"),
    "InteractionRequired": ("AuthenticationError", False, "not_sent"),
    "PermissionDenied": ("TransportError", False, "not_sent"),
    "SessionExpired": ("TransportError", True, "not_sent"),
    "RequestTimeout": ("TransportError", True, "unknown"),
    "DeliveryFailed": ("TransportError", False, "unknown"),
    "MessageTooLarge": ("TransportError", False, None),
    "DecodeError": ("TransportError", False, None),
    "ProtocolViolation": ("TransportError", False, None),
    "VersionMismatch": ("TransportError", False, None),
    "UsageError": ("TransportError", False, "not_sent"),
    "CircuitOpen": ("TransportError", True, "not_sent"),
    "RateLimited": ("TransportError", True, "not_sent"),
    "HTTPStatusError": ("TransportError", False, None),
}
BROKEN = {"ConnectionLost", "SessionExpired"}
NEEDED: dict[str, dict[str, Any]] = {"HTTPStatusError": {"status": 502}, "OAuthError": {"step": "token request"}}


def make(name: str, **arguments: Any) -> TransportError:
    made = getattr(trioxport, name)("it broke", **NEEDED.get(name, {}), **arguments)
    assert isinstance(made, TransportError)
    return made


def test_the_tree_is_the_documented_one() -> None:
    public = {
        name: found
        for name in trioxport.__all__
        if isinstance(found := getattr(trioxport, name), type) and issubclass(found, TransportError)
    }
    assert {name: found.__bases__[0].__name__ for name, found in public.items() if name != "TransportError"} == {
        name: parent for name, (parent, _, _) in TREE.items()
    }
    assert {name for name, found in public.items() if issubclass(found, trio.BrokenResourceError)} == BROKEN


@pytest.mark.parametrize("name", TREE)
def test_a_class_has_its_defaults_of_retryable_and_outcome(name: str) -> None:
    _, retryable, outcome = TREE[name]
    error = make(name)
    assert (error.retryable, error.outcome, error.retry_after) == (retryable, outcome, None)
    changed = make(name, retryable=not retryable, outcome="unknown", retry_after=2.5)
    assert (changed.retryable, changed.outcome, changed.retry_after) == (not retryable, "unknown", 2.5)


def test_the_text_is_target_reason_and_hint() -> None:
    assert str(ConnectError("it broke")) == "it broke"
    assert str(ConnectError("it broke", target="tcp://h:1")) == "tcp://h:1: it broke"
    assert str(ConnectError("it broke", target="tcp://h:1", hint="Mend it")) == "tcp://h:1: it broke. Mend it"
    assert str(ConnectError("it broke", hint="Mend it")) == "it broke. Mend it"


@pytest.mark.parametrize("name", TREE)
def test_a_hint_of_the_caller_replaces_the_classs_own(name: str) -> None:
    own = make(name).hint
    text = "OAuth, token request: it broke" if name == "OAuthError" else "it broke"
    assert str(make(name)) == (f"{text}. {own}" if own else text)
    assert str(make(name, hint="Mend it")) == f"{text}. Mend it"
    assert str(make(name, hint="")) == text


def test_a_target_that_is_found_out_later_is_in_the_text() -> None:
    error = UsageError("it broke")
    error.target = "tcp://h:1"
    assert str(error) == "tcp://h:1: it broke"


def test_a_lost_child_process_shows_its_last_words() -> None:
    error = ConnectionLost("the process ended", target="stdio:x", exit_code=3, stderr_tail="Traceback:\n  boom")
    assert error.exit_code == 3
    assert str(error) == "stdio:x: the process ended\nThe end of its standard error:\nTraceback:\n  boom"


def test_a_status_is_kept() -> None:
    error = make("HTTPStatusError")
    assert isinstance(error, HTTPStatusError)
    assert error.status == 502


copies: list[Callable[[TransportError], TransportError]] = [
    copy.copy,
    copy.deepcopy,
    lambda error: pickle.loads(pickle.dumps(error)),
]


@pytest.mark.parametrize("copied", copies, ids=["copy", "deepcopy", "pickle"])
def test_errors_can_be_copied_and_sent_between_processes(copied: Callable[[TransportError], TransportError]) -> None:
    for name in TREE:
        error = make(name, target="tcp://h:1", hint="Mend it", outcome="unknown", retryable=True, retry_after=1)
        twin = copied(error)
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))
    lost = ConnectionLost("it broke", exit_code=3, stderr_tail="boom")
    assert str(copied(lost)) == str(lost)
