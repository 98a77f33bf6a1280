"""Targets: what a URL means, which schemes there are, and how a target is described without its secrets."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeGuard, TypeVar, cast, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

import attrs
import trio

from trioxport._diagnostics.hints import close_to, whole_target
from trioxport._diagnostics.redaction import HIDDEN, is_secret_name, redact_command, redact_text, redact_url
from trioxport.abc import Listener, Transport
from trioxport.errors import TransportError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

    from trio_websocket import WebSocketConnection

__all__ = [
    "ENTRY_POINTS",
    "Factory",
    "NamedTransport",
    "Target",
    "describe",
    "known_schemes",
    "options_of",
    "redact_command",
    "redact_url",
    "register_scheme",
    "to_listener",
    "to_transport",
]

Target: TypeAlias = "str | Transport | Listener | trio.abc.Stream | WebSocketConnection"
"""A URL, a config object, a transport, or an open connection: a stream of Trio, or one of trio-websocket."""

Factory: TypeAlias = Callable[[str], Transport | Listener]
"""Makes the config object of a URL."""

ENTRY_POINTS: Final = "trioxport.transports"

_BUILT_IN: Final = {
    "http": "trioxport.transports.http:Http.from_url",
    "https": "trioxport.transports.http:Http.from_url",
    "sse+http": "trioxport.transports.http:Http.from_url",
    "sse+https": "trioxport.transports.http:Http.from_url",
    "memory": "trioxport.transports.memory:Memory.from_url",
    "stdio": "trioxport.transports.stdio:stdio_from_url",
    "tcp": "trioxport.transports.stream:Tcp.from_url",
    "tls": "trioxport.transports.stream:Tls.from_url",
    "unix": "trioxport.transports.stream:Unix.from_url",
    "ws": "trioxport.transports.websocket:WebSocket.from_url",
    "wss": "trioxport.transports.websocket:WebSocket.from_url",
}
"""What a scheme's factory is. One that needs an extra says so as entry points do: ``"module:factory [extra]"``."""

_registered: dict[str, Factory] = {}
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")


def register_scheme(scheme: str, factory: Factory) -> None:
    """Make URLs of ``scheme`` targets: ``factory(url)`` returns what opens them, serves them, or both.

    A distribution does the same where it is installed, by an entry point in the group ``trioxport.transports``, named
    like the scheme; one that needs an extra of the distribution names it, ``"module:factory [extra]"``.

    Args:
        scheme: In lower case.
        factory: It raises ``UsageError``, or ``ValueError``, for a URL that is none of the scheme.

    Raises:
        UsageError: The scheme is no scheme, or is taken: built in, registered or installed.
    """
    if not _SCHEME.fullmatch(scheme):
        raise UsageError(f"{scheme!r} is no URL scheme", hint="Lower-case letters, digits, '+', '.' and '-'")
    if scheme in known_schemes():
        raise UsageError(f"the scheme {scheme!r} is taken")
    _registered[scheme] = factory


def to_transport(target: Target) -> Transport:
    """The transport of ``target``. Raises ``UsageError``."""
    found = _resolved(target)
    if not callable(found):
        raise UsageError("this target can be served, but not opened", target=describe(target))
    return found


def to_listener(target: Target) -> Listener:
    """What serves ``target``. Raises ``UsageError``."""
    found = _resolved(target)
    if not hasattr(found, "listen"):
        raise UsageError("this target can be opened, but not served", target=describe(target))
    return cast("Listener", found)


def _resolved(target: Target) -> Transport | Listener:
    """The transport or listener of a target."""
    if isinstance(target, str):
        return _from_url(target)
    if isinstance(target, trio.abc.Stream):
        from trioxport.transports.stream import OpenStream

        return OpenStream(target)
    if _is_websocket_connection(target):
        from trioxport.interop.trio_websocket import OpenWebSocketConnection

        return OpenWebSocketConnection(target)
    return _object(cast("Transport | Listener", target))


