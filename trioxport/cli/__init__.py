"""The command ``trioxport``: its arguments and its exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, TypeAlias

import trio

from trioxport import RequestTimeout, TransportError, UsageError, __version__
from trioxport._core.nursery import sole_exception
from trioxport.cli._errors import ArgumentParser, complain_of
from trioxport.peer import JSONRPCError

EXIT_CODES: Final = """\
exit codes:
  0    success
  1    the server, or its tool, answered with an error
  2    the arguments are not valid
  3    the connection could not be opened, or was lost
  4    no answer came in time
  130  interrupted by Ctrl-C
"""

Commands: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"  # pyright: ignore[reportPrivateUsage] # see below
"""The type that ``add_subparsers`` returns: argparse has no public name for it."""

TARGETS: Final = "a URL such as stdio:COMMAND, https://HOST/PATH, wss://HOST/PATH, tcp://HOST:PORT or unix:///PATH"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: this process's) and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code = _run(options)
        sys.stdout.flush()
    except BaseException as error:
        return _explain(sole_exception(error), as_json=getattr(options, "json", False))
    return code


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "call":
            from trioxport.cli.call import call

            return trio.run(call, options)
        case "demo":
            from trioxport.cli.demo import demo

            return trio.run(demo)
        case _:
            from trioxport.cli.demo import serve_until_signal

            return trio.run(serve_until_signal, options)


def _explain(error: BaseException, *, as_json: bool) -> int:
    """Print the failure and return its exit code. Raises ``error`` if it is a defect of this program."""
    match error:
        case KeyboardInterrupt():
            return 130
        case BrokenPipeError():
            # The reader of the output has closed it: nothing more may be written, not even by the interpreter at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case JSONRPCError():
            complain_of(error, as_json=as_json)
            return 1
        case TransportError():
            complain_of(error, as_json=as_json)
            return 2 if isinstance(error, UsageError) else 4 if isinstance(error, RequestTimeout) else 3
        case _:
            raise error


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        "trioxport",
        description="Model Context Protocol messages over any channel.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trioxport {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_call(commands)
    commands.add_parser("demo", help="start a server in a child process and call its tools")
    serve = _command(commands, "serve-demo", "serve the demo server until Ctrl-C or SIGTERM")
    serve.add_argument("target", metavar="TARGET", help=TARGETS + ", to listen on; stdio: for this process's own")
    _add_plaintext(serve)
    return parser


def _add_call(commands: Commands) -> None:
    call = _command(commands, "call", "call a method of a server and print the result")
    call.add_argument("target", metavar="TARGET", help=TARGETS)
    call.add_argument(
        "method",
        metavar="METHOD",
        help="such as tools/list or tools/call; server/discover and initialize print the server's description",
    )
    call.add_argument(
        "params", metavar="PARAMS-JSON", nargs="?", help="the parameters, a JSON object; - reads them from stdin"
    )
    call.add_argument(
        "--era",
        choices=("auto", "modern", "legacy"),
        default="auto",
        help="modern: revision 2026-07-28; legacy: the initialize handshake; auto: negotiate (default)",
    )
    call.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="seconds without an answer or progress before giving up; connecting counts too (default: 60)",
    )
    call.add_argument("--json", action="store_true", help="print the result, or the error, as one line of JSON")
    _add_plaintext(call)


def _command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_plaintext(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-plaintext", action="store_true", help="let unencrypted traffic leave this machine (default: refuse)"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("it has to be a number of seconds above 0")
    return seconds
