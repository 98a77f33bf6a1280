"""Questions and log messages of a server, as the user sees and answers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
import trio
import trio.testing

from trioxport import RequestTimeout
from trioxport.cli._questions import Ask, Questions
from trioxport.cli._requests import Patience
from trioxport.cli._status import Status

FORM: Final = {
    "message": "Which room?",
    "requestedSchema": {
        "properties": {
            "name": {"type": "string", "description": "of the guest"},
            "floor": {"type": "integer"},
            "view": {"enum": ["sea", "hill"], "default": "sea"},
            "note": {"type": "string"},
        },
        "required": ["name"],
    },
}


def answers(*lines: str) -> Ask:
    left = list(lines)

    async def ask(prompt: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return ask


async def elicit(ask: Ask | None, params: Mapping[str, Any]) -> Mapping[str, Any]:
    return await Questions(Patience(1), Status(None), ask, shows_logs=True).elicit(params)


async def test_a_form_is_filled_in_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    ask = answers("", "", "Ada", "two", "2", "", "")
    content = {"name": "Ada", "floor": 2, "view": "sea"}
    assert await elicit(ask, FORM) == {"action": "accept", "content": content}
    err = capsys.readouterr().err
    assert "The server asks: Which room?" in err
    assert "the argument 'floor' takes integer, not 'two'" in err


@pytest.mark.parametrize(
    ("lines", "params", "action"),
    [
        (["n"], FORM, "decline"),
        (["y"], FORM, "cancel"),
        ([], FORM, "cancel"),
        (["y"], {"mode": "url", "url": "https://example.com/login", "message": "Log in"}, "accept"),
        ([""], {"mode": "url", "url": "https://example.com/login", "message": "Log in"}, "decline"),
    ],
)
async def test_a_question_may_be_refused(lines: list[str], params: Mapping[str, Any], action: str) -> None:
    assert await elicit(answers(*lines), params) == {"action": action}


async def test_without_a_terminal_a_question_is_declined(capsys: pytest.CaptureFixture[str]) -> None:
    assert await elicit(None, FORM) == {"action": "decline"}
    assert "'Which room?'; declined, since there is no terminal to ask on" in capsys.readouterr().err


async def test_the_time_of_a_question_does_not_count(autojump_clock: trio.testing.MockClock) -> None:
    patience = Patience(1)

    async def slow(prompt: str) -> str:
        await trio.sleep(100)
        return "n"

    with patience.limit("tools/call", "x:"):
        await Questions(patience, Status(None), slow, shows_logs=True).elicit(FORM)
        await trio.sleep(0.9)
    late = "no sign of life for 1 s in answer to tools/call"
    with pytest.raises(RequestTimeout, match=late), patience.limit("tools/call", "x:"):
        await trio.sleep(1.1)


async def test_log_messages_are_shown_if_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for shows_logs in (True, False):
        questions = Questions(Patience(1), Status(None), None, shows_logs=shows_logs)
        await questions.log({"level": "warning", "logger": "disk", "data": {"free": 1}})
        await questions.log({"data": "plain"})
    assert capsys.readouterr().err == '[warning disk] {"free":1}\n[log] plain\n'
