"""The client's side: a command to run as an MCP server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs

from trioxport.abc import FrameChannels, Scope
from trioxport.framing import FRAMING, FRAMINGS, FramingName
from trioxport.transports.byte_stream import carry_frames, refuse_binary
from trioxport.transports.stdio.command import CommandOptions


@attrs.frozen
class Stdio(CommandOptions):
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

    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

    def __str__(self) -> str:
        return f"stdio:{self.shown}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        framing = FRAMINGS[self.framing]
        refuse_binary(scope, framing)
        async with self.run(scope) as child, carry_frames(child, framing, scope, peer=child.peer) as channels:
            yield channels
            child.terminate_after(scope.settings.close_timeout / 2)
