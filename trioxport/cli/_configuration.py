"""Servers by name, from configuration files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trioxport._diagnostics.hints import close_to
from trioxport.config import ServerConfig, list_servers, load_servers
from trioxport.errors import UsageError
from trioxport.protocol import items_of, members_of

PLACES: Final = ("mcp.json", ".mcp.json", ".vscode/mcp.json")
"""The configuration files that are looked for in the current folder, in this order."""


def find_server(name: str, config: str | None) -> ServerConfig:
    """The server ``name`` of the file ``config``, or of the first of ``PLACES`` that has it. Raises ``UsageError``."""
    return find_servers([name], config)[name]


def find_servers(names: Sequence[str], config: str | None) -> Mapping[str, ServerConfig]:
    """The servers ``names``, each as by :func:`find_server`. Raises ``UsageError``, with all problems of a file."""
    places = _places(config)
    known: list[str] = []
    found: dict[str, ServerConfig] = {}
    for place in places:
        if missing := [name for name in names if name not in found]:
            known += list_servers(place)
            here = [name for name in missing if name in known]
            found |= load_servers(place, names=here, ask=_ask if sys.stdin.isatty() else None)
    for name in names:
        if name not in found:
            raise _unknown(name, places, known)
    return {name: found[name] for name in names}


def known_servers(config: str | None) -> Iterator[tuple[str, str]]:
    """The names of the servers and the files that have them, without files that cannot be read."""
    for place in _places(config):
        try:
            names = list_servers(place)
        except UsageError:
            continue
        for name in names:
            yield name, place


def _places(config: str | None) -> Sequence[str]:
    return [place for place in PLACES if Path(place).is_file()] if config is None else [config]


def _unknown(name: str, places: Sequence[str], known: Sequence[str]) -> UsageError:
    if not places:
        return UsageError(
            f"{name!r} is no URL, and there is no configuration file here that could name such a server",
            hint=f"Write a URL, a command in quotes, or --config FILE (looked for: {', '.join(PLACES)})",
        )
    close = close_to(name, known)
    question = "" if close is None else f"Did you mean {close!r}? "
    listed = ", ".join(known) or "none"
    return UsageError(f"there is no server {name!r} in {', '.join(places)}", hint=f"{question}The servers: {listed}")


def _ask(definition: Mapping[str, Any]) -> str | None:
    """Ask on the terminal for an input of VS Code."""
    import click

    text = str(definition.get("description") or definition.get("id"))
    hidden = definition.get("password") is True
    choices = [str(members_of(each).get("value", each)) for each in items_of(definition.get("options"))]
    answer: str = click.prompt(
        text,
        default=definition.get("default"),
        type=click.Choice(choices) if choices else None,
        hide_input=hidden,
        show_default=not hidden,
        err=True,
    )
    return answer


def configured_names(config: str | None) -> Sequence[str]:
    """The names of all servers of the file ``config``, or of the first of ``PLACES``. Raises ``UsageError``."""
    places = _places(config)
    if not places:
        looked_for = ", ".join(PLACES)
        raise UsageError("there is no target", hint=f"Write one, or --config FILE (looked for: {looked_for})")
    return list_servers(places[0])
