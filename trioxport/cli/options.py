"""Arguments and options that commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
import click
from click.shell_completion import CompletionItem

from trioxport._diagnostics.secret_names import is_secret_header
from trioxport.abc import Era
from trioxport.auth import Secret
from trioxport.cli._configuration import known_servers
from trioxport.messages import HIDDEN, NOTHING

Function = TypeVar("Function", bound=Callable[..., Any])
FILE: Final = click.Path(dir_okay=False)
"""The type of an option that names a file."""


def _shown_headers(headers: Mapping[str, str]) -> str:
    return str({name: HIDDEN if is_secret_header(name) else value for name, value in headers.items()})


@attrs.frozen
class ConnectionOptions:
    """The options of a connection, as the user gave them.

    Args:
        headers: HTTP headers of every request.
        token: A bearer token.
        ca: The file of the certificates to trust.
        cert: The file of the own certificate.
        key: The file of its private key.
        env: Variables for a command.
        cwd: The working directory of a command.
        http2: Whether to speak HTTP/2.
        timeout: Seconds without an answer or progress; connecting and negotiating take no longer either.
        allow_plaintext: Whether unencrypted traffic may leave this machine.
        era: The era, if it is not to be negotiated.
        verbose: Whether to log all messages to standard error.
        config: The configuration file with the names of servers; None for the usual places.
    """

    headers: Mapping[str, str] = attrs.field(default=NOTHING, repr=_shown_headers)
    token: Secret | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    env: Mapping[str, str] = attrs.field(default=NOTHING, repr=False)
    cwd: str | None = None
    http2: bool = False
    timeout: float = 60.0
    allow_plaintext: bool = False
    era: Era | None = None
    verbose: bool = False
    config: str | None = None

    def for_one_server(self) -> list[str]:
        """The given options that say how one server is reached, such as ``--token``."""
        names = {"headers": "--header", "token": "--token", "env": "--env", "cwd": "--cwd", "http2": "--http2"}
        names |= {"ca": "--ca", "cert": "--cert", "key": "--key"}
        return [option for name, option in names.items() if getattr(self, name)]


def _complete_target(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    config = _context.params.get("config")
    return [CompletionItem(name, help=where) for name, where in known_servers(config) if name.startswith(incomplete)]


TARGETS: Final = (
    "a URL (https://HOST/PATH, wss://..., tcp://HOST:PORT, unix:///PATH, stdio:COMMAND), a quoted command, or \
the name of a server in a configuration file"
)


def target_argument(function: Function) -> Function:
    """Add the argument ``target``, completed with the servers of the configuration."""
    return click.argument("target", metavar="TARGET", shell_complete=_complete_target)(function)


def json_option(function: Function) -> Function:
    """Add the flag ``--json``, as the parameter ``as_json``. The program prints errors accordingly by itself."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as one line of JSON.")(
        function
    )


def json_errors_option(function: Function) -> Function:
    """Add the flag ``--json`` to a command without a result. The program prints errors accordingly by itself."""
    text = "Print an error as one line of JSON."
    return click.option("--json", is_flag=True, expose_value=False, help=text)(function)


def plaintext_option(function: Function) -> Function:
    """Add the flag ``--allow-plaintext``."""
    text = "Let unencrypted traffic leave this machine (default: refuse)."
    return click.option("--allow-plaintext", is_flag=True, help=text)(function)


class Seconds(click.ParamType[float]):
    """A number of seconds above 0."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0
        if not 0 < seconds < math.inf:
            self.fail("it has to be a number of seconds above 0", param, ctx)
        return seconds


def _headers(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter("a header is written NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers


def _variables(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> Mapping[str, str]:
    variables: dict[str, str] = {}
    for text in given:
        name, has_value, value = text.partition("=")
        if not name or (not has_value and name not in os.environ):
            raise click.BadParameter("write NAME=VALUE, or the NAME of a variable that is set")
        variables[name] = value if has_value else os.environ[name]
    return variables


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
    raise click.BadParameter(f"the file {path} cannot be read: {why}", param_hint="'--token-file'")


_ERA: Final = click.option(
    "--era",
    type=click.Choice(["auto", "modern", "legacy"]),
    default="auto",
    help="modern: revision 2026-07-28; legacy: the initialize handshake; auto: negotiate (default).",
)
_OPTIONS: Final = (
    click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", callback=_headers,
                 help="Send this HTTP header with every request; may be repeated."),
    click.option("--token", metavar="TOKEN", help="Send this bearer token; others on this machine can see it in the \
list of processes, unlike that of --token-file."),
    click.option("--token-file", type=FILE, metavar="FILE", help="Send the bearer token in this file."),
    click.option("--ca", type=FILE, metavar="FILE", help="Trust the certificates in this file, and no others."),
    click.option("--cert", type=FILE, metavar="FILE", help="Show the certificate in this file to the server."),
    click.option("--key", type=FILE, metavar="FILE", help="Its private key, if that is in a file of its own."),
    click.option("--env", multiple=True, metavar="NAME[=VALUE]", callback=_variables,
                 help="Set a variable for a command, or pass on the one of this name; may be repeated."),
    click.option("--cwd", type=click.Path(file_okay=False), metavar="FOLDER", help="Run a command in this folder."),
    click.option("--http2", is_flag=True, help="Speak HTTP/2: over https if the server does, over http in any case."),
    click.option("--timeout", type=Seconds(), default=60.0, metavar="SECONDS", show_default=True,
                 help="Give up after this time without an answer or progress; connecting counts too."),
    _ERA,
    plaintext_option,
    click.option("--config", type=FILE, metavar="FILE",
                 help="Look the name of a server up in this file (default: mcp.json, .mcp.json, .vscode/mcp.json)."),
    click.option("-v", "--verbose", is_flag=True, help="Log all messages to standard error, without credentials."),
)  # fmt: skip


def connection_options(function: Callable[..., Any], *, without_era: bool = False) -> Callable[..., Any]:
    """Add the options of a connection; the parameter ``options`` gets them as :class:`ConnectionOptions`.

    Args:
        function: The function to add them to.
        without_era: Whether to leave out ``--era``.
    """

    @wraps(function)
    def with_options(**given: Any) -> Any:
        names = {field.name for field in attrs.fields(ConnectionOptions)} & given.keys()
        taken = {name: given.pop(name) for name in names}
        taken["token"] = _token(taken["token"], given.pop("token_file"))
        taken["era"] = cast("Era | None", None if taken.get("era") == "auto" else taken.get("era"))
        return function(options=ConnectionOptions(**taken), **given)

    decorated: Callable[..., Any] = with_options
    for option in reversed([each for each in _OPTIONS if not (without_era and each is _ERA)]):
        decorated = option(decorated)
    return decorated


def _token(token: str | None, file: str | None) -> Secret | None:
    if token is not None and file is not None:
        raise click.UsageError("--token and --token-file say the same: keep one of them")
    if file is not None:
        token = _read_token(file)
    return None if token is None else Secret(token)
