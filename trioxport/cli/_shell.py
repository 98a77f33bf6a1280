"""The commands of ``trioxport connect``: a line is a call, or one of a few words of its own."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from trioxport import UsageError
from trioxport.cli._errors import report
from trioxport.cli._output import write
from trioxport.cli._requests import Caller
from trioxport.cli._results import show_result
from trioxport.cli._schemas import signature
from trioxport.cli._words import parse_words, split_line
from trioxport.cli.info import show_info
from trioxport.cli.list import KINDS, show_lists
from trioxport.cli.ping import ping_method, round_trip

HELP: Final = """\
TOOL a=1 b="two words" c:={"json": 1}   call a tool; its schema says what the values are
TOOL {"a": 1}                           the same, with the arguments as JSON
METHOD name=value                       call a method, such as resources/read uri=...
list [tools|resources|templates|prompts]
help TOOL                               describe a tool and its arguments
info, ping                              describe the server; measure a round trip
call NAME ...                           call a tool that has the name of one of these commands
exit                                    leave, as Ctrl-D does; Ctrl-C cancels the call that is running

-o FILE behind a call saves images and other bytes in a file."""


class Shell:
    """Runs lines in one session.

    Args:
        caller: Makes the requests.
        seconds: Seconds without an answer after which a ping has failed.
        as_json: Whether to print results and errors as lines of JSON.

    Attributes:
        has_ended: Whether a line asked for the end.
    """

    def __init__(self, caller: Caller, seconds: float, *, as_json: bool) -> None:
        self.has_ended = False
        self._caller = caller
        self._seconds = seconds
        self._as_json = as_json
        self._running: trio.CancelScope | None = None
        self._commands: Mapping[str, Callable[[Sequence[str]], Awaitable[int]]] = {
            "help": self._help,
            "list": self._list,
            "info": self._info,
            "ping": self._ping,
            "call": self._call,
            "exit": self._exit,
            "quit": self._exit,
        }

    @property
    def names(self) -> Sequence[str]:
        """The names of the commands that are no calls."""
        return list(self._commands)

    async def run(self, line: str) -> int:
        """Run a line and return its exit code; errors are printed. Raises the end of the connection."""
        with trio.CancelScope() as self._running:
            try:
                return await self._run(line)
            except Exception as error:
                if self._caller.client.peer.connection.state in ("closed", "failed"):
                    raise
                code = report(error, as_json=self._as_json)
                if code is None:
                    raise
                return code
            finally:
                self._running = None
        write("cancelled", sys.stderr)
        return 130

    def cancel(self) -> None:
        """Cancel the line that is running, if there is one."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self, line: str) -> int:
        words = [] if line.lstrip().startswith("#") else split_line(line)
        if not words:
            return 0
        command = self._commands.get(words[0])
        return await (self._call(words) if command is None else command(words[1:]))

    async def _call(self, words: Sequence[str]) -> int:
        if not words:
            raise UsageError("call needs the name of a tool or a method")
        name, *rest = words
        output = None
        if len(rest) >= 2 and rest[-2] == "-o":
            *rest, _, output = rest
        if rest == ["-"]:
            raise UsageError("here, standard input has the commands", hint="Write the JSON in the line")
        return show_result(await self._caller.call(parse_words(name, rest)), self._as_json, output)

    async def _list(self, words: Sequence[str]) -> int:
        kind = words[0] if words else None
        if kind is not None and kind not in KINDS:
            raise UsageError(f"there is no list of {kind!r}", hint=f"The lists: {', '.join(KINDS)}")
        await show_lists(self._caller.client, kind, self._seconds, as_json=self._as_json)
        return 0

    async def _info(self, words: Sequence[str]) -> int:
        show_info(self._caller.client, self._as_json)
        return 0

    async def _ping(self, words: Sequence[str]) -> int:
        client = self._caller.client
        method = ping_method(client)
        write(f"{method}: {await round_trip(client, method, self._seconds) * 1000:.2f} ms", sys.stdout)
        return 0

    async def _help(self, words: Sequence[str]) -> int:
        if not words:
            write(HELP, sys.stdout)
            return 0
        tool = next((tool for tool in await self._caller.list_tools() if tool.name == words[0]), None)
        if tool is None:
            raise UsageError(f"there is no tool {words[0]!r}", hint="See: list tools")
        about = "\n".join(filter(None, (tool.description, f"arguments: {signature(tool.input_schema) or 'none'}")))
        write(f"{tool.name}\n{about}", sys.stdout)
        return 0

    async def _exit(self, words: Sequence[str]) -> int:
        self.has_ended = True
        return 0
