"""References in values: ``${VAR}``, ``${file:PATH}``, ``${keyring:SERVICE/USER}``, ``${input:ID}`` and the like."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias, cast
from urllib.parse import quote

from trioxport.config.problems import Findings
from trioxport.messages import HIDDEN
from trioxport.protocol import items_of

Ask: TypeAlias = Callable[[Mapping[str, Any]], str | None]
"""A function that returns the value of an input of VS Code, given its definition; None if there is no answer."""

_REFERENCE: Final = re.compile(r"\$?\$\{([^{}]*)\}|(?<!\$)\{((?:env|file):[^{}]*)\}")
"""The second form is that of opencode."""
_BARE: Final = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
"""A whole value of ``env`` or ``headers`` in the form of Gemini CLI."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER: Final = re.compile(r"(?P<before>[^:/?#]+://)(?P<user>(?:\$?\{[^{}]*\}|[^/?#{}])*)(?P<rest>@.*)", re.DOTALL)
"""A URL with user information; references may contain any character."""
_KINDS: Final = "${VAR}, ${VAR:-default}, ${env:VAR}, ${file:PATH}, ${keyring:SERVICE/USER} and ${input:ID}"


class _Unresolved(Exception):
    """A reference without a value: the reason, and the remedy."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class References:
    """The values of references. Each is looked up once, and hidden from then on.

    Args:
        environment: The variables.
        folder: The folder that paths are relative to.
        inputs: The definitions of inputs, by id.
        ask: The function that answers inputs, if there is one.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        inputs: Mapping[str, Mapping[str, Any]],
        ask: Ask | None,
        findings: Findings,
    ) -> None:
        self._environment = environment
        self._folder = folder
        self._inputs = inputs
        self._ask = ask
        self._findings = findings
        self._answers: dict[str, str] = {}

    def resolve(self, value: Any, server: str, field: str) -> Any:
        """``value`` with its references replaced, also inside lists and mappings."""
        if isinstance(value, str):
            if field.startswith(("env.", "headers.")) and (bare := _BARE.fullmatch(value)):
                return self._bare(bare, server, field)
            if field == "url" and (url := _USER.fullmatch(value)):
                user = self._texts(url["user"], server, field, quoted=True)
                return url["before"] + user + self._texts(url["rest"], server, field)
            return self._texts(value, server, field)
        if isinstance(value, list):
            items = items_of(cast("object", value))
            return [self.resolve(each, server, f"{field}[{number}]") for number, each in enumerate(items)]
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            return {name: self.resolve(each, server, f"{field}.{name}") for name, each in members.items()}
        return value

    def _texts(self, value: str, server: str, field: str, *, quoted: bool = False) -> str:
        """``value`` with its references replaced; ``quoted`` writes theirs as the user information of a URL."""

        def replaced(found: re.Match[str]) -> str:
            text = self._replaced(found, server, field)
            return quote(text, safe=":") if quoted else text

        return _REFERENCE.sub(replaced, value)

    def shown(self, value: str) -> str:
        """``value`` for a description: with ``***`` in place of each reference."""
        return _REFERENCE.sub(self._in_description, value)

    def _in_description(self, found: re.Match[str]) -> str:
        place = self._place(found[1] or found[2] or "")
        return found[0][1:] if found[0].startswith("$$") else HIDDEN if place is None else place

    def _bare(self, found: re.Match[str], server: str, field: str) -> str:
        """The value of a variable without braces; one that is not set may be meant as it stands."""
        if (value := self._environment.get(found[1])) is None:
            self._findings.note(server, field, f"the variable {found[1]} is not set, so this is a plain text")
            return found[0]
        self._findings.hide_reference(server, value)
        return value

    def _replaced(self, found: re.Match[str], server: str, field: str) -> str:
        if found[0].startswith("$$"):
            return found[0][1:]
        reference = found[1] or found[2] or ""
        if (place := self._place(reference)) is not None:
            return place
        try:
            value = self._value(reference)
        except _Unresolved as error:
            self._findings.add_unresolved(server, field, error.reason, error.hint)
            return "unresolved"  # a text that causes no further problem
        self._findings.hide_reference(server, value)
        return value

    def _place(self, name: str) -> str | None:
        """The place that a reference names, which is no secret."""
        places: dict[str, object] = {
            "workspaceFolder": self._folder,
            "workspaceRoot": self._folder,
            "workspaceFolderBasename": self._folder.name,
            "userHome": Path.home(),
            "cwd": Path.cwd(),
            "pathSeparator": os.sep,
            "/": os.sep,
        }
        return str(places[name]) if name in places else None

    def _value(self, reference: str) -> str:
        kind, colon, rest = reference.partition(":")
        looked_up = {"env": self._variable, "file": self._file, "keyring": self._keyring, "input": self._input}
        look_up = looked_up.get(kind) if colon and not rest.startswith("-") else None
        if look_up is None:
            look_up, rest = self._variable, reference
        return look_up(rest)

    def _variable(self, text: str) -> str:
        name, has_default, default = text.partition(":-")
        if not _VARIABLE.fullmatch(name):
            raise _Unresolved("a reference is of no known kind", f"The kinds are {_KINDS}; $${{...}} is a plain text")
        value = self._environment.get(name)
        if value or (value is not None and not has_default):
            return value
        if has_default:
            return default
        raise _Unresolved(f"the variable {name} is not set", f"Set it, or write ${{{name}:-default}}")

    def _file(self, name: str) -> str:
        path = self._folder / Path(name).expanduser()
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise _Unresolved(f"the file {path} cannot be read: {why}", "Check its path and permissions")

    def _keyring(self, text: str) -> str:
        service, slash, user = text.rpartition("/")
        if not (slash and service and user):
            raise _Unresolved("a keyring reference names no service and user", "Write ${keyring:SERVICE/USER}")
        try:
            keyring: Any = import_module("keyring")
        except ImportError:
            raise _Unresolved(
                "a keyring reference needs the package keyring", "Install it: pip install keyring"
            ) from None
        return _password(keyring, service, user)

    def _input(self, name: str) -> str:
        if name in self._answers:
            return self._answers[name]
        definition = self._inputs.get(name)
        if definition is None:
            raise _Unresolved(f"the input {name!r} is not defined", 'Add it to "inputs"')
        value = self._ask(definition) if self._ask is not None else None
        value = definition.get("default") if value is None else value
        if not isinstance(value, str):
            raise _Unresolved(f"the input {name!r} has no value", "Pass ask=, a function that returns it")
        self._answers[name] = value
        return value


def _password(keyring: Any, service: str, user: str) -> str:
    try:
        value = keyring.get_password(service, user)
    except Exception as error:  # a backend raises its own classes
        why = type(error).__name__
    else:
        if isinstance(value, str):
            return value
        raise _Unresolved(f"the keyring has no entry {service}/{user}", f"Add it: keyring set {service} {user}")
    raise _Unresolved(f"the keyring cannot be read: {why}", "Check that it is unlocked")
