"""Descriptions of arguments that cannot be used, without their contents: those can be secrets."""

from __future__ import annotations


def kind_of(value: object) -> str:
    """What an argument is: ``"None"``, ``"a str"``, ``"the class Bearer"``."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
