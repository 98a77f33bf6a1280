"""``trioxport bridge``: a server, or several, over another transport."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import click

from trioxport import Target, load_servers, run_server
from trioxport.abc import Layer
from trioxport.cli._commands import cli_command
from trioxport.cli._configuration import configured_names, find_servers
from trioxport.cli._served_target import EndpointNames, ServingOptions, served_target
from trioxport.cli._wire_log import log_server, wire_log
from trioxport.cli.connecting import resolve
from trioxport.cli.options import ConnectionOptions, connection_options, json_errors_option
from trioxport.codecs.forwarding import Forwarding
from trioxport.servers import Sharing, open_bridge
from trioxport.transports.dial import Dial

_NAMES: Final = EndpointNames("--listen-cert", "--listen-key", "--client-tokens")


@cli_command
@click.argument("listen", metavar="LISTEN")
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option(
    "--upstream",
    "sharing",
    type=click.Choice(["shared", "per-session"]),
    default="shared",
    show_default=True,
    help="shared: one connection to the server for all clients; per-session: one for each session, or, in the modern \
era over HTTP, for each request.",
)
@click.option("--dial", is_flag=True, help="Connect to LISTEN, a hub, and serve it over that connection.")
@click.option(
    "--header-allow",
    "forward_headers",
    multiple=True,
    metavar="NAME",
    help="Forward this header of clients to a server over HTTP; may be repeated (default: none).",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME[=JSON]",
    help="Add a layer to the connections to the server, as Metrics or 'Retry={\"attempts\": 3}'; may be repeated.",
)
@_NAMES.options
@json_errors_option
@partial(connection_options, without_era=True)
async def command(
    listen: str,
    targets: Sequence[str],
    sharing: Sharing,
    dial: bool,
    forward_headers: Sequence[str],
    layers: Sequence[str],
    options: ConnectionOptions,
    **serving: Any,
) -> int:
    """Expose a server, or several, over another transport, for clients of either era, until Ctrl-C or SIGTERM.

    LISTEN is the URL that clients use: http, https, http+unix, ws, wss, grpc, grpcs, tcp, tls, unix, or
    stdio: or http+stdio: for this process's own standard streams. TARGET is a URL, a quoted command, or the name of a
    server in a configuration file.

    Several names, or none, which means all servers of the file, are exposed together: their tools and prompts are
    named SERVER__TOOL, and each server fails for itself. The options of a connection, as --header and --token, are for
    a single TARGET; --timeout is the time to connect to it, or to the hub. The log goes to standard error.
    """
    log_server(has_workers=False)
    upstream = _upstream(targets, options)
    served = _dialled(listen, serving) if dial else served_target(listen, ServingOptions(**serving), _NAMES)
    added = [*_layers(layers), *([wire_log()] if options.verbose else [])]
    async with open_bridge(
        upstream,
        name=_name(targets),
        sharing=sharing,
        forward_headers=forward_headers,
        layers=added,
        allow_plaintext=options.allow_plaintext,
        connect_timeout=options.timeout,
    ) as bridge:
        settings: dict[str, Any] = {"codec": Forwarding(), "allow_plaintext": options.allow_plaintext}
        if dial:
            settings["connect_timeout"] = options.timeout
        with _NAMES.in_advice():
            await run_server(bridge.handler, served, **settings)
    return 0


def _upstream(targets: Sequence[str], options: ConnectionOptions) -> Target | Mapping[str, Target]:
    """One server, or several by name. Raises ``UsageError`` if there is none, or an option does not apply."""
    if len(targets) == 1:
        return resolve(targets[0], options)
    for name in targets:
        if ":" in name or " " in name:
            raise click.UsageError(f"several targets are names of a configuration file, and {name!r} is none")
    if given := options.for_one_server():
        raise click.UsageError(
            f"{given[0]} is for a single TARGET: write it into the configuration of the server that it is for"
        )
    return find_servers(targets or configured_names(options.config), options.config)


def _dialled(hub: str, serving: Mapping[str, Any]) -> Dial:
    if any(serving.values()):
        raise click.UsageError("--dial listens nowhere: leave out --hosts, --health and the like, or --dial")
    return Dial(hub)


def _name(targets: Sequence[str]) -> str:
    """The name of the server in errors that clients get: that of the configuration, but no address."""
    return targets[0] if len(targets) == 1 and targets[0].isidentifier() else "server"


def _layers(given: Sequence[str]) -> Sequence[Layer]:
    """The layers of ``--layer``, as a configuration names them."""
    entries: list[Any] = []
    for text in given:
        name, equals, table = text.partition("=")
        try:
            entries.append({name: json.loads(table)} if equals else name)
        except ValueError as error:
            raise click.BadParameter(f"{table} is not JSON: {error}", param_hint="'--layer'") from error
    if not entries:
        return ()
    return load_servers({"mcpServers": {"--layer": {"url": "memory://layer", "layers": entries}}})["--layer"].layers
