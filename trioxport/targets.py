"""Targets: URLs and their schemes, open connections of libraries, and descriptions without secrets."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
    get_origin,
    runtime_checkable,
)
from urllib.parse import parse_qsl, urlsplit

import attrs

from trioxport._diagnostics.hints import close_to, whole_target
from trioxport._diagnostics.redaction import redact_command, redact_url, redact_urls
from trioxport._diagnostics.secret_names import is_secret_name
from trioxport.abc import Listener, Transport
from trioxport.errors import TransportError, UsageError
from trioxport.messages import HIDDEN

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

    import trio
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


@runtime_checkable
class TargetWithOptions(Protocol):
    """A transport that brings options of its own for :func:`trioxport.open_transport`, as a configured server does."""

    @property
    def target(self) -> Transport: ...

    def options(self, **given: Any) -> dict[str, Any]:
        """The options to open :attr:`target` with: its own, and those that the caller has given."""
        ...


Factory: TypeAlias = Callable[[str], Transport | Listener]
"""A function that makes the config object of a URL."""

ENTRY_POINTS: Final = "trioxport.transports"
"""The group of entry points that add schemes."""

_BUILT_IN: Final = {
    "grpc": "trioxport.transports.grpc:Grpc.from_url",
    "grpcs": "trioxport.transports.grpc:Grpc.from_url",
    "http": "trioxport.transports.http:Http.from_url",
    "https": "trioxport.transports.http:Http.from_url",
    "http+stdio": "trioxport.transports.http_stdio:http_stdio_from_url",
    "http+unix": "trioxport.transports.http:Http.from_url",
    "sse+http": "trioxport.transports.http:Http.from_url",
    "sse+https": "trioxport.transports.http:Http.from_url",
    "sse+http+unix": "trioxport.transports.http:Http.from_url",
    "memory": "trioxport.transports.memory:Memory.from_url",
    "redis": "trioxport.transports.redis:Redis.from_url",
    "redis+stream": "trioxport.transports.redis:RedisStream.from_url",
    "rediss": "trioxport.transports.redis:Redis.from_url",
    "rediss+stream": "trioxport.transports.redis:RedisStream.from_url",
    "stdio": "trioxport.transports.stdio:stdio_from_url",
    "tcp": "trioxport.transports.stream:Tcp.from_url",
    "tls": "trioxport.transports.stream:Tls.from_url",
    "unix": "trioxport.transports.stream:Unix.from_url",
    "ws": "trioxport.transports.websocket:WebSocket.from_url",
    "wss": "trioxport.transports.websocket:WebSocket.from_url",
}
"""The factory of each scheme, as in an entry point; one that needs an extra: ``"module:factory [extra]"``."""

STANDARD_STREAMS: Final = ("stdio:", "http+stdio:")
"""The targets that are the standard streams of this process."""

_OPEN_CONNECTIONS: Final = (
    ("trio.abc", "Stream", "trioxport.transports.stream:OpenStream"),
    ("trio_websocket", "WebSocketConnection", "trioxport.interop.trio_websocket:OpenWebSocketConnection"),
)
"""Connections that other libraries have opened: the library's module, its class, and the transport over such a one."""

_registered: dict[str, Factory] = {}
_SCHEME: Final = r"[a-z][a-z0-9+.-]*"


def register_scheme(scheme: str, factory: Factory) -> None:
    """Make URLs of ``scheme`` targets.

    An installed distribution does the same by an entry point in the group ``trioxport.transports`` whose name is the
    scheme. If it needs an extra of the distribution, the entry point names that: ``"module:factory [extra]"``.

    Args:
        scheme: The scheme, in lower case.
        factory: ``factory(url)`` returns an object that opens the target, serves it, or both. It raises ``UsageError``
            or ``ValueError`` for an invalid URL.

    Raises:
        UsageError: The scheme is not valid, or is taken: built in, registered or installed.
    """
    if not re.fullmatch(_SCHEME, scheme):
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
    """The listener of ``target``. Raises ``UsageError``."""
    found = _resolved(target)
    if not isinstance(found, Listener):
        raise UsageError("this target can be opened, but not served", target=describe(target))
    return found


