"""``trioxport serve``: a server in the user's module, on any target."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from functools import partial
from typing import Any, Final

import click
import trio

from trioxport import run_server
from trioxport.abc import CLOSE_TIMEOUT
from trioxport.cli._commands import CONTEXT, EXIT_CODES
from trioxport.cli._loading import load_server
from trioxport.cli._served_target import EndpointNames, ServingOptions, served_target
from trioxport.cli._wire_log import log_server, wire_log
from trioxport.cli.options import Seconds, json_errors_option, plaintext_option
from trioxport.running.reloading import run_reloading
from trioxport.running.worker import is_worker
from trioxport.targets import STANDARD_STREAMS

DEFAULT_TARGET: Final = "http://127.0.0.1:8000/mcp"
_NAMES: Final = EndpointNames("--cert", "--key", "--token-file")


@click.command(context_settings=CONTEXT, epilog=EXIT_CODES)
@click.argument("server", metavar="MODULE:SERVER")
@click.argument("target", metavar="[TARGET]", default=DEFAULT_TARGET)
@_NAMES.options
@click.option("--ready", metavar="PATH", help="Answer readiness probes at this path: 503 once the server is to stop.")
@click.option("--metrics", metavar="PATH", help="Show figures for Prometheus at this path.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    show_default=True,
    help="Serve in this many processes; more than one serve the modern era alone, unless with --redis.",
)
@click.option(
    "--redis",
    metavar="URL",
    help="Share sessions and streams of the legacy era with other servers, through this Redis.",
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
@json_errors_option
@click.option("-v", "--verbose", is_flag=True, help="Log all messages too, without credentials.")  # fmt: skip
def command(server: str, target: str, **given: Any) -> int:
    """Serve a server of your own until Ctrl-C or SIGTERM.

    MODULE:SERVER is where it is, as my_package.tools:server or tools.py:server: an MCPServer or FastMCP server, or an
    async function that takes a connection. Without :SERVER it is the one called server, mcp, app or handler.

    TARGET is the URL to listen on (default: http://127.0.0.1:8000/mcp): http, https, http+unix, ws, wss, grpc,
    grpcs, tcp, tls, unix, or stdio: or http+stdio: for this process's own standard streams. The log goes to standard
    error.
    """
    folders, reload = given.pop("folders"), given.pop("reload")
    if reload and given["workers"] > 1:
        raise click.UsageError("--reload runs one process: leave out --workers")
    if folders and not reload:
        raise click.UsageError("--reload-dir is for --reload: add that")
    log_server(has_workers=given["workers"] > 1)
    with _NAMES.in_advice((", or raise connect_timeout", "")):
        _serve(server, target, folders or ["."] if reload else [], **given)
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
    allow_plaintext: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Serve, or, with folders to watch, keep a process that does."""
    no_sessions = no_sessions or (workers > 1 and given["redis"] is None)
    options = ServingOptions(no_sessions=no_sessions, **given)
    target = served_target(url, options, _NAMES)
    if folders and not is_worker():
        trio.run(partial(run_reloading, target, folders, close_timeout=close_timeout))
        return
    is_on_streams = url.lower().startswith(STANDARD_STREAMS)
    with redirect_stdout(sys.stderr) if is_on_streams else nullcontext():  # stdout is for messages
        found = load_server(server)
    settings: dict[str, Any] = {"close_timeout": close_timeout, "allow_plaintext": allow_plaintext}
    if verbose:
        settings["layers"] = [wire_log()]
    trio.run(partial(run_server, found, target, workers=workers, metrics=metrics, **settings))