def _is_websocket_connection(target: Target) -> TypeGuard[WebSocketConnection]:
    library = sys.modules.get("trio_websocket")  # a program that has such a connection has imported it
    return library is not None and isinstance(target, library.WebSocketConnection)


def _object(target: Transport | Listener) -> Transport | Listener:
    """The target itself. Raises ``TypeError`` for what is none."""
    if isinstance(target, type):
        raise TypeError(f"{target.__name__} is a class, and a target is an object of it: {target.__name__}(...)")
    if not callable(target) and not hasattr(target, "listen"):
        kind = type(target).__name__
        raise TypeError(f"a target is a URL, a config object such as Stdio(...), or a transport, not {kind}")
    return target


def _from_url(url: str) -> Transport | Listener:
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    try:
        found = _made_by(_factory_of(scheme, url), scheme, url)
    except TransportError as error:
        error.target = error.target or redact_url(url)
        raise
    if not callable(found) and not hasattr(found, "listen"):
        kind = type(found).__name__
        raise UsageError(
            f"the factory of the scheme {scheme!r} returned something of the type {kind}, which is no target",
            target=redact_url(url),
        )
    return found


def _factory_of(scheme: str, url: str) -> Factory:
    factory = _registered.get(scheme) or _installed(scheme)
    if factory is None:
        raise _unknown(scheme, redact_url(url))
    return factory


def _made_by(factory: Factory, scheme: str, url: str) -> Transport | Listener:
    try:
        return factory(url)
    except TransportError:
        raise
    except ValueError:  # its text can quote a password
        raise UsageError("this is no valid URL") from None
    except Exception as error:
        raise UsageError(
            f"the factory of the scheme {scheme!r} failed: {redact_text(repr(error))}",
            hint="It is called with the URL, and returns what opens it, serves it, or both",
        ) from error


def _unknown(scheme: str, shown: str) -> UsageError:
    known = known_schemes()
    close = close_to(scheme, known)
    question = "" if close is None else f"Did you mean {close}? "
    hint = f"{question}Known schemes: {', '.join(known)}. A command to run is written stdio:COMMAND"
    if (meant := whole_target(shown)) is not None or not scheme:
        return UsageError("a target begins with a scheme and a colon", target=shown, hint=meant or hint)
    return UsageError(f"no transport for the scheme {scheme!r}", target=shown, hint=hint)


def known_schemes() -> list[str]:
    """The schemes that URLs can have here, built in, registered or installed."""
    installed = (point.name for point in _entry_points())
    return sorted({*_BUILT_IN, *_registered, *(name for name in installed if _SCHEME.fullmatch(name))})


def _installed(scheme: str) -> Factory | None:
    point = _entry_point(scheme)
    if point is None:
        return None
    try:
        factory = point.load()
    except ModuleNotFoundError as error:
        raise _missing_module(point, error) from error
    except Exception as error:
        raise UsageError(f"{_plug_in(point)} cannot be loaded: {redact_text(repr(error))}") from error
    if not callable(factory):
        raise UsageError(
            f"{_plug_in(point)} is of the type {type(factory).__name__}, which cannot be called with a URL"
        )
    return cast("Factory", factory)


def _plug_in(point: EntryPoint) -> str:
    return f"the entry point {point.name} = {point.value} of {_distribution(point)}"


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "trioxport"


def _missing_module(point: EntryPoint, error: ModuleNotFoundError) -> UsageError:
    missing = error.name or ""
    if point.extras:
        hint = f"Install it: pip install '{_distribution(point)}[{','.join(point.extras)}]'"
    elif f"{point.module}.".startswith(f"{missing}."):
        return UsageError(f"{_plug_in(point)} names the module {missing!r}, which does not exist")
    else:
        hint = f"Install what has it; {_distribution(point)} itself is installed"
    return UsageError(f"the scheme {point.name!r} needs the module {missing!r}, which is not installed", hint=hint)


