"""``trioxport serve``: a server in the user's module, on any target."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from functools import partial
from typing import Any, Final

import click
import trio

from trioxport import UsageError, run_server
from trioxport.abc import CLOSE_TIMEOUT
from trioxport.cli._commands import CONTEXT, EXIT_CODES
from trioxport.cli._loading import load_server
from trioxport.cli._served_target import ServingOptions, served_target
from trioxport.cli._wire_log import log_server, wire_log
from trioxport.cli.options import Seconds, plaintext_option
from trioxport.running.reloading import run_reloading
from trioxport.running.worker import is_worker

DEFAULT_TARGET: Final = "http://127.0.0.1:8000/mcp"
_FILE: Final = click.Path(dir_okay=False)
_HINTS: Final = (
    ('Pass hosts=["mcp.example.com"]', "Add --hosts mcp.example.com"),
    ("Pass cert or ssl_context", "Add --cert FILE"),
)
"""The advice of an error to a program, and the same advice to a user of this command."""


@click.command(context_settings=CONTEXT, epilog=EXIT_CODES)
@click.argument("server", metavar="MODULE:SERVER")
@click.argument("target", metavar="[TARGET]", default=DEFAULT_TARGET)
@click.option("--cert", type=_FILE, metavar="FILE", help="Serve with the certificate in this file (https, wss, tls).")
@click.option("--key", type=_FILE, metavar="FILE", help="Its private key, if that is in a file of its own.")
@click.option(
    "--token-file",
    type=_FILE,
    metavar="FILE",
    help="Admit clients with a bearer token of this file: TOKEN or TOKEN PRINCIPAL in each line.",
)
@click.option(
    "--hosts",
    multiple=True,
    metavar="NAME",
    help="Answer under this name; may be repeated. * is any (default: the host of TARGET).",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Let this proxy name the client by X-Forwarded-For; an address or network, may be repeated.",
)
@click.option("--health", metavar="PATH", help="Answer liveness probes at this path, as /livez.")
@click.option("--ready", metavar="PATH", help="Answer readiness probes at this path: 503 once the server is to stop.")
@click.option("--metrics", metavar="PATH", help="Show figures for Prometheus at this path.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    show_default=True,
    help="Serve in this many processes; more than one serve without sessions, so the modern era alone.",
)
@click.option(
    "--drain",
    type=Seconds(),
    metavar="SECONDS",
    help="Go on listening for this time when told to stop, so that load balancers notice.",
)
@click.option(
    "--close-timeout",
    type=Seconds(),
    default=CLOSE_TIMEOUT,
    metavar="SECONDS",
    show_default=True,
    help="The time that running calls get to finish when the server stops.",
)
@click.option("--no-sessions", is_flag=True, help="Serve the modern era alone, so that any replica can answer.")
@click.option("--no-access-log", is_flag=True, help="Do not log each request of HTTP.")
@click.option("--reload", is_flag=True, help="For development: start the server anew when a Python file changes.")
@click.option(
    "--reload-dir",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Watch this folder; may be repeated (default: the current one).",
)
@plaintext_option
@click.option("-v", "--verbose", is_flag=True, help="Log all messages too, without credentials.")  # fmt: skip
def command(server: str, target: str, **given: Any) -> int:
    """Serve a server of your own until Ctrl-C or SIGTERM.

    MODULE:SERVER is where it is, as my_package.tools:server or tools.py:server: an MCPServer or FastMCP server, or an
    async function that takes a connection. Without :SERVER it is the one called server, mcp, app or handler.

    TARGET is the URL to listen on (default: http://127.0.0.1:8000/mcp): http, https, ws, wss, tcp, tls, unix, or stdio:
    for this process's own standard streams. The log goes to standard error.
    """
    folders, reload = given.pop("folders"), given.pop("reload")
    if reload and given["workers"] > 1:
        raise click.UsageError("--reload runs one process: leave out --workers")
    if folders and not reload:
        raise click.UsageError("--reload-dir is for --reload: add that")
    log_server(has_workers=given["workers"] > 1)
    try:
        _serve(server, target, folders or ["."] if reload else [], **given)
    except UsageError as error:
        for api, shell in _HINTS:
            error.hint = error.hint and error.hint.replace(api, shell)
        raise
    return 0


def _serve(
    server: str,
    url: str,
    folders: list[str],
    *,
    workers: int,
    metrics: str | None,
    close_timeout: float,
    no_sessions: bool,
    no_access_log: bool,
    allow_plaintext: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Serve, or, with folders to watch, keep a process that does."""
    options = ServingOptions(sessions=not no_sessions and workers == 1, access_log=not no_access_log, **given)
    target = served_target(url, options)
    if folders and not is_worker():
        trio.run(partial(run_reloading, target, folders, close_timeout=close_timeout))
        return
    with redirect_stdout(sys.stderr) if url.startswith("stdio:") else nullcontext():  # stdout is for messages
        found = load_server(server)
    settings: dict[str, Any] = {"close_timeout": close_timeout, "allow_plaintext": allow_plaintext}
    if verbose:
        settings["layers"] = [wire_log()]
    trio.run(partial(run_server, found, target, workers=workers, metrics=metrics, **settings))
