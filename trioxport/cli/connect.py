"""``trioxport connect``: call after call over one connection, at a prompt or from a script."""

from __future__ import annotations

import sys

import click
import trio

from trioxport import TransportError
from trioxport.cli._commands import cli_command
from trioxport.cli._output import complain, one_line, write
from trioxport.cli._questions import Questions
from trioxport.cli._requests import Caller, Patience
from trioxport.cli._shell import Shell
from trioxport.cli._status import Status, open_status
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, connection_options, json_option, target_argument


@cli_command
@target_argument
@click.option("--keep-going", is_flag=True, help="In a script, go on after a line that failed.")
@json_option
@connection_options
async def command(target: str, keep_going: bool, as_json: bool, options: ConnectionOptions) -> int:
    """Converse with a server: call after call over one connection.

    Each line is a call, in the words of trioxport call: TOOL a=1 b=2, or METHOD name=value; help lists the other
    commands. At the prompt, Tab completes, Ctrl-C cancels the call that is running, and Ctrl-D leaves; the history is
    kept in $XDG_STATE_HOME/trioxport/history.

    If standard input is no terminal, it is run as a script, a line a command, up to the first that fails; its exit code
    is that of the whole, and standard error names the line.
    """
    async with open_status() as status:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from trioxport.cli._conversation import converse

            return await converse(target, options, status, as_json)
        return await _run_script(target, options, status, as_json, keep_going)


async def _run_script(target: str, options: ConnectionOptions, status: Status, as_json: bool, keep_going: bool) -> int:
    patience = Patience(options.timeout)
    questions = Questions(patience, status, None, shows_logs=options.verbose)
    first_failure = number = 0
    async with open_session(target, options, questions.handlers()) as client:
        caller = Caller(client, patience, status, wants_logs=options.verbose)
        shell = Shell(caller, options.timeout, as_json=as_json)
        while not shell.has_ended:
            line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            if not line:
                break
            number += 1
            code = await _run_line(shell, number, line, as_json)
            first_failure = first_failure or code
            if code and not keep_going:
                break
    return first_failure


async def _run_line(shell: Shell, number: int, line: str, as_json: bool) -> int:
    try:
        code = await shell.run(line)
    except TransportError:
        _complain_of_line(number, line, as_json)
        raise
    if code:
        _complain_of_line(number, line, as_json)
    return code


def _complain_of_line(number: int, line: str, as_json: bool) -> None:
    if as_json:
        write(one_line({"failed": {"line": number, "text": line.strip()}}), sys.stderr)
    else:
        complain(f"line {number} of the script failed: {line.strip()}")
