"""The problems of a configuration file, collected and reported at once, without any secret of the file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote

import attrs

from trioxport._diagnostics.hiding import without
from trioxport._diagnostics.secret_names import is_secret_name
from trioxport.errors import UsageError
from trioxport.protocol import items_of

_PATH: Final = re.compile(r"[.\[]")
_CUT: Final = re.compile(r"[\s?#]+")
_SECRET_TABLES: Final = frozenset({"env", "headers", "auth", "keys"})
_PLAIN: Final = frozenset({"true", "false", "null", "Bearer", "Basic"})
MIN_SECRET_CHARACTERS: Final = 4
"""Characters of a text from which on it is hidden wherever it occurs: a shorter one is part of too many words."""


@attrs.frozen
class Problem:
    """One problem of a configuration.

    Args:
        server: The name of the server; empty if the problem is that of the whole file.
        field: The field, with dots between names, as ``"layers[0].attempts"``; empty for the whole server.
        reason: The reason, without its full stop.
        hint: The remedy.
    """

    server: str
    field: str
    reason: str
    hint: str | None = None

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.server, self.field) if part)
        text = f"{place}: {self.reason}" if place else self.reason
        return f"{text}. {self.hint}" if self.hint else text


class ConfigError(UsageError):
    """A configuration that cannot be used, with all of its problems.

    Args:
        problems: The problems, in the order of the file.
        target: The path of the file.
    """

    def __init__(self, reason: str, *, problems: Sequence[Problem] = (), target: str | None = None) -> None:
        super().__init__(reason, target=target)
        self.problems = tuple(problems)


def config_error(problems: Sequence[Problem], source: str | None) -> ConfigError:
    """The error that reports ``problems``, one a line."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"the configuration has {count}:{lines}", problems=problems, target=source)


class Findings:
    """The problems and notes of a configuration while it is read, and the texts that neither may show."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._notes: list[Problem] = []
        self._secrets: set[str] = set()
        self._referenced: dict[str, set[str]] = {}
        self._given: dict[tuple[str, str], str] = {}
        self._unresolved: set[tuple[str, str]] = set()

    def hide(self, value: object) -> None:
        """Hide a text, or the texts in a list or mapping, wherever it occurs."""
        if isinstance(value, str):
            self._secrets.update(_forms(value))
        elif isinstance(value, dict | list):
            members: Any = cast("Any", value)
            for each in members.values() if isinstance(value, dict) else members:
                self.hide(each)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self.hide(str(value))

    def hide_reference(self, server: str, value: str) -> None:
        """Hide the value of a reference in a server, also while the server is used."""
        self._referenced.setdefault(server, set()).update(_forms(value))
        self.hide(value)

    def referenced(self, server: str) -> Collection[str]:
        """The values of the references in a server, as errors could quote them."""
        return frozenset(self._referenced.get(server, ()))

    def hide_named(self, table: Mapping[str, Any]) -> None:
        """Hide the values of a table, at any depth, that are named like secrets."""
        for name, value in table.items():
            if name in _SECRET_TABLES or is_secret_name(name):
                self.hide_members(value)
            elif isinstance(value, dict):
                self.hide_named(cast("dict[str, Any]", value))
            elif isinstance(value, list):
                for each in items_of(cast("object", value)):
                    if isinstance(each, dict):
                        self.hide_named(cast("dict[str, Any]", each))

    def hide_members(self, value: Any) -> None:
        """Hide a value, and all but the kind and the header of credentials."""
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            value = {name: each for name, each in members.items() if name not in {"type", "header"}}
        self.hide(value)

    def rename(self, server: str, field: str, given: str) -> None:
        """Show ``field`` under the name that the file gives it."""
        self._given[server, field] = given

    def add(self, server: str, field: str, reason: str, hint: str | None = None) -> None:
        """Add a problem, unless it follows from a reference without a value."""
        if (server, _PATH.split(field)[0]) not in self._unresolved:
            self._problems.append(Problem(server, self._as_given(server, field), reason, hint))

    def add_unresolved(self, server: str, field: str, reason: str, hint: str) -> None:
        """Add the problem of a reference without a value."""
        self._unresolved.add((server, _PATH.split(field)[0]))
        self._problems.append(Problem(server, self._as_given(server, field), reason, hint))

    def note(self, server: str, field: str, reason: str, hint: str | None = None) -> None:
        self._notes.append(Problem(server, self._as_given(server, field), reason, hint))

    def _as_given(self, server: str, field: str) -> str:
        top = _PATH.split(field)[0]
        return self._given.get((server, top), top) + field[len(top) :]

    @property
    def problems(self) -> Sequence[Problem]:
        return [self._shown(problem) for problem in self._problems]

    @property
    def notes(self) -> Sequence[Problem]:
        return [self._shown(note) for note in self._notes]

    def shown(self, text: str) -> str:
        """``text`` without the secrets."""
        return without(self._secrets, text)

    def _shown(self, problem: Problem) -> Problem:
        hint = None if problem.hint is None else self.shown(problem.hint)
        return attrs.evolve(problem, reason=self.shown(problem.reason), hint=hint)


def _forms(value: str) -> Iterator[str]:
    """A secret as texts can quote it: as it is, as Python and URLs write it, and its words, or its parts in a URL."""
    forms = {value, repr(value)[1:-1], quote(value), quote(value, safe=""), *_CUT.split(value)} - _PLAIN
    return (form for form in forms if len(form) >= MIN_SECRET_CHARACTERS)
