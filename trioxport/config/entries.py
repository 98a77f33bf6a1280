"""The entries of servers: the fields of the known clients under one name, checked and structured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from trioxport._diagnostics.hints import close_to
from trioxport.config.options import snake
from trioxport.config.problems import Findings
from trioxport.protocol import items_of, members_of

OWN: Final = (
    *("layers", "reconnect", "limits", "auth", "tls", "options", "connect_timeout", "close_timeout"),
    "allow_plaintext",
)
SHARED: Final = ("command", "args", "env", "env_file", "cwd", "type", "url", "headers", "timeout", "disabled")
FIELDS: Final = (*SHARED, *OWN)
ALIASES: Final = {
    "server_url": "url",
    "http_url": "url",
    "endpoint": "url",
    "transport": "type",
    "transport_type": "type",
    "environment": "env",
    "http_headers": "headers",
    "working_directory": "cwd",
    "tool_timeout_sec": "timeout",
    "timeout_ms": "timeout",
    "startup_timeout_sec": "connect_timeout",
    "startup_timeout_ms": "connect_timeout",
    "init_timeout": "connect_timeout",
    "connection_timeout": "connect_timeout",
}
"""The names that clients have for the same: Windsurf, Gemini CLI, FastMCP, opencode, Codex, LibreChat, Continue."""
FOREIGN: Final = frozenset(
    (
        *("always_allow", "auto_approve", "disabled_tools", "enabled_tools", "include_tools", "exclude_tools", "trust"),
        *("description", "name", "icon", "icon_path", "gallery", "version", "dev", "sandbox", "sandbox_enabled"),
        *("server_instructions", "custom_user_vars", "requires_o_auth", "requires_oauth", "oauth", "chat_menu"),
        *("watch_paths", "source", "settings", "remote", "tools", "required", "scopes", "oauth_resource"),
        *("env_vars", "supports_parallel_tool_calls", "experimental_environment"),
        *("startup", "fetch", "proxy", "auth_provider_type", "headers_helper", "always_load", "authentication", "tags"),
        *("default_tools_approval_mode", "provider", "provider_url", "logo_url", "long_running", "registry_url"),
        *("is_active", "enabled", "bearer_token_env_var", "env_http_headers", "request_options", "disabled_reason"),
    )
)
TRANSLATED: Final = frozenset(
    ("is_active", "enabled", "bearer_token_env_var", "env_http_headers", "env_vars", "request_options")
)
"""Those of them that are expressed by other fields."""
_MILLISECONDS: Final = frozenset({"timeout_ms", "startup_timeout_ms", "init_timeout", "connection_timeout"})
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_PLAIN_SECONDS: Final = 3600
"""The greatest ``timeout`` without a unit that is read as seconds, as Cline and Roo Code do, whose longest it is.
Greater ones are milliseconds: Claude Code, Gemini CLI and LibreChat."""


def normalize(
    name: str, entry: Mapping[str, Any], strict: bool, environment: Mapping[str, str], findings: Findings
) -> dict[str, Any]:
    """The fields of an entry under their own names; the others become notes, or problems in a strict file.

    They are problems too in an entry without a command and a URL, one of which is probably misspelt.
    """
    found: dict[str, Any] = {}
    names = {snake(given) for given in entry}
    has_target = not {"command", "url"}.isdisjoint(ALIASES.get(name, name) for name in names)
    strict = strict or not (has_target or "disabled" in names) or not names.isdisjoint({*OWN} - {"auth"})
    for given, value in entry.items():
        field = snake(given)
        target = ALIASES.get(field, field)
        if field == "auth" and _is_oauth(value):
            findings.note(name, given, "OAuth is left out", "Pass credentials in the target, or a token as auth")
        elif target in FIELDS:
            if target in found:
                findings.add(name, given, f"this sets {target!r} once more", "Keep one of the two")
            findings.rename(name, target, given)
            found[target] = _milliseconds(value) if field in _MILLISECONDS else value
        elif field in FOREIGN:
            if field not in TRANSLATED:
                findings.note(name, given, "this setting of another client is left out")
        else:
            _unknown(name, given, strict, findings)
    fields = {snake(given): value for given, value in entry.items()}
    _translate(fields, found)
    _pass_on(fields.get("env_vars"), environment, found)
    return found


def _is_oauth(value: Any) -> bool:
    """Whether ``auth`` asks for OAuth: as a word (FastMCP), or by the client's registration (Cursor)."""
    return value == "oauth" or (isinstance(value, dict) and "CLIENT_ID" in value)


def _unknown(name: str, given: str, strict: bool, findings: Findings) -> None:
    close = close_to(snake(given), FIELDS)
    question = "" if close is None else f"Did you mean {close!r}? "
    add = findings.add if strict else findings.note
    add(name, given, "this field is not known", f"{question}The fields: {', '.join(FIELDS)}")


def _milliseconds(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value}ms" if is_number else value


def _translate(entry: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Add what clients express by fields of another shape."""
    for field in ("enabled", "is_active"):
        if isinstance(entry.get(field), bool):
            found.setdefault("disabled", not entry[field])
    command = found.get("command")
    if isinstance(command, dict):  # Zed, formerly
        found.pop("command")
        found.update(
            {"command" if key == "path" else key: each for key, each in cast("dict[str, Any]", command).items()}
        )
    elif isinstance(command, list) and command:  # opencode
        words = items_of(cast("object", command))
        found["command"], found["args"] = words[0], [*words[1:], *found.get("args", [])]
    if isinstance(variable := entry.get("bearer_token_env_var"), str):  # Codex
        found.setdefault("auth", {"type": "bearer", "token": f"${{{variable}}}"})
    if isinstance(variables := entry.get("env_http_headers"), dict):
        headers = {key: f"${{{each}}}" for key, each in cast("dict[str, Any]", variables).items()}
        found["headers"] = {**headers, **found.get("headers", {})}
    if isinstance(request := entry.get("request_options"), dict):  # Continue
        found.setdefault("headers", cast("dict[str, Any]", request).get("headers", {}))


def _pass_on(variables: Any, environment: Mapping[str, str], found: dict[str, Any]) -> None:
    """Pass on the variables that Codex names; one that is not set stays so."""
    names = [members_of(each).get("name", each) for each in items_of(variables)]
    passed = {name: f"${{{name}}}" for name in names if isinstance(name, str) and name in environment}
    if passed:
        found["env"] = {**passed, **members_of(found.get("env"))}


def seconds(value: Any, server: str, field: str, findings: Findings) -> float | None:
    """A duration in seconds: ``"30s"``, ``"500ms"``, or a number. None, and a problem, if it is none."""
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    number = _plain(value, server, field, findings) if found is None else float(found[1]) * _UNIT_SECONDS[found[2]]
    if number is None or not 0 < number < math.inf:
        hint = 'Write "30s" or "500ms"; a number up to 3600 is seconds, a greater one milliseconds'
        findings.add(server, field, "this is no duration above 0", hint)
        return None
    return number


def _plain(value: Any, server: str, field: str, findings: Findings) -> float | None:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    if 1000 <= number <= MAX_PLAIN_SECONDS:
        findings.note(server, field, "this is read as seconds", 'Write the unit, as in "1500ms"')
    return number if number <= MAX_PLAIN_SECONDS else number / 1000
