"""Commands as async functions.

::

    @cli_command
    @target_argument
    @connection_options
    async def command(target: str, options: ConnectionOptions) -> int:
        async with open_session(target, options) as client:
            ...
        return 0
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Final

import click
import trio

EXIT_CODES: Final = """\
\b
Exit codes:
  0    success
  1    the server, or its tool, answered with an error
  2    the arguments are not valid
  3    the connection could not be opened, or was lost
  4    no answer came in time
  130  interrupted by Ctrl-C
  141  the reader of the output closed it, as head does
"""

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""The settings of every command's ``click.Context``."""


def cli_command(function: Callable[..., Awaitable[int]]) -> click.Command:
    """Make a command of an async function that returns its exit code; its docstring is the help.

    The function may raise ``TransportError``, ``JSONRPCError`` and ``click.ClickException``: the program prints them,
    and its exit code follows from the class.
    """

    @wraps(function)
    def in_trio(**given: Any) -> int:
        return trio.run(partial(function, **given))

    return click.command(context_settings=CONTEXT, epilog=EXIT_CODES)(in_trio)


class GroupWithDefault(click.Group):
    """A group of commands, of which one need not be named: ``tap record ...`` is ``tap ...``.

    Args:
        default: The name of that command.
        usage: The arguments of the group in its usage line.
    """

    def __init__(self, *args: Any, default: str, usage: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._default = default
        self._usage = usage

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *CONTEXT["help_option_names"]):
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [self._usage]
