"""A command to run as a server: its options, and its process for the time of a block."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trioxport._diagnostics.redaction import redact_command, redact_url, redact_words
from trioxport._diagnostics.validators import PATH, TEXT_BY_NAME, OptionCheck, are_words
from trioxport.abc import Scope
from trioxport.errors import SpawnError, UsageError
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
class CommandOptions:
    """The options of a command, which :class:`~trioxport.transports.stdio.Stdio` documents."""

    command: str | os.PathLike[str] = attrs.field(validator=PATH)
    args: Sequence[str] = attrs.field(default=(), validator=_ARGUMENTS, repr=lambda args: repr(redact_words(args)))
    env: Mapping[str, str] | None = attrs.field(default=None, validator=TEXT_BY_NAME.or_none(), repr=False)
    cwd: str | os.PathLike[str] | None = attrs.field(default=None, validator=PATH.or_none())
    stderr: StderrSink = attrs.field(default="inherit", validator=check_sink)

    @property
    def shown(self) -> str:
        """The command line, without secrets."""
        return redact_command([os.fspath(self.command), *self.args])

    @asynccontextmanager
    async def run(self, scope: Scope) -> AsyncGenerator[Child]:
        """Run the command for the time of a block. Raises ``SpawnError``.

        Leaving the block waits for the exit: close the child's input before, and bound the time by
        :meth:`Child.terminate_after`. The rest of its process group is killed; cancelled, the child is killed at once.
        """
        with Sink.to(self.stderr) as sink:
            async with open_guard() as guard:
                child = Child(await self._spawn(scope.settings.target), sink, guard, scope)
                scope.info.pid = child.process.pid
                async with _carried(child):
                    yield child

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


def split_command(url: str) -> list[str]:
    """The words of the command behind the scheme of a URL, split as a shell does. Raises ``UsageError``."""
    try:
        return shlex.split(url.partition(":")[2])
    except ValueError as error:
        raise UsageError(f"cannot split the command: {error}", target=redact_url(url)) from error


@asynccontextmanager
async def _carried(child: Child) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        try:
            await child.begin(nursery)
            yield
            await child.process.wait()
        finally:
            await child.end()
            nursery.cancel_scope.cancel()
