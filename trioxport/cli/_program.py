"""The group of all commands: finds a command, runs it, and turns its failure into a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import shell_complete

from trioxport import __version__
from trioxport._core.nursery import sole_exception
from trioxport._diagnostics.hints import close_to
from trioxport.cli._commands import CONTEXT, EXIT_CODES
from trioxport.cli._errors import report
from trioxport.cli.completion import COMPLETION_VARIABLE

COMMANDS: Final = {
    "bench": "Measure the latencies of a server under load.",
    "bridge": "Expose a server, or several, over another transport.",
    "call": "Call a tool or a method of a server and print the result.",
    "list": "List the tools, resources, templates and prompts of a server.",
    "info": "Show a server's description of itself, and the connection to it.",
    "ping": "Measure round trips to a server.",
    "connect": "Converse with a server: call after call over one connection.",
    "completion": "Print the script by which a shell completes the words of this program.",
    "demo": "Start a server in a child process and call its tools.",
    "doctor": "Look for the cause of a failure.",
    "login": "Log in at a server by OAuth.",
    "logout": "Forget the login at a server.",
    "schema": "Print the JSON Schema of configuration files, for editors.",
    "serve": "Serve a server of your own until Ctrl-C or SIGTERM.",
    "serve-demo": "Serve the demo server until Ctrl-C or SIGTERM.",
    "tap": "Record what a client and a server say to each other, and show it.",
    "token": "Print an access token of a login.",
}
"""The summary of each command; the command itself is in the module of its name, imported when it is used."""


class Program(click.Group):
    """The group of the commands in ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"trioxport.cli.{cmd_name.replace('-', '_')}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = close_to(name, COMMANDS)
            question = "See trioxport --help" if close is None else f"Did you mean {close!r}?"
            raise click.UsageError(f"there is no command {name!r}. {question}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Program, invoke_without_command=True, context_settings=CONTEXT, epilog=EXIT_CODES)
@click.version_option(__version__, message="trioxport %(version)s")
@click.pass_context
def program(context: click.Context) -> int | None:
    """Reach, serve and examine servers of the Model Context Protocol (MCP), over any channel."""
    if context.invoked_subcommand is not None:
        return None
    click.echo(context.get_help())
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(program, {}, "trioxport", COMPLETION_VARIABLE, instruction)
    try:
        code = _invoke(list(arguments))
        sys.stdout.flush()
    except BaseException as error:
        return _explain(sole_exception(error), as_json="--json" in arguments)
    return code


def _invoke(arguments: list[str]) -> int:
    try:
        with program.make_context("trioxport", arguments) as context:
            result: Any = program.invoke(context)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    return result or 0


def _explain(error: BaseException, *, as_json: bool) -> int:
    """Print the failure and return its exit code. Raises ``error`` if it is a defect of this program."""
    match error:
        case KeyboardInterrupt() | click.Abort():
            return 130
        case BrokenPipeError():
            # The reader of the output has closed it: nothing more may be written, not even by the interpreter at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        case _:
            code = report(error, as_json=as_json)
            if code is None:
                raise error
            return code
