"""The client's side: a command to run as an MCP server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trioxport._diagnostics.redaction import redact_command, redact_words
from trioxport._diagnostics.validators import PATH, TEXT_BY_NAME, OptionCheck, are_words
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import SpawnError
from trioxport.framing import FRAMING, FRAMINGS, FramingName
from trioxport.transports.byte_stream import carry_frames, refuse_binary
from trioxport.transports.stdio.child import Child
from trioxport.transports.stdio.guard import open_guard
from trioxport.transports.stdio.stderr import Sink, StderrSink, check_sink

INHERITED_ENVIRONMENT: Final = (
    (
        *("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE"),
        *("PROGRAMDATA", "PROGRAMFILES", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
        "WINDIR",
    )
    if sys.platform == "win32"
    else ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
)
"""The variables that a child inherits; none usually holds a secret. ``env`` adds to them."""


_ARGUMENTS: Final = OptionCheck("""a list of texts, such as ["server.py", "--fast"]""", are_words)


@attrs.frozen
class Stdio:
    """A command to run as an MCP server on its standard input and output.

    Args:
        command: The program: a path, or a name to find on the child's ``PATH``.
        args: Its arguments.
        env: Variables for the child, besides the few that it inherits (``INHERITED_ENVIRONMENT``). Pass
            ``os.environ`` to pass on all.
        cwd: Its working directory; by default this process's.
        stderr: The destination of its standard error: ``"inherit"`` for this process's own; ``"ignore"``, or
            ``subprocess.DEVNULL``; a path to append to, a ``Path`` or text with a separator (``"./log"``); or a
            function that is called with each line, and must not block. Error messages show the last lines in any case.
        framing: ``"newline"``, as in the specification, or ``"length"`` if both programs use it.

    Raises:
        UsageError: ``stderr`` is no destination, for example a misspelt word.

    Nothing waits for the reader of a destination: a pipe that is not drained, a FIFO without a reader or a stopped
    terminal holds up neither this process nor the child. Output that cannot be written is dropped beyond 256 KiB, and a
    line in its place gives the number of bytes.

    The child leads a process group of its own. It is stopped as the specification says: its input is closed; after
    half of ``close_timeout`` its group gets SIGTERM, at the end of it SIGKILL. After the child's exit the rest of the
    group is killed as well. If this process ends first, even by SIGKILL, a guard kills the group: a shell of about
    200 KiB beside each child, where there is a ``/bin/sh``. A process that leaves the group is not reached. On
    Windows there are neither groups nor guards: only the child itself is ended, and by this process only.
    """

    command: str | os.PathLike[str] = attrs.field(validator=PATH)
    args: Sequence[str] = attrs.field(default=(), validator=_ARGUMENTS, repr=lambda args: repr(redact_words(args)))
    env: Mapping[str, str] | None = attrs.field(default=None, validator=TEXT_BY_NAME.or_none(), repr=False)
    cwd: str | os.PathLike[str] | None = attrs.field(default=None, validator=PATH.or_none())
    stderr: StderrSink = attrs.field(default="inherit", validator=check_sink)
    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

    def __str__(self) -> str:
        return "stdio:" + redact_command([os.fspath(self.command), *self.args])

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        refuse_binary(scope, FRAMINGS[self.framing])
        with Sink.to(self.stderr) as sink:
            async with open_guard() as guard:
                child = Child(await self._spawn(scope.settings.target), sink, guard, scope)
                scope.info.pid = child.process.pid
                async with self._carry(child, scope) as channels:
                    yield channels

    @asynccontextmanager
    async def _carry(self, child: Child, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with trio.open_nursery() as nursery:
            try:
                await child.begin(nursery)
                async with carry_frames(
                    child, FRAMINGS[self.framing], scope, peer=f"pid {child.process.pid}"
                ) as channels:
                    yield channels
                    nursery.start_soon(child.terminate_after, scope.settings.close_timeout / 2)
                await child.process.wait()
            finally:
                await child.end()
                nursery.cancel_scope.cancel()

    async def _spawn(self, target: str) -> trio.Process:
        env = {name: value for name in INHERITED_ENVIRONMENT if (value := os.environ.get(name)) is not None}
        env.update(self.env or {})
        options: dict[str, Any] = {} if sys.platform == "win32" else {"start_new_session": True}
        try:
            return await trio.lowlevel.open_process(
                [self._program(env, target), *self.args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.cwd,
                env=env,
                **options,
            )
        except OSError as error:
            raise SpawnError(f"cannot run the command: {self._spawn_reason(error)}", target=target) from error

    def _program(self, env: Mapping[str, str], target: str) -> str:
        """Return the program's path; look a bare name up on the child's ``PATH``, with ``PATHEXT`` on Windows."""
        command = os.fspath(self.command)
        if os.path.dirname(command):
            return command
        found = shutil.which(command, path=env.get("PATH"))
        if found is None:
            raise SpawnError(f"there is no program {command!r} on PATH", target=target)
        return found

    def _spawn_reason(self, error: OSError) -> str:
        if self.cwd is not None and not os.path.isdir(self.cwd):
            return f"there is no directory {os.fspath(self.cwd)!r} to run it in"
        return f"{error.strerror} ({os.fspath(self.command)})"
