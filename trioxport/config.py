"""Targets: what a URL means, which schemes there are, and how a target is described without its secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Final, TypeAlias, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import attrs

from trioxport.abc import Listener, Transport
from trioxport.errors import UsageError

Target: TypeAlias = str | Transport | Listener
"""A URL, a config object, or a transport."""

Factory: TypeAlias = Callable[[str], Transport | Listener]
"""Makes the config object of a URL."""

ENTRY_POINTS: Final = "trioxport.transports"

_BUILT_IN: Final = {
    "memory": "trioxport.transports.memory:Memory",
    "stdio": "trioxport.transports.stdio:stdio_from_url",
    "tcp": "trioxport.transports.stream:Tcp",
    "tls": "trioxport.transports.stream:Tls",
    "unix": "trioxport.transports.stream:Unix",
}

_registered: dict[str, Factory] = {}


def register_scheme(scheme: str, factory: Factory) -> None:
    """Make URLs of ``scheme`` targets: ``factory(url)`` returns what opens them, serves them, or both.

    A distribution does the same for whoever installs it with an entry point in the group ``trioxport.transports``,
    named like the scheme. Raises ``UsageError`` if the scheme is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise UsageError(f"{scheme!r} is no URL scheme", hint="Lower-case letters, digits, '+', '.' and '-'")
    if scheme in _BUILT_IN or scheme in _registered:
        raise UsageError(f"the scheme {scheme!r} is taken")
    _registered[scheme] = factory


def to_transport(target: Target) -> Transport:
    """What opens ``target``. Raises ``UsageError``."""
    found = _from_url(target) if isinstance(target, str) else target
    if not callable(found):
        raise UsageError("this target can be served, but not opened", target=describe(target))
    return found


def to_listener(target: Target) -> Listener:
    """What serves ``target``. Raises ``UsageError``."""
    found = _from_url(target) if isinstance(target, str) else target
    if not hasattr(found, "listen"):
        raise UsageError("this target can be opened, but not served", target=describe(target))
    return cast("Listener", found)


def _from_url(url: str) -> Transport | Listener:
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    factory = _registered.get(scheme) or _built_in(scheme) or _from_entry_point(scheme)
    if factory is None:
        raise UsageError(
            f"no transport for the scheme {scheme!r}" if scheme else "a target begins with a scheme and a colon",
            target=redact_url(url),
            hint=f"Known schemes: {', '.join(known_schemes())}. A command to run is written stdio:COMMAND",
        )
    return factory(url)


def known_schemes() -> list[str]:
    """The schemes that URLs can have here, built in, registered or installed."""
    return sorted({*_BUILT_IN, *_registered, *(point.name for point in _entry_points())})


def _built_in(scheme: str) -> Factory | None:
    where = _BUILT_IN.get(scheme)
    if where is None:
        return None
    module, _, name = where.partition(":")
    found = getattr(import_module(module), name)
    return cast("Factory", getattr(found, "from_url", found))


def _from_entry_point(scheme: str) -> Factory | None:
    for point in _entry_points():
        if point.name == scheme:
            return cast("Factory", point.load())
    return None


def _entry_points() -> metadata.EntryPoints:
    return metadata.entry_points(group=ENTRY_POINTS)


Options = TypeVar("Options")


def options_of(url: str, options: type[Options]) -> Options:
    """The query of a URL as an ``options`` object (an attrs class); ``UsageError`` names what is unknown or unfit."""
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if not query:
        return options()
    from cattrs import BaseValidationError, Converter, transform_error

    try:
        return Converter(forbid_extra_keys=True).structure(query, options)
    except BaseValidationError as error:
        raise UsageError("; ".join(transform_error(error)), target=redact_url(url)) from error


_SECRET_NAME: Final = re.compile(
    r"pass(word|phrase|wd)?|secret|token|api[-_]?key|access[-_]?key|credential|auth|bearer|signature", re.IGNORECASE
)


def redact_url(url: str) -> str:
    """The URL without password and without the values of query members that are named like a secret."""
    scheme, _, command = url.partition(":")
    if scheme.lower() == "stdio":
        return f"{scheme}:{redact_command(command.split(' '))}"
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.username
    netloc = f"{user}:***@{host}" if user and parts.password is not None else parts.netloc
    query = "&".join(map(_redact_member, parts.query.split("&")))
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def redact_command(words: Sequence[str]) -> str:
    """A command line without the values of options that are named like a secret."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        is_secret = _SECRET_NAME.search(name) is not None
        shown.append("***" if hide_next else f"{name}=***" if is_secret and equals else word)
        hide_next = not hide_next and is_secret and not equals and word.startswith("-")
    return " ".join(shown)


def _redact_member(member: str) -> str:
    name, equals, _ = member.partition("=")
    return f"{name}=***" if equals and _SECRET_NAME.search(name) else member


def describe(target: Target) -> str:
    """A target in messages: its URL, redacted, or what its ``str`` says."""
    if isinstance(target, str):
        return redact_url(target)
    if attrs.has(type(target)):
        return str(target)
    return getattr(target, "__qualname__", None) or str(target)
