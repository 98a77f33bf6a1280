"""Targets: what a URL means, which schemes there are, and how a target is described without its secrets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard, TypeVar, cast, get_args, get_origin
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import trio

from trioxport._suggestions import close_to, whole_target
from trioxport.abc import Listener, Transport
from trioxport.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

    from trio_websocket import WebSocketConnection

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


def register_scheme(scheme: str, factory: Factory) -> None:
    """Make URLs of ``scheme`` targets: ``factory(url)`` returns what opens them, serves them, or both.

    A distribution does the same for whoever installs it with an entry point in the group ``trioxport.transports``,
    named like the scheme; one that needs an extra of the distribution names it, ``"module:factory [extra]"``.
    Raises ``UsageError`` if the scheme is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise UsageError(f"{scheme!r} is no URL scheme", hint="Lower-case letters, digits, '+', '.' and '-'")
    if scheme in _BUILT_IN or scheme in _registered:
        raise UsageError(f"the scheme {scheme!r} is taken")
    _registered[scheme] = factory


def to_transport(target: Target) -> Transport:
    """What opens ``target``. Raises ``UsageError``."""
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
    """What opens or serves a target."""
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
    factory = _registered.get(scheme) or _installed(scheme)
    if factory is None:
        raise _unknown(scheme, redact_url(url))
    try:
        return factory(url)
    except ValueError:  # its text can quote a password
        raise UsageError("this is no valid URL", target=redact_url(url)) from None


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
    return sorted({*_BUILT_IN, *_registered, *(point.name for point in _entry_points())})


def _installed(scheme: str) -> Factory | None:
    point = _entry_point(scheme)
    if point is None:
        return None
    try:
        return cast("Factory", point.load())
    except ModuleNotFoundError as error:
        distribution = point.dist.name if point.dist else "trioxport"
        needed = f"{distribution}[{','.join(point.extras)}]" if point.extras else distribution
        raise UsageError(
            f"the scheme {scheme!r} needs the module {error.name!r}, which is not installed",
            hint=f"Install it: pip install '{needed}'",
        ) from error


def _entry_point(scheme: str) -> EntryPoint | None:
    from importlib.metadata import EntryPoint

    if scheme in _BUILT_IN:
        return EntryPoint(scheme, _BUILT_IN[scheme], ENTRY_POINTS)
    return next((point for point in _entry_points() if point.name == scheme), None)


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
        *(f"{note.name}: {query[note.name]!r} is not {_kind(note.type)}" for _, note in unfit),
        *(f"unknown option {name!r} (there is: {known})" for name in unknown),
    ]


def _kind(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return f"one of {', '.join(map(str, get_args(wanted)))}"
    return f"a value of type {getattr(wanted, '__name__', wanted)}"


_SECRET: Final = (
    r"(?:pass(?:word|phrase|wd)?|pwd|secret|token|(?:api|access|private)[-_]?key|credential|auth|bearer"
    r"|signature|(?<![a-z])sig(?![a-z]))"
)
_SECRET_NAME: Final = re.compile(_SECRET, re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(_SECRET + r"[^=:\s]*\s*[=:]", re.IGNORECASE)
_USERINFO: Final = re.compile(
    r"""
      (?P<user> [^/?#@:\[\s]* ) : [^/?#\s]* @                      # user:password@
    | (?P<odd> [^/?#@:\[\s]* ) : (?! \d* (?: [/?#\s] | $ )) .* @ .*  # a password that should have been escaped
    | [^/?#@:\[\s]+ @                                              # a lone name, which often is a token
    """,
    re.VERBOSE | re.DOTALL,
)


def redact_url(url: str) -> str:
    """The URL without what may be a credential: user information, and query members that are named like a secret.

    It takes any text, so that what is no URL can be shown in an error too.
    """
    scheme, colon, rest = url.partition(":")
    if scheme.lower() == "stdio" or not colon:
        return scheme + colon + _redact_words(rest) if colon else _redact_words(url)
    slashes = "//" if rest.startswith("//") else ""
    rest = _redact_userinfo(rest.removeprefix("//"))
    address, question, query = rest.partition("#")[0].partition("?")
    return f"{scheme}:{slashes}{address}{question}{'&'.join(map(_redact_member, query.split('&')))}"


def _redact_words(command: str) -> str:
    try:
        return redact_command(shlex.split(command))
    except ValueError:  # quotes that nobody closes: where a secret would end cannot be told
        return f"{redact_command(command.split(maxsplit=1)[:1])} ***"


def redact_command(words: Sequence[str]) -> str:
    """A command line without the values of options that are named like a secret, and without passwords in URLs."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        secret = _SECRET_VALUE.search(word)
        shown.append("***" if hide_next else f"{word[: secret.end()]}***" if secret else _redact_urls(word))
        hide_next = not hide_next and not secret and word.startswith("-") and bool(_SECRET_NAME.search(word))
    return " ".join(shown)


def _redact_urls(word: str) -> str:
    before, separator, rest = word.partition("://")
    return before + separator + _redact_userinfo(rest) if separator else word


def _redact_userinfo(rest: str) -> str:
    found = _USERINFO.match(rest)
    if found is None:
        return rest
    if found["odd"] is not None:  # where the password ends cannot be told
        return f"{found['odd']}:***"
    shown = "***" if found["user"] is None else f"{found['user']}:***"
    return f"{shown}@{rest[found.end() :]}"


def _redact_member(member: str) -> str:
    name, equals, _ = member.partition("=")
    return f"{name}=***" if equals and (name == "key" or _SECRET_NAME.search(unquote(name))) else member


def describe(target: Target) -> str:
    """A target in messages: its URL, redacted, or what its ``str`` says."""
    if isinstance(target, str):
        return redact_url(target)
    target = _resolved(target)
    if attrs.has(type(target)):
        return str(target)
    return getattr(target, "__qualname__", None) or str(target)
