"""``trioxport info``: a server's description of itself, and the connection to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from trioxport.cli._commands import cli_command
from trioxport.cli._output import one_line, write
from trioxport.cli._questions import OFFERED
from trioxport.cli._requests import described
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, connection_options, json_option, target_argument
from trioxport.peer import Client
from trioxport.protocol import members_of


@cli_command
@target_argument
@json_option
@connection_options
async def command(target: str, as_json: bool, options: ConnectionOptions) -> int:
    """Show a server's description of itself, and the connection to it.

    That is its name, version, era, capabilities and instructions; its address, and the version of TLS.
    """
    async with open_session(target, options, OFFERED) as client:
        show_info(client, as_json)
    return 0


def show_info(client: Client, as_json: bool) -> None:
    """Print the description of the server and of the connection to it."""
    if as_json:
        write(one_line({**described(client.server), "connection": _connection(client)}), sys.stdout)
        return
    for name, value in _lines(client):
        write(f"{name + ':':<14}{value}", sys.stdout)
    if client.server.instructions:
        write(
            "instructions:\n" + "\n".join(f"  {line}" for line in client.server.instructions.splitlines()), sys.stdout
        )


def _lines(client: Client) -> Iterator[tuple[str, object]]:
    server = client.server
    told = server.server_info
    yield "server", " ".join(str(told[name]) for name in ("name", "version") if told.get(name)) or "(without a name)"
    for name in ("title", "description", "websiteUrl"):
        if told.get(name):
            yield name.removesuffix("Url"), told[name]
    yield "revision", f"{server.protocol_version} ({server.era})"
    yield "capabilities", ", ".join(map(_capability, server.capabilities.items())) or "none"
    yield from _connection(client).items()


def _capability(item: tuple[str, Any]) -> str:
    name, members = item
    enabled = [member for member, value in members_of(members).items() if value is not False]
    return f"{name} ({', '.join(enabled)})" if enabled else name


def _connection(client: Client) -> Mapping[str, object]:
    info = client.peer.connection.info
    found = {
        "target": info.target,
        "address": info.peer,
        "session": "yes" if info.session_id else None,
        "tls": info.tls,
    }
    return {name: value for name, value in found.items() if value is not None}