def _resolved(target: Target) -> Transport | Listener:
    """The transport or listener of a target."""
    if isinstance(target, str):
        return _from_url(target)
    for library, name, transport in _OPEN_CONNECTIONS:
        module = sys.modules.get(library)  # a program that has such a connection has imported its library
        if module is not None and isinstance(target, getattr(module, name)):
            return _over_open_connection(transport, target)
    return _object(cast("Transport | Listener", target))


def _over_open_connection(transport: str, connection: object) -> Transport:
    """The transport, named as ``"module:class"``, over a connection that the application has opened."""
    module, _, name = transport.partition(":")
    made: Transport = getattr(import_module(module), name)(connection)
    return made


def _object(target: Transport | Listener) -> Transport | Listener:
    """The target itself. Raises ``TypeError`` for an object that is not a target."""
    if isinstance(target, type):
        raise TypeError(f"{target.__name__} is a class, and a target is an object of it: {target.__name__}(...)")
    if not _is_target(target):
        kind = type(target).__name__
        raise TypeError(f"a target is a URL, a config object such as Stdio(...), or a transport, not {kind}")
    return target


def _is_target(value: object) -> bool:
    return callable(value) or isinstance(value, Listener)


def _from_url(url: str) -> Transport | Listener:
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    try:
        found = _made_by(_factory_of(scheme, url), scheme, url)
    except TransportError as error:
        error.target = error.target or redact_url(url)
        raise
    if not _is_target(found):
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
            f"the factory of the scheme {scheme!r} failed: {redact_urls(repr(error))}",
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
    """The schemes of URLs that are targets: built in, registered or installed."""
    installed = (point.name for point in _entry_points())
    return sorted({*_BUILT_IN, *_registered, *(name for name in installed if re.fullmatch(_SCHEME, name))})


def _installed(scheme: str) -> Factory | None:
    point = _entry_point(scheme)
    if point is None:
        return None
    try:
        factory = point.load()
    except ModuleNotFoundError as error:
        raise _missing_module(point, error) from error
    except Exception as error:
        raise UsageError(f"{_plug_in(point)} cannot be loaded: {redact_urls(repr(error))}") from error
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
    from importlib.metadata import entry_points  # its import takes longer than that of this package

    return entry_points(group=ENTRY_POINTS)


Options = TypeVar("Options")


def options_of(url: str, options: type[Options]) -> Options:
    """The query of a URL as an ``options`` object (an attrs class of options that all have defaults).

    Raises ``UsageError``, which names the options that are unknown or have no valid value.
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
    """The description of a target in messages: its URL, redacted, or its ``str``.

    A config object whose class has no ``__str__`` is shown by its fields, without values that are named like a secret.
    """
    return redact_url(target) if isinstance(target, str) else _describe_object(_resolved(target))


_NAMED: Final = (type, FunctionType, MethodType, BuiltinFunctionType)


def _describe_object(target: object) -> str:
    if isinstance(target, partial):  # its arguments may hold a secret
        return _describe_object(target.func)
    kind = type(target)
    has_text = getattr(kind, "__str__", None) is not object.__str__
    if attrs.has(kind):
        return redact_urls(str(target)) if has_text else f"{kind.__name__}({', '.join(_shown_fields(target))})"
    from dataclasses import is_dataclass

    if is_dataclass(target) and not has_text:
        return kind.__name__
    return target.__qualname__ if isinstance(target, _NAMED) else redact_urls(str(target))


def _shown_fields(target: Any) -> Iterator[str]:
    fields = cast("tuple[attrs.Attribute[Any], ...]", attrs.fields(target.__class__))
    for field in fields:
        if field.repr is False:
            continue
        value = getattr(target, field.name)
        shown = str(field.repr(value)) if callable(field.repr) else repr(value)
        yield f"{field.name}={HIDDEN if value and is_secret_name(field.name) else redact_urls(shown)}"


@attrs.frozen
class NamedTransport:
    """A transport with the description of its target.

    Args:
        name: The target, redacted.
        transport: The transport of the target.
    """

    name: str
    transport: Transport = attrs.field(repr=False)

    @classmethod
    def of(cls, target: Target) -> Self:
        """The transport of ``target``, with its name. Raises ``UsageError``."""
        return cls(describe(target), to_transport(target))
