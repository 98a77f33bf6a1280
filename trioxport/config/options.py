"""Structure the tables of a configuration into layers, policies, credentials and options, by cattrs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from inspect import get_annotations, signature
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

import attrs

from trioxport._diagnostics.hints import close_to
from trioxport.config.problems import Findings
from trioxport.errors import TransportError

if TYPE_CHECKING:
    from cattrs import Converter

LAYERS: Final = (
    *(
        "Batching",
        "CircuitBreaker",
        "Compression",
        "Encryption",
        "Logging",
        "Metrics",
        "RateLimit",
        "Retry",
        "Signing",
        "Tap",
    ),
    *("Timeout", "Tracing", "Validation"),
)
_CODE_ONLY: Final = frozenset(
    (
        *("is_failure", "on_transition", "random", "when", "meter_provider", "tracer_provider", "propagator"),
        *("schemas", "context", "ssl_context", "client", "verify", "rate", "hosts", "origins", "trusted_proxies"),
        *("max_connections", "url", "headers", "auth", "tls", "command", "args", "env", "cwd", "host", "port", "path"),
    )
)
"""Options that a file cannot hold, or has in another place."""
_REPLACED: Final = {"to": str, "stderr": str, "keys": Mapping[str, bytes], "password": str | None}
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def snake(name: str) -> str:
    """A name in camel case or with hyphens, as Python has it."""
    return _HUMP.sub("_", name).replace("-", "_").lower()


@cache
def layer_class(name: str) -> Any:
    """The class of a layer."""
    from importlib import import_module

    return getattr(import_module("trioxport.layers"), name)


def options_of_class(kind: type[Any]) -> Mapping[str, Any]:
    """The options of a class that a file can hold, with their types."""
    from trioxport.layers import Rate

    names = [field.alias for field in attrs.fields(kind) if field.init and field.alias not in _CODE_ONLY]
    found: dict[str, Any] = {}
    for name in names:
        if kind.__name__ == "RateLimit" and name in {"send", "receive"}:
            found[name] = Rate | None
        else:
            found[name] = _REPLACED.get(name) or _type_of(kind, name)
    return found


def _type_of(kind: type[Any], name: str) -> Any:
    """The type of one field; the modules that only type checkers import are not needed for the others."""
    for owner in kind.__mro__:
        if name in get_annotations(owner):
            holder = type("Holder", (), {"__annotations__": {name: get_annotations(owner)[name]}})
            holder.__module__ = owner.__module__
            return get_type_hints(holder)[name]
    raise AssertionError(name)


@cache
def converter() -> Converter:
    """The converter for values of files: numbers and truth values may come as texts, from references."""
    from cattrs import Converter

    made = Converter()
    made.register_structure_hook(str, _text)
    made.register_structure_hook(bytes, lambda value, _: _text(value, str).encode())
    made.register_structure_hook(bool, _truth)
    made.register_structure_hook(int, lambda value, _: _number(value, int))
    made.register_structure_hook(float, lambda value, _: _number(value, float))
    return made


def _text(value: Any, _kind: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _truth(value: Any, _kind: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[_text(value, str).lower()]


def _number(value: Any, kind: type[Any]) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = kind(value)
    if isinstance(value, float) and number != value:
        raise ValueError
    return number


def kind_name(kind: Any) -> str:
    """The description of a type for the reader of an error."""
    plain = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", bytes: "a text"}
    if kind in plain:
        return plain[kind]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(kind_name(each) for each in get_args(kind) if each is not type(None))
    return "a table" if attrs.has(kind) or get_origin(kind) in (dict, Mapping) or "Mapping" in str(kind) else "a list"


class Structurer:
    """Structures the tables of one server; each failure is a problem of its field.

    Args:
        server: The name of the server.
    """

    def __init__(self, server: str, findings: Findings) -> None:
        self._server = server
        self._findings = findings

    def add(self, field: str, reason: str, hint: str | None = None) -> None:
        self._findings.add(self._server, field, reason, hint)

    def value(self, value: Any, kind: Any, field: str) -> Any:
        """``value`` as ``kind``; None, and a problem, if it is not one."""
        classes = [each for each in get_args(kind) if attrs.has(each)] if not attrs.has(kind) else [kind]
        if classes and not (value is None and type(None) in get_args(kind)):
            return self.table(value, classes[0], field)
        if isinstance(value, str) and ("Sequence" in str(kind) or "tuple" in str(kind)):
            self.add(field, "this is a text, and has to be a list of texts", "Write it in [ ]")
            return None
        try:
            return converter().structure(value, kind)
        except Exception:
            failed = True  # what cattrs says quotes the value
        if failed:
            self.add(field, f"this is {_is(value)}, and has to be {kind_name(kind)}", "Correct the value")
        return None

    def table(self, value: Any, kind: type[Any], field: str) -> Any:
        """A table as an object of an attrs class; None, and problems, if it cannot be one."""
        if not isinstance(value, Mapping):
            self.add(field, f"this is {_is(value)}, and has to be a table", f"The fields: {_listed(kind)}")
            return None
        options = self.options(cast("Mapping[str, Any]", value), kind, field)
        return None if options is None else self.made(kind, options, field)

    def options(self, value: Mapping[str, Any], kind: type[Any], field: str) -> dict[str, Any] | None:
        """The members of a table as options of ``kind``; None, and problems, if one is wrong."""
        known = options_of_class(kind)
        found: dict[str, Any] = {}
        complete = True
        for given, each in value.items():
            name = snake(given)
            place = f"{field}.{given}"
            if name not in known:
                close = close_to(name, known)
                question = "" if close is None else f"Did you mean {close!r}? "
                self.add(place, "there is no such option", f"{question}The options: {_listed(kind)}")
                complete = False
                continue
            found[name] = self.value(each, known[name], place)
            complete = complete and (found[name] is not None or each is None)
        return found if complete else None

    def made(self, make: Callable[..., Any], options: Mapping[str, Any], field: str, *args: Any) -> Any:
        """The object that ``make`` returns; None, and a problem, if it refuses the options."""
        try:
            signature(make).bind(*args, **options)
        except TypeError as error:
            self.add(field, str(error), "Add what is missing")
            return None
        try:
            return make(*args, **options)
        except TransportError as error:
            reason, hint = error.reason, error.hint
        except (TypeError, ValueError) as error:
            reason, hint = str(error), None
        self.add(field, reason, hint or "Correct the value")
        return None


def _is(value: object) -> str:
    names: dict[type[object], str] = {
        dict: "a table",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number" if isinstance(value, int | float) else "of another kind")


def _listed(kind: type[Any]) -> str:
    return ", ".join(options_of_class(kind)) or "none"
