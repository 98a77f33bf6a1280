"""Load the servers of a configuration."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast

from trioxport._layering import split_layers
from trioxport.abc import Layer
from trioxport.config.building import build_layers, build_target
from trioxport.config.entries import normalize, seconds
from trioxport.config.options import Structurer
from trioxport.config.problems import Findings, config_error
from trioxport.config.reading import Document, read
from trioxport.config.references import Ask, References
from trioxport.config.server import ConfiguredTarget, ServerConfig, ServerConfigs
from trioxport.frames import Limits
from trioxport.targets import describe, redact_command, redact_url
from trioxport.transports.reconnecting import Reconnect

LONGEST_SECONDS: Final = 600.0
"""Seconds that a request may take in all if its ``timeout``, which progress prolongs, is not longer."""


def load_servers(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    names: Collection[str] | None = None,
    ask: Ask | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServerConfigs:
    """Load the servers of a configuration file, or of a mapping of the same shape.

    Args:
        source: The path of a JSON or TOML file, or a mapping.
        names: The servers to load, so that the problems of others do not matter; None for all.
        ask: A function that returns the value of an input of VS Code, given its definition; None for its default.
        environment: The variables that references name; by default those of this process.

    Raises:
        ConfigError: The configuration has problems; it lists all of them, and shows no secret.
    """
    findings = Findings()
    variables = os.environ if environment is None else environment
    document = read(source, findings)
    servers = ServerConfigs()
    if document is not None:
        references = References(variables, document.folder, document.inputs, ask, findings)
        for name, entry in document.servers.items():
            if names is not None and name not in names:
                continue
            server = _load(name, entry, document, references, variables, findings)
            if server is not None:
                servers[name] = server
    if findings.problems:
        raise config_error(findings.problems, None if isinstance(source, Mapping) else os.fspath(source))
    servers.notes = findings.notes
    return servers


def list_servers(source: str | os.PathLike[str] | Mapping[str, Any]) -> Sequence[str]:
    """The names of the servers of a configuration, whose entries are not looked at.

    Raises ``ConfigError`` if the configuration cannot be read.
    """
    findings = Findings()
    document = read(source, findings)
    if document is None:
        raise config_error(findings.problems, None if isinstance(source, Mapping) else os.fspath(source))
    return list(document.servers)


def _load(
    name: str,
    raw: Any,
    document: Document,
    references: References,
    variables: Mapping[str, str],
    findings: Findings,
) -> ServerConfig | None:
    if not isinstance(raw, dict):
        findings.add(name, "", "the server is no table", 'Write {"command": ...} or {"url": ...}')
        return None
    entry = normalize(name, cast("dict[str, Any]", raw), document.strict, variables, findings)
    structurer = Structurer(name, findings)
    findings.hide_named(entry)
    disabled = structurer.value(entry.pop("disabled", False), bool, "disabled")
    if disabled:
        return ServerConfig(name, ConfiguredTarget(name, None), disabled=True, notes=_notes(name, findings))
    resolved = {field: references.resolve(value, name, field) for field, value in entry.items()}
    findings.hide_named(resolved)
    transport = build_target(resolved, document.folder, structurer)
    if transport is not None:
        transport = ConfiguredTarget(
            findings.shown(_description(transport, entry, references)), transport, findings.referenced(name)
        )
    return _assembled(name, resolved, transport, structurer, findings)


def _description(transport: Any, entry: Mapping[str, Any], references: References) -> str:
    """The description of a transport, without the values of references that are parts of its URL or command."""
    given = [entry["url"]] if entry.get("url") else [entry["command"], *map(str, entry.get("args") or ())]
    shown = list(map(references.shown, given))
    if shown == given:
        return describe(transport)
    if entry.get("url"):
        return redact_url(shown[0])
    return f"{str(transport).partition(':')[0]}:{redact_command(shown)}"


def _assembled(
    name: str,
    entry: Mapping[str, Any],
    target: ConfiguredTarget | None,
    structurer: Structurer,
    findings: Findings,
) -> ServerConfig | None:
    times = {
        field: seconds(entry[field], name, field, findings) if field in entry else None
        for field in ("timeout", "connect_timeout", "close_timeout")
    }
    layers = _layers(entry, times.pop("timeout"), structurer)
    limits = structurer.table(entry["limits"], Limits, "limits") if "limits" in entry else None
    reconnect = _reconnect(entry.get("reconnect"), structurer)
    plaintext = structurer.value(entry.get("allow_plaintext", False), bool, "allow_plaintext")
    if target is None:
        return None
    return ServerConfig(
        name,
        target,
        layers,
        reconnect,
        limits,
        connect_timeout=times["connect_timeout"],
        close_timeout=times["close_timeout"],
        allow_plaintext=bool(plaintext),
        notes=_notes(name, findings),
    )


def _notes(name: str, findings: Findings) -> tuple[Any, ...]:
    return tuple(note for note in findings.notes if note.server == name)


def _layers(entry: Mapping[str, Any], timeout: float | None, structurer: Structurer) -> tuple[Layer, ...]:
    """The layers of an entry; its ``timeout`` is one, below its other message layers."""
    from trioxport.layers import Timeout

    layers = build_layers(entry["layers"], structurer) if "layers" in entry else []
    if timeout is not None:
        if any(isinstance(layer, Timeout) for layer in layers):
            structurer.add("timeout", "the layer Timeout and this field say the same", "Keep one of the two")
        else:
            place = sum(layer.level == "message" for layer in layers)
            layers.insert(place, Timeout(timeout, max_seconds=max(LONGEST_SECONDS, timeout)))
    try:
        split_layers(layers)
    except TypeError as error:
        reason = str(error)
    else:
        return tuple(layers)
    structurer.add("layers", reason, "Order them: message layers, then frame layers")
    return ()


def _reconnect(value: Any, structurer: Structurer) -> Reconnect | None:
    """The policy: a table of its options, or true for those of the default."""
    if value in (None, False):
        return None
    found: Reconnect | None = structurer.table({} if value is True else value, Reconnect, "reconnect")
    return found
