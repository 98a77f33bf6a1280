"""``trioxport doctor``: the group of commands that look for the cause of a failure."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Final

import attrs
import click

from trioxport.auth.oauth import NetworkPolicy
from trioxport.auth.oauth.examination import AuthorizationFinding, examine
from trioxport.cli._commands import CONTEXT, GroupWithDefault, cli_command
from trioxport.cli._examining import server
from trioxport.cli._oauth import challenge_of, network_options, server_argument
from trioxport.cli._output import one_line, write
from trioxport.cli.options import json_option

MARKS: Final = {"ok": "ok    ", "note": "note  ", "failed": "FAILED"}


@click.group(cls=GroupWithDefault, default="server", usage="TARGET | COMMAND ...", context_settings=CONTEXT)
def command() -> None:
    """Look for the cause of a failure, step by step.

    doctor TARGET examines a server, as doctor server TARGET does.
    """


@cli_command
@server_argument
@click.option("--register", "registers", is_flag=True, help="Register a client, to see whether that works.")
@network_options
@json_option
async def auth(url: str, registers: bool, network: NetworkPolicy, as_json: bool) -> int:
    """Examine each step of a server's authorization by OAuth: its challenge, the metadata, registration and PKCE.

    A step that fails is shown with the section of the specification or RFC that it breaks; then the exit code is 1.
    """
    status, header = await challenge_of(url, network)
    found = list[AuthorizationFinding]()
    async with aclosing(examine(url, status, header, network=network, registers=registers)) as findings:
        async for finding in findings:
            found.append(finding)
            if not as_json:
                _print(finding)
    if as_json:
        write(one_line([attrs.asdict(each) for each in found]), sys.stdout)
    return 1 if any(each.verdict == "failed" for each in found) else 0


def _print(finding: AuthorizationFinding) -> None:
    section = f" ({finding.section})" if finding.section else ""
    hint = f"\n        {finding.hint}" if finding.hint else ""
    write(f"{MARKS[finding.verdict]}  {finding.step}: {finding.text}{section}{hint}", sys.stdout)


command.add_command(server)
command.add_command(auth)
