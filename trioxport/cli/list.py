"""``trioxport list``: the tools, resources, templates and prompts of a server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import click

from trioxport.cli._commands import cli_command
from trioxport.cli._output import one_line, write
from trioxport.cli._questions import OFFERED
from trioxport.cli._schemas import signature
from trioxport.cli._terminal import print_table
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, connection_options, json_option, target_argument
from trioxport.peer import Client, Prompt, Resource, ResourceTemplate, Tool
from trioxport.peer.results import unstructure

Item = Tool | Resource | ResourceTemplate | Prompt


def _first_line(text: str | None) -> str:
    return next(iter((text or "").strip().splitlines()), "")


def _tool(tool: Any) -> Sequence[str]:
    return tool.name, signature(tool.input_schema), _first_line(tool.description or tool.title)


def _resource(resource: Any) -> Sequence[str]:
    about = _first_line(resource.description or resource.title)
    return resource.uri, resource.name, resource.mime_type or "", about


def _template(template: Any) -> Sequence[str]:
    about = _first_line(template.description or template.title)
    return template.uri_template, template.name, template.mime_type or "", about


def _prompt(prompt: Any) -> Sequence[str]:
    arguments = ", ".join(f"{each.name}{'' if each.required else '?'}" for each in prompt.arguments)
    return prompt.name, arguments, _first_line(prompt.description or prompt.title)


@attrs.frozen
class Kind:
    """A kind of things that servers list.

    Args:
        capability: The capability of servers that have such.
        list_all: The method of the client.
        columns: The heads of the table.
        row: The cells of a thing.
    """

    capability: str
    list_all: Callable[..., Any]
    columns: Sequence[str]
    row: Callable[[Any], Sequence[str]]


KINDS: Final[Mapping[str, Kind]] = {
    "tools": Kind("tools", Client.list_tools, ("name", "arguments", "description"), _tool),
    "resources": Kind("resources", Client.list_resources, ("uri", "name", "type", "description"), _resource),
    "templates": Kind("resources", Client.list_resource_templates, ("uri", "name", "type", "description"), _template),
    "prompts": Kind("prompts", Client.list_prompts, ("name", "arguments", "description"), _prompt),
}


@cli_command
@target_argument
@click.argument("kind", type=click.Choice(list(KINDS)), required=False)
@json_option
@connection_options
async def command(target: str, kind: str | None, as_json: bool, options: ConnectionOptions) -> int:
    """List the tools, resources, templates and prompts of a server.

    Without a kind, all that the server announces are listed, of all pages. Arguments are in short form: a question mark
    stands behind the name of one that may be left out.
    """
    async with open_session(target, options, OFFERED) as client:
        await show_lists(client, kind, options.timeout, as_json=as_json)
    return 0


async def show_lists(client: Client, kind: str | None, seconds: float, *, as_json: bool) -> None:
    """Print the things of one kind, or of all kinds that the server announces.

    Args:
        client: The client.
        kind: The kind; None for all.
        seconds: Seconds that each request may take.
        as_json: Whether to print them as one line of JSON.
    """
    names = [name for name, each in KINDS.items() if kind == name or (kind is None and _has(client, each))]
    found: dict[str, Sequence[Item]] = {name: await KINDS[name].list_all(client, timeout=seconds) for name in names}
    if as_json:
        write(one_line({name: [unstructure(item) for item in items] for name, items in found.items()}), sys.stdout)
        return
    if not names:
        write("The server announces no tools, resources or prompts.", sys.stdout)
    for number, (name, items) in enumerate(found.items()):
        title = f"{name} ({len(items)})" if number == 0 else f"\n{name} ({len(items)})"
        print_table(title, KINDS[name].columns, [KINDS[name].row(item) for item in items], sys.stdout)


def _has(client: Client, kind: Kind) -> bool:
    return kind.capability in client.server.capabilities
