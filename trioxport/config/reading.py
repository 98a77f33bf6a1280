"""Read a configuration: JSON with comments and trailing commas, TOML, or a mapping, and find its servers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import attrs

from trioxport.config.problems import Findings
from trioxport.protocol import items_of, members_of

_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[}\]])', re.DOTALL)
TABLES: Final = ("mcpServers", "servers", "context_servers", "mcp_servers")
_EDITOR_FOLDERS: Final = frozenset(
    (
        *(".vscode", ".cursor", ".roo", ".gemini", ".codex", ".zed", ".kilocode", ".github", ".windsurf"),
        *(".amazonq", ".opencode"),
    )
)
STRICT_MARK: Final = "trioxport"


@attrs.frozen
class Document:
    """A configuration as it was read.

    Args:
        servers: The entries of the servers, by name.
        inputs: The ``inputs`` of VS Code, by id.
        folder: The folder of the workspace, which relative paths start at.
        strict: Whether unknown fields are problems in all servers.
    """

    servers: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Any]]
    folder: Path
    strict: bool


def read(source: str | os.PathLike[str] | Mapping[str, Any], findings: Findings) -> Document | None:
    """The document of a path or a mapping; None if it cannot be read, which is then a problem."""
    if isinstance(source, Mapping):
        return _document(dict(source), Path.cwd(), findings)
    path = Path(source)
    content = _content(path, findings)
    if content is None:
        return None
    folder = path.absolute().parent
    return _document(content, folder.parent if folder.name in _EDITOR_FOLDERS else folder, findings)


def _content(path: Path, findings: Findings) -> Any:
    if path.suffix.lower() in {".yaml", ".yml"}:
        findings.add("", "", "YAML is not read", "Load it with a YAML library, and pass the mapping")
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        findings.add("", "", f"the file cannot be read: {error.strerror}", "Check its path and permissions")
        return None
    except UnicodeDecodeError:
        findings.add("", "", "the file is not UTF-8", "Save it as UTF-8")
        return None
    return _toml(text, findings) if path.suffix.lower() == ".toml" else _json(text, findings)


def _toml(text: str, findings: Findings) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)", str(error))
        findings.add("", "", f"the file is not TOML {place[0] if place else ''}".rstrip(), "Correct it there")
    return None


def _json(text: str, findings: Findings) -> Any:
    import json

    def kept(token: re.Match[str]) -> str:
        return token[0] if token[0][0] == '"' else re.sub(r"[^\n]", " ", token[0])

    try:
        return json.loads(_JSON_TOKEN.sub(kept, text))
    except json.JSONDecodeError as error:
        findings.add("", "", f"the file is not JSON: {error.msg} (line {error.lineno}, column {error.colno})")
    except RecursionError:
        findings.add("", "", "the file is nested too deeply")
    return None


def _document(content: Any, folder: Path, findings: Findings) -> Document | None:
    if not isinstance(content, dict):
        findings.add("", "", "the file holds no object", 'Write {"mcpServers": {"NAME": {...}}}')
        return None
    found = cast("dict[str, Any]", content)
    holder = found.get("mcp") if isinstance(found.get("mcp"), dict) else found
    table = _table(found, cast("dict[str, Any]", holder))
    servers = _by_name(table, findings)
    if servers is None:
        return None
    inputs = [members_of(each) for each in items_of(cast("dict[str, Any]", holder).get("inputs"))]
    by_id = {str(each["id"]): each for each in inputs if "id" in each}
    return Document(servers, by_id, folder, STRICT_MARK in found or STRICT_MARK in str(found.get("$schema", "")))


def _table(content: dict[str, Any], holder: dict[str, Any]) -> Any:
    """The table of the servers: under one of its usual names, or else the whole file if that looks like one."""
    for place in (content, holder):
        for name in TABLES:
            if name in place:
                return place[name]
    whole: dict[str, Any] = {name: entry for name, entry in holder.items() if isinstance(entry, dict)}
    return whole if any({"command", "url", "serverUrl", "httpUrl"} & set(entry) for entry in whole.values()) else None


def _by_name(table: Any, findings: Findings) -> Mapping[str, Any] | None:
    items: Any = table
    if isinstance(table, list):
        entries = [cast("dict[str, Any]", each) for each in items if isinstance(each, dict)]
        return {str(each.get("name", f"server {number}")): each for number, each in enumerate(entries, 1)}
    if isinstance(table, dict):
        return cast("dict[str, Any]", table)
    findings.add("", "", "no table of servers was found", 'Write {"mcpServers": {"NAME": {...}}}')
    return None