def _entry_point(scheme: str) -> EntryPoint | None:
    from importlib.metadata import EntryPoint

    if scheme in _BUILT_IN:
        return EntryPoint(scheme, _BUILT_IN[scheme], ENTRY_POINTS)
    points = {(_distribution(point), point.value): point for point in _entry_points() if point.name.lower() == scheme}
    exact = [point for point in points.values() if point.name == scheme]
    if len(exact) > 1:
        raise UsageError(
            f"the scheme {scheme!r} is installed more than once: by {', '.join(sorted(map(_plug_in, exact)))}",
            hint="Uninstall all but one of them",
        )
    for point in points.values():
        if point not in exact:
            raise UsageError(f"{_plug_in(point)} is no scheme: one is written in lower case")
    return exact[0] if exact else None


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # costs more to import than all of this package

    return entry_points(group=ENTRY_POINTS)


Options = TypeVar("Options")


def options_of(url: str, options: type[Options]) -> Options:
    """The query of a URL as an ``options`` object (an attrs class of options that all have defaults).

    Raises ``UsageError``, which names what is unknown or unfit.
    """
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if not query:
        return options()
    from cattrs import ClassValidationError, Converter

    try:
        return Converter(forbid_extra_keys=True).structure(query, options)
    except ClassValidationError as error:
        raise UsageError("; ".join(_complaints(error, query, options)), target=redact_url(url)) from error


def _complaints(error: Any, query: dict[str, str], options: type[Any]) -> list[str]:
    unfit, others = error.group_exceptions()
    known = ", ".join(field.name for field in attrs.fields(options))
    unknown = sorted(name for other in others for name in other.extra_fields)
    return [
        *(f"{note.name}: {_shown_value(note.name, query)} is not {_kind(note.type)}" for _, note in unfit),
        *(f"unknown option {name!r} (there is: {known})" for name in unknown),
    ]


def _shown_value(name: str, query: dict[str, str]) -> str:
    return HIDDEN if is_secret_name(name) else repr(query[name])


def _kind(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return f"one of {', '.join(map(str, get_args(wanted)))}"
    return f"a value of type {getattr(wanted, '__name__', wanted)}"


def describe(target: Target) -> str:
    """A target in messages: its URL, redacted, or what its ``str`` says.

    Of a config object whose class has no ``__str__`` it shows the fields, but for those that are named like a secret.
    """
    return redact_url(target) if isinstance(target, str) else _describe_object(_resolved(target))


def _describe_object(target: object) -> str:
    if isinstance(target, partial):  # its arguments may be anything
        return _describe_object(target.func)
    kind = type(target)
    has_text = getattr(kind, "__str__", None) is not object.__str__
    if attrs.has(kind):
        return redact_text(str(target)) if has_text else f"{kind.__name__}({', '.join(_shown_fields(target))})"
    if is_dataclass(target) and not has_text:
        return kind.__name__
    name: object = getattr(target, "__qualname__", None)
    return name if isinstance(name, str) else redact_text(str(target))


def _shown_fields(target: Any) -> Iterator[str]:
    fields = cast("tuple[attrs.Attribute[Any], ...]", attrs.fields(target.__class__))
    for field in fields:
        if field.repr is False:
            continue
        value = getattr(target, field.name)
        shown = str(field.repr(value)) if callable(field.repr) else repr(value)
        yield f"{field.name}={HIDDEN if value and is_secret_name(field.name) else redact_text(shown)}"


@attrs.frozen
class NamedTransport:
    """A transport under the name of its target, which its config object need not know.

    Args:
        name: The target, redacted.
        transport: What opens it.
    """

    name: str
    transport: Transport = attrs.field(repr=False)

    @classmethod
    def of(cls, target: Target) -> Self:
        """The transport of ``target``, with its name. Raises ``UsageError``."""
        return cls(describe(target), to_transport(target))
