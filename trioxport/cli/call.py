"""``trioxport call``: one request to one server."""

from __future__ import annotations

import sys

import click

from trioxport.cli._commands import cli_command
from trioxport.cli._questions import Questions, ask_on_terminal
from trioxport.cli._requests import Caller, Patience
from trioxport.cli._results import show_result
from trioxport.cli._status import open_status
from trioxport.cli._words import METHODS, parse_words
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, connection_options, json_option, target_argument


def _complete_method(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [method for method in METHODS if method.startswith(incomplete)]


@cli_command
@target_argument
@click.argument("name", metavar="METHOD|TOOL", shell_complete=_complete_method)
@click.argument("words", metavar="[JSON | NAME=VALUE...]", nargs=-1)
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE",
              help="Save the images, sounds and other bytes of the result in this file, or else its text.")  # fmt: skip
@json_option
@connection_options
async def command(
    target: str, name: str, words: tuple[str, ...], output: str | None, as_json: bool, options: ConnectionOptions
) -> int:
    """Call a tool or a method of a server and print the result.

    A tool's arguments are written NAME=VALUE, and become what its schema asks for: numbers, booleans, and, where a
    name is repeated, arrays. NAME:=JSON is any JSON; a dot in NAME reaches into an object. Instead of all of them there
    may be one JSON object, or - for one on standard input.

    A method, such as tools/list or resources/read, takes its parameters in the same ways; there, VALUE is a text.
    server/discover and initialize print the server's description.
    """
    call = parse_words(name, words)
    patience = Patience(options.timeout)
    is_interactive = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
    async with open_status() as status:
        questions = Questions(patience, status, ask_on_terminal if is_interactive else None, shows_logs=options.verbose)
        async with open_session(target, options, questions.handlers()) as client:
            caller = Caller(client, patience, status, wants_logs=options.verbose)
            if options.verbose:
                await caller.enable_logs()
            result = await caller.call(call)
    return show_result(result, as_json, output)
