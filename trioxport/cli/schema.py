"""``trioxport schema``: the JSON Schema of configuration files, by which editors complete and check them."""

from __future__ import annotations

import sys

import click

from trioxport.cli._commands import CONTEXT, EXIT_CODES
from trioxport.cli._output import pretty, write
from trioxport.config import config_schema


@click.command(context_settings=CONTEXT, epilog=EXIT_CODES)
def command() -> int:
    """Print the JSON Schema of configuration files, by which an editor completes and checks them.

    It knows the fields of other clients too, and refuses all others, so that an editor marks a misspelt one. Any value
    may be a reference, such as ${VAR} or ${file:PATH}.

    Write it into a file once, and again after an update of this program:

    \b
    trioxport schema > mcp.schema.json

    A file names its schema in its first lines, or the settings of the editor do:

    \b
    mcp.json:               {"$schema": "./mcp.schema.json", "mcpServers": ...}
    .vscode/settings.json:  {"json.schemas": [{"fileMatch": ["mcp.json"], "url": "./mcp.schema.json"}]}

    In TOML the first line names it, for Taplo and Even Better TOML:

    \b
    #:schema ./mcp.schema.json

    A file whose schema has "trioxport" in its name is strict, as one with "trioxport": 1 is.
    """
    write(pretty(config_schema()), sys.stdout)
    return 0
