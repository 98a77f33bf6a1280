"""Checks of options: fields of config objects and arguments of functions are checked in the same way.

A value of a wrong type is a ``TypeError``, one that cannot work a ``UsageError``, and both name the option. Only
numbers are shown: any other value may be a secret that was passed in the wrong place.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import isasyncgenfunction, iscoroutine, isgeneratorfunction, signature
from typing import Any, Final, ParamSpec, TypeGuard, TypeVar, cast

import attrs

from trioxport._diagnostics.hints import close_to
from trioxport.errors import UsageError


class OptionCheck:
    """A validator for attrs; :meth:`option` is the same for an argument of a function.

    Args:
        what: The description of a valid value, as the object of a sentence.
        is_right_type: Whether a value is of the right type.
        is_possible: Whether a value of that type can work.
    """

    __slots__ = ("_is_possible", "_is_right_type", "_what")

    def __init__(
        self, what: str, is_right_type: Callable[[Any], bool], is_possible: Callable[[Any], bool] | None = None
    ) -> None:
        self._what = what
        self._is_right_type = is_right_type
        self._is_possible = is_possible

    def __call__(self, _config: Any, field: attrs.Attribute[Any], value: Any) -> None:
        self.option(field.alias or field.name, value)

    def option(self, name: str, value: object) -> None:
        """Raise ``TypeError`` or ``UsageError`` unless ``value`` is valid for the option ``name``."""
        if not self._is_right_type(value):
            raise TypeError(f"{name} has to be {self._what}, and is {kind_of(value)}")
        if self._is_possible is not None and not self._is_possible(value):
            raise UsageError(f"{name} has to be {self._what}, and is {value if _is_number(value) else 'another'}")

    def or_none(self) -> OptionCheck:
        """The same for an option that may be None."""
        is_possible = self._is_possible
        return OptionCheck(
            f"{self._what}, or None",
            lambda value: value is None or self._is_right_type(value),
            None if is_possible is None else lambda value: value is None or is_possible(value),
        )


class _TextByName(OptionCheck):
    """The check of headers, variables and the like; its error names the member that is wrong."""

    __slots__ = ()

    def option(self, name: str, value: object) -> None:
        super().option(name, value)
        for key, text in cast("Mapping[Any, Any]", value).items() if value is not None else ():
            if not isinstance(key, str) or not isinstance(text, str):
                unset = " (is a variable of the environment not set?)" if text is None else ""
                raise TypeError(f"{name}[{key!r}] has to be a text, and is {kind_of(text)}{unset}")

    def or_none(self) -> OptionCheck:
        return _TextByName(f"{self._what}, or None", lambda value: value is None or isinstance(value, Mapping))


def kind_of(value: object) -> str:
    """The kind of a value, for an error that must not show the value."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}: pass an object of it, {value.__name__}(...)"
    if iscoroutine(value):
        return "a coroutine: pass the function itself, without calling it"
    if isgeneratorfunction(value) or isasyncgenfunction(value):
        return "a generator: it has a yield"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def instance_of(kind: type[Any], what: str) -> OptionCheck:
    """The check for an object of one class, described by ``what``."""
    return OptionCheck(what, lambda value: isinstance(value, kind))


def one_of(*values: str) -> OptionCheck:
    """The check for one of some words."""
    return OptionCheck(
        f"one of {', '.join(map(repr, values))}", lambda value: isinstance(value, str), lambda value: value in values
    )


def number_between(least: float, most: float) -> OptionCheck:
    """The check for a number from ``least`` to ``most``."""
    return OptionCheck(f"a number from {least:g} to {most:g}", _is_number, lambda value: least <= value <= most)


def whole_between(least: int, most: int) -> OptionCheck:
    """The check for a whole number from ``least`` to ``most``."""
    return OptionCheck(f"a whole number from {least} to {most}", _is_whole, lambda value: least <= value <= most)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_async_function(value: object) -> bool:
    """Whether it may be one: a plain function can return a coroutine."""
    return (
        callable(value)
        and not isinstance(value, type)
        and not isgeneratorfunction(value)
        and not isasyncgenfunction(value)
    )


def are_words(value: object) -> bool:
    """Whether it is a list of texts; a text, which iterates over its characters, is none."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, str | bytes)
        and all(map(_is_path, cast("Iterable[object]", value)))
    )


NUMBER_ABOVE_0: Final = OptionCheck("a finite number above 0", _is_number, lambda value: 0 < value < math.inf)
SECONDS: Final = OptionCheck("a number of seconds above 0", _is_number, lambda value: value > 0)
SECONDS_OR_0: Final = OptionCheck("a number of seconds, 0 or above", _is_number, lambda value: value >= 0)
WHOLE: Final = OptionCheck("a whole number", _is_whole)
COUNT: Final = OptionCheck("a whole number of at least 1", _is_whole, lambda value: value >= 1)
COUNT_OR_0: Final = OptionCheck("a whole number of at least 0", _is_whole, lambda value: value >= 0)
PORT: Final = whole_between(0, 65535)
FLAG: Final = OptionCheck("True or False", lambda value: isinstance(value, bool))
TEXT: Final = OptionCheck("a text", lambda value: isinstance(value, str))
PATH: Final = OptionCheck("a path", _is_path)
WORDS: Final = OptionCheck("a list of texts", are_words)
TEXT_BY_NAME: Final[OptionCheck] = _TextByName("a mapping of texts", lambda value: isinstance(value, Mapping))
FUNCTION: Final = OptionCheck("a function", callable)
ASYNC_FUNCTION: Final = OptionCheck("an async function", _is_async_function)

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def names_options(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Decorate ``function`` so that the ``TypeError`` for an unknown option names the known ones and a similar one."""
    known = [name for name, each in signature(function).parameters.items() if each.kind is each.KEYWORD_ONLY]
    names = frozenset(signature(function).parameters)

    @wraps(function)
    def call(*args: Parameters.args, **options: Parameters.kwargs) -> Returned:
        for name in options:
            if name not in names:
                close = close_to(name, known)
                question = "." if close is None else f", did you mean {close!r}?"
                raise TypeError(f"{function.__name__} has no option {name!r}{question} Its options: {', '.join(known)}")
        return function(*args, **options)

    return call
