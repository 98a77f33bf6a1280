"""The prompt of ``trioxport connect``, in a thread: with history and completion, and notes above it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout

from trioxport.cli._output import escaped
from trioxport.cli._status import Status

RESTORE_SECONDS: Final = 2.0
"""Seconds that a prompt which is cancelled has to restore the terminal."""


def history_file() -> Path:
    """The file of the history, in the folder of the XDG Base Directory Specification for states."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "trioxport" / "history"


def _history() -> History:
    """The history, in a file for this user only; in memory if that cannot be written."""
    path = history_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class LinePrompt:
    """Reads lines from the terminal.

    Args:
        name: The name to show before each line.
        completer: The completion of lines.
        status: The place of notes, which come above the prompt while there is one.
    """

    def __init__(self, name: str, completer: Completer, status: Status) -> None:
        self._message = FormattedText([("bold", f"{escaped(name)}> ")])
        self._status = status
        self._lines: PromptSession[str] = PromptSession(
            history=_history(), completer=completer, complete_while_typing=False, enable_open_in_editor=False
        )
        self._answers: PromptSession[str] = PromptSession()

    async def read(self) -> str:
        """Read a line. Raises ``EOFError`` for Ctrl-D, ``KeyboardInterrupt`` for Ctrl-C."""
        return await self._read(self._lines, self._message)

    async def ask(self, question: str) -> str:
        """Read the answer to a question, which is not kept in the history. Raises the same."""
        return (await self._read(self._answers, question)).strip()

    async def _read(self, session: PromptSession[str], message: Any) -> str:
        finished = threading.Event()

        def print_above(text: str) -> None:
            print(escaped(text), flush=True)

        def prompt() -> str:
            try:
                with patch_stdout(raw=True):
                    self._status.prompt = print_above
                    return session.prompt(message, handle_sigint=False, set_exception_handler=False)
            finally:
                self._status.prompt = None
                finished.set()

        try:
            return await trio.to_thread.run_sync(prompt, abandon_on_cancel=True)
        except trio.Cancelled:
            _leave(session)
            with trio.CancelScope(shield=True), trio.move_on_after(RESTORE_SECONDS):
                await trio.to_thread.run_sync(finished.wait, RESTORE_SECONDS)
            raise


def _leave(session: PromptSession[str]) -> None:
    """End a prompt from another thread, so that it restores the terminal."""
    loop = session.app.loop
    if loop is not None:
        with suppress(RuntimeError):  # it has ended in the meantime
            loop.call_soon_threadsafe(lambda: session.app.exit(exception=EOFError()))
