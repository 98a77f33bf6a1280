"""Messages from the server while a request runs: questions to the user (elicitation), and log messages."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import trio

from trioxport import UsageError
from trioxport.cli._output import escaped, one_line
from trioxport.cli._requests import Patience
from trioxport.cli._schemas import convert, type_name
from trioxport.cli._status import Status
from trioxport.peer import Handlers
from trioxport.protocol import items_of, members_of

Ask: TypeAlias = Callable[[str], Awaitable[str]]
"""Show a prompt and return the line that the user types. Raises ``EOFError`` if there is none."""

CANCEL: Final = {"action": "cancel"}
DECLINE: Final = {"action": "decline"}


async def _decline(_params: Mapping[str, Any]) -> Mapping[str, Any]:
    return DECLINE


OFFERED: Final = Handlers(elicit=_decline)
"""Handlers of commands that make no call: some servers offer a tool only to clients that can be asked."""


async def ask_on_terminal(prompt: str) -> str:
    """Ask on standard error and standard input."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line: str = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    if not line:
        raise EOFError
    return line.strip()


class Questions:
    """Answers a server by asking the user; declines where there is no terminal.

    Specification 2026-07-28, client/elicitation.

    Args:
        patience: The time of the request that the server asks about.
        status: The place for notes.
        ask: The function that asks the user; None if there is no terminal.
        shows_logs: Whether to show the log messages of the server.
    """

    def __init__(self, patience: Patience, status: Status, ask: Ask | None, *, shows_logs: bool) -> None:
        self._patience = patience
        self._status = status
        self._ask = ask
        self._shows_logs = shows_logs

    def handlers(self) -> Handlers:
        """The handlers for a client."""
        return Handlers(elicit=self.elicit, log=self.log)

    async def log(self, params: Mapping[str, Any]) -> None:
        """Show a log message of the server."""
        if self._shows_logs:
            data = params.get("data")
            where = f" {params['logger']}" if "logger" in params else ""
            text = data if isinstance(data, str) else one_line(data)
            self._status.note(f"[{params.get('level', 'log')}{where}] {text}")

    async def elicit(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the user, and return an ``ElicitResult``."""
        self._status.clear()
        message = str(params.get("message", ""))
        if self._ask is None:
            self._status.note(
                f"trioxport: the server asks: {message!r}; declined, since there is no terminal to ask on"
            )
            return DECLINE
        self._status.note(f"The server asks: {message}")
        with self._patience.paused():
            try:
                return await self._answer(self._ask, params)
            except (EOFError, KeyboardInterrupt):
                return CANCEL

    async def _answer(self, ask: Ask, params: Mapping[str, Any]) -> Mapping[str, Any]:
        url = params.get("url")
        if params.get("mode") == "url" or url is not None:
            self._status.note(f"It wants you to open: {url}")
            return (
                {"action": "accept"} if await _agrees(ask, "Have you opened it, and agree? [y/N] ", False) else DECLINE
            )
        if not await _agrees(ask, "Answer? [Y/n] ", True):
            return DECLINE
        schema = members_of(params.get("requestedSchema"))
        content: dict[str, Any] = {}
        for name, field in members_of(schema.get("properties")).items():
            value = await self._field(ask, schema, name, members_of(field))
            if value is not None:
                content[name] = value
        return {"action": "accept", "content": content}

    async def _field(self, ask: Ask, schema: Mapping[str, Any], name: str, field: Mapping[str, Any]) -> Any:
        """Ask for a field until the answer fits; None if the field is optional and there is no answer."""
        about = str(field.get("description") or field.get("title") or "")
        default = f" [{field['default']}]" if "default" in field else ""
        prompt = escaped(f"  {name} ({type_name(schema, field)}){f' {about}' if about else ''}{default}: ")
        while True:
            text = await ask(prompt)
            if text:
                try:
                    return convert(schema, name, text, field)
                except UsageError as error:
                    self._status.note(f"  {error}")
            elif "default" in field:
                return field["default"]
            elif name not in items_of(schema.get("required")):
                return None


async def _agrees(ask: Ask, prompt: str, default: bool) -> bool:
    answer = (await ask(prompt)).lower()
    return answer.startswith("y") if answer else default
