"""The server's side: the standard streams of this process."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.framing import FRAMING, FRAMINGS, FramingName
from trioxport.transports.byte_stream import carry_frames
from trioxport.transports.stdio.standard_streams import claimed_standard_streams


@attrs.frozen
class StdioServer:
    """A listener on the standard input and output of this process: ``stdio:`` without a command.

    Meanwhile file descriptor 0 reads nothing and file descriptor 1 leads to standard error, so that a stray ``print``,
    or a child's output, cannot get between the messages. Both are restored afterwards, except that an output that is a
    pipe is closed, so that the client sees its end: later prints go to standard error. On Windows
    this is a ``UsageError``: Trio has no asynchronous streams for inherited handles there.

    The end of the client, even by SIGKILL, ends ``rx``. On Linux a handler that goes on is cancelled after
    ``close_timeout``, so that no server is left behind.

    Args:
        framing: As for :class:`Stdio`.
    """

    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

    def __str__(self) -> str:
        return "stdio:"

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        with claimed_standard_streams() as streams:
            task_status.started([str(self)])
            with trio.CancelScope() as life:

                def carry(scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
                    scope.start_soon(streams.end_without_client, life, scope.settings.close_timeout)
                    return carry_frames(streams, FRAMINGS[self.framing], scope, await_end=False)

                await acceptor.serve_only(carry)
