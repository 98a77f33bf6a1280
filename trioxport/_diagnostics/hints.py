"""Suggestions for a word that is not known, or a target without its scheme."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from typing import Final, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d+)(?P<path>/.*)?", re.DOTALL)
_SITE: Final = re.compile(r"[\w-]+(\.[\w-]+)+/\S*")
_LOCAL: Final = ("localhost", "[::1]", "127.")


def close_to(unknown: str, known: Iterable[str]) -> str | None:
    """The known word that is most like the unknown one, if any is."""
    return next(iter(difflib.get_close_matches(unknown, list(known), n=1)), None)


def whole_target(target: str) -> str | None:
    """A hint with the scheme that a target probably lacks; None for text that looks like nothing known.

    Args:
        target: The target as it may be shown, without its secrets.
    """
    if found := _ADDRESS.fullmatch(target):
        web = "http" if found["host"].startswith(_LOCAL) else "https"
        stream = f"tcp://{found['host']}:{found['port']}"
        if found["path"]:
            return f"Did you mean {web}://{target}, or {stream}?"
        return f"Did you mean {stream}, or {web}://{target}/mcp?"
    if target.startswith(("/", "./", "../")) and " " not in target:
        return f"Did you mean unix://{target}, or stdio:{target}?"
    if _SITE.fullmatch(target):
        return f"Did you mean https://{target}?"
    if " " in target:
        return f"A command to run is written stdio:{target}"
    return None


def names_options(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Have a call with an option that ``function`` does not have say which ones there are, and which was meant."""
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


REQUIREMENTS: Final = {
    "brotli": "brotli>=1.2",
    "http2": "h2>=4.2",
    "mcp": "mcp>=2.3",
    "otel": "opentelemetry-api>=1.31",
    "validation": "jsonschema-rs>=0.60",
    "zstd": "backports.zstd>=1.0",
}


def install_hint(extra: str) -> str:
    """A hint to install the extra's requirement by its own name, which does not need a release of this distribution."""
    return f"Install it: pip install '{REQUIREMENTS[extra]}', which is what the extra {extra} of trioxport brings"
