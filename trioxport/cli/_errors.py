"""Errors as the command prints them: a line with advice for the shell, or one line of JSON for programs."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from trioxport import OAuthError, RequestTimeout, TransportError, UsageError
from trioxport.cli._output import complain, one_line, write
from trioxport.protocol import JSONRPCError

_IN_THE_SHELL: Final = (
    ("allow_plaintext=True", "--allow-plaintext"),
    ("raise connect_timeout", "raise --timeout"),
    ("Raise the timeout, or ask for progress, which extends it", "Raise --timeout"),
    ("raise the timeout", "raise --timeout"),
    ("Raise total_timeout", "Raise --timeout"),
    ("trust it by a ca file or an ssl_context", "name a file of certificates to trust by --ca"),
    ("Raise Limits.max_message_size on both sides, or send less at once", "Send, or ask for, less at once"),
    ("Raise idle_timeout", "Look at the server's log"),
    ("Do not insist on the modern era", "Leave out --era modern"),
    ('Pass hosts=["mcp.example.com"]: without them', "Listen on 127.0.0.1, behind a proxy if need be: as it is"),
    (
        "Pass ask=, a function that returns it",
        "Run the command in a terminal, where it asks, or give the input a default",
    ),
    ("Pass tls=", "Serve http:// on 127.0.0.1, behind a proxy that has the certificate"),
    ("Pass cert or ssl_context", "Add ?cert=FILE&key=FILE to the target"),
)
"""The advice of an error to a program, and the same advice to a user of the shell."""


def report(error: BaseException, *, as_json: bool) -> int | None:
    """Print an error of a command and return its exit code; None for any other exception, which is not printed."""
    if isinstance(error, click.ClickException):
        complain_of_arguments(error, as_json=as_json)
        return 2
    if not isinstance(error, TransportError | JSONRPCError):
        return None
    complain_of(error, as_json=as_json)
    if isinstance(error, JSONRPCError):
        return 1
    return 2 if isinstance(error, UsageError) else 4 if isinstance(error, RequestTimeout) else 3


def complain_of(error: TransportError | JSONRPCError, *, as_json: bool) -> None:
    """Print an error to standard error."""
    if as_json:
        complain_in_json(_members(error))
    elif isinstance(error, TransportError):
        complain(_text_of(error))
    else:
        hint = "" if error.hint is None else f". {error.hint}"
        complain(f"the server answered with error {error.code}: {error.message}{hint}")
        if error.data is not None:
            complain(f"details: {one_line(error.data)}")


def complain_of_arguments(error: click.ClickException, *, as_json: bool) -> None:
    """Print an error of the command line to standard error, and the place where its arguments are explained."""
    text = error.format_message().rstrip()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if as_json:
        complain_in_json({"type": "UsageError", "message": text})
        return
    complain(text)
    if context is not None and context.command_path != "trioxport":
        write(f"{context.get_usage()}\nSee {context.command_path} --help", sys.stderr)


def complain_in_json(members: dict[str, Any]) -> None:
    """Write ``{"error": ...}`` to standard error, in one line."""
    write(one_line({"error": {name: value for name, value in members.items() if value is not None}}), sys.stderr)


def _text_of(error: TransportError) -> str:
    """The text of the error, without the standard error of a child process, which is that of this process."""
    return in_the_shell(str(error) if isinstance(error, OAuthError) else TransportError.__str__(error))


def in_the_shell(text: str) -> str:
    """A text whose advice names the options of commands in place of a program's arguments."""
    for api, shell in _IN_THE_SHELL:
        text = text.replace(api, shell)
    return text


def _members(error: TransportError | JSONRPCError) -> dict[str, Any]:
    kind = type(error).__name__
    if isinstance(error, JSONRPCError):
        return {"type": kind, "message": error.message, "code": error.code, "data": error.data}
    return {
        "type": kind,
        "message": _text_of(error),
        "target": error.target,
        "outcome": error.outcome,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        "exit_code": getattr(error, "exit_code", None),
    }
