"""Servers in the user's modules and files, by ``MODULE:NAME`` or ``FILE.py:NAME``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from inspect import isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import trioxport
from trioxport import UsageError
from trioxport._diagnostics.hints import close_to
from trioxport.running.program import is_server

USUAL_NAMES: Final = ("server", "mcp", "app", "handler")
"""The names that are looked for, in this order, when none is given."""
_PLAIN_DATA: Final = ("bool", "bytes", "dict", "float", "int", "list", "str")
"""The annotations of arguments that are no connection."""
_OWN_FOLDER: Final = str(Path(trioxport.__file__).parent)


def load_server(reference: str) -> Any:
    """Import the server that ``reference`` names.

    Args:
        reference: ``MODULE:NAME`` or ``FILE.py:NAME``; the name may have dots, and may be missing.

    Raises:
        UsageError: There is no such module, file or name; the module cannot be imported, and its traceback is on
            standard error; or the object is no server.
    """
    place, name = _split(reference)
    module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    return _named(module, name, place) if name else _usual(module, place)


def _split(reference: str) -> tuple[str, str]:
    place, colon, name = reference.rpartition(":")
    if not colon or reference.endswith(".py"):
        return reference, ""
    if not place:
        raise UsageError(f"{reference!r} names no module", hint="Write MODULE:NAME or FILE.py:NAME")
    return place, name


def _from_module(name: str) -> ModuleType:
    _look_in(Path.cwd())
    return _imported(lambda: importlib.import_module(name), name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint=f"It is looked for in {Path.cwd()}")
    _look_in(path.resolve().parent)
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_file"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[name] = module

    def load() -> ModuleType:
        loader.exec_module(module)
        return module

    return _imported(load, str(path))


def _look_in(folder: Path) -> None:
    """Import modules from ``folder`` first, as Python does for a program that is there."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(load: Callable[[], ModuleType], place: str) -> ModuleType:
    try:
        return load()
    except ModuleNotFoundError as error:
        if error.name is not None and f"{place}.".startswith(f"{error.name}."):
            hint = "It is looked for in the current folder, and among the packages of this Python"
            raise UsageError(f"there is no module {error.name!r}", hint=hint) from None
        _show(error)
        reason = str(error)
    except Exception as error:
        _show(error)
        reason = type(error).__name__
    raise UsageError(f"{place} cannot be imported: {reason}", hint="Its error is above")


def _show(error: Exception) -> None:
    """Print the traceback, from the first frame of the user's own code on."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


def _is_ours(file: str) -> bool:
    return file.startswith(("<frozen importlib", _OWN_FOLDER, importlib.__file__))


def _named(module: ModuleType, name: str, place: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            close = close_to(name, _servers_in(module))
            question = "" if close is None else f"Did you mean {close!r}? "
            raise UsageError(f"{place} has no {name!r}", hint=f"{question}{_listed(module)}")
        found = getattr(found, part)
    if not _can_be_served(found):
        hint = f"A server is an MCPServer, a Server of the SDK, a FastMCP server, or an async function that takes a \
connection. {_listed(module)}"
        kind = f"of the type {type(found).__name__}"
        if is_server(found) and not isinstance(found, type):
            kind = f"a function of other arguments than a connection: {signature(found)}"
        raise UsageError(f"{place}:{name} is no server, but {kind}", hint=hint)
    return found


def _usual(module: ModuleType, place: str) -> Any:
    for name in USUAL_NAMES:
        if _can_be_served(getattr(module, name, None)):
            return getattr(module, name)
    names = ", ".join(USUAL_NAMES)
    raise UsageError(f"{place} has no server by a usual name ({names})", hint=f"Write {place}:NAME. {_listed(module)}")


def _servers_in(module: ModuleType) -> list[str]:
    """The names of the servers in a module: those of an SDK, then handlers; of functions, those that it defines."""
    found = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and _can_be_served(value) and _is_own(value, module)
    }
    return sorted(found, key=lambda name: callable(found[name]))


def _is_own(value: object, module: ModuleType) -> bool:
    return not isfunction(value) or value.__module__ == module.__name__


def _can_be_served(value: object) -> bool:
    """Whether a value is a server, and neither a class nor a function of other arguments, such as a tool."""
    if isinstance(value, type) or not is_server(value):
        return False
    return not callable(value) or _takes_a_connection(value)


def _takes_a_connection(function: Callable[..., object]) -> bool:
    """Whether a function can be called with one argument, and does not say that it is plain data."""
    arguments = signature(function)
    try:
        [only] = arguments.bind(None).arguments
    except TypeError:
        return False
    kind = arguments.parameters[only].annotation
    return getattr(kind, "__name__", kind) not in _PLAIN_DATA


def _listed(module: ModuleType) -> str:
    names = _servers_in(module)
    return f"Its servers: {', '.join(names)}" if names else "It has no servers"
