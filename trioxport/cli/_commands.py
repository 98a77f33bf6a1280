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
