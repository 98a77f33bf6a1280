"""Make the target, the layers and the credentials of a server from its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import attrs

from trioxport._diagnostics.hints import close_to
from trioxport.abc import Layer
from trioxport.auth import ApiKey, Bearer, TLSOptions
from trioxport.config.options import LAYERS, Structurer, layer_class, snake
from trioxport.protocol import items_of
from trioxport.targets import known_schemes, to_transport

TYPES: Final = {
    **dict.fromkeys(("stdio", "local"), "stdio"),
    **dict.fromkeys(("http+stdio", "httpstdio"), "http+stdio"),
    **dict.fromkeys(("http", "https", "streamablehttp", "streamable", "remote"), "http"),
    **dict.fromkeys(("sse", "httpsse"), "sse"),
    **dict.fromkeys(("ws", "wss", "websocket"), "websocket"),
    **dict.fromkeys(("grpc", "grpcs"), "grpc"),
    **dict.fromkeys(("redis", "rediss"), "redis"),
    **dict.fromkeys(("redis+stream", "rediss+stream", "redisstream"), "redis+stream"),
    **dict.fromkeys(("tcp", "tls", "unix"), "url"),
}
"""The kinds of transports by the common spellings of ``type``, without hyphens, underscores and capitals."""
_HTTP: Final = ("http", "https", "http+unix")
_SCHEMES: Final = {
    "http": _HTTP,
    "sse": _HTTP,
    "websocket": ("ws", "wss"),
    "grpc": ("grpc", "grpcs"),
    "redis": ("redis", "rediss"),
    "redis+stream": ("redis+stream", "rediss+stream"),
}
_PLACES: Final = {"grpc": "HOST:PORT", "redis": "HOST:PORT/DATABASE", "redis+stream": "HOST:PORT/DATABASE"}
_KINDS: Final = {scheme: kind for kind, schemes in _SCHEMES.items() if kind != "sse" for scheme in schemes}
_OF_COMMAND: Final = ("stdio", "http+stdio")
_OF_KIND: Final = {
    "stdio": {"command", "args", "env", "env_file", "cwd", "options"},
    "http+stdio": {"command", "args", "env", "env_file", "cwd", "headers", "options"},
    "http": {"url", "headers", "auth", "tls", "options"},
    "sse": {"url", "headers", "auth", "tls", "options"},
    "websocket": {"url", "headers", "auth", "tls", "options"},
    "grpc": {"url", "headers", "auth", "tls", "options"},
    "redis": {"url", "options"},
    "redis+stream": {"url", "options"},
    "url": {"url", "tls"},
}


def build_target(entry: Mapping[str, Any], folder: Path, structurer: Structurer) -> Any:
    """The transport of an entry; None, and problems, if there is none."""
    entry = _with_unix_endpoint(entry)
    kind = _kind(entry, structurer)
    if kind is None:
        return None
    for field in set[str]().union(*_OF_KIND.values()) & set(entry) - _OF_KIND[kind]:
        if entry[field]:
            structurer.add(field, f"a server of this type ({kind}) has no such field", "Remove it")
    if kind in _OF_COMMAND:
        return _command(kind, entry, folder, structurer)
    if kind == "url":
        return _plain_url(entry, structurer)
    make = _redis if kind in ("redis", "redis+stream") else _endpoint
    return make(kind, entry, structurer)


def _with_unix_endpoint(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry with HTTP over a Unix socket in our form, in place of VS Code's ``unix:///PATH#/ENDPOINT``."""
    url = entry.get("url")
    if not isinstance(url, str) or not url.lower().startswith("unix:"):
        return entry
    is_http = "#" in url or _type_name(entry.get("type")) in ("http", "sse")
    return {**entry, "url": f"http+{url}"} if is_http else entry


def _type_name(given: Any) -> str | None:
    """The kind that ``type`` names, in any of its spellings."""
    return TYPES.get(given.lower().replace("-", "").replace("_", "")) if isinstance(given, str) else None


def _kind(entry: Mapping[str, Any], structurer: Structurer) -> str | None:
    """The kind of the transport: that of ``type``, or else of the command or the URL."""
    url = entry.get("url")
    if not isinstance(url, str | None):
        structurer.add("url", "this is no text", "Write a URL")
        return None
    if url is None and "command" not in entry:
        structurer.add("", "the server has neither a command nor a url", "Add one of them")
        return None
    scheme = urlsplit(url).scheme.lower() if url and _is_splittable(url) else ""
    by_url = _KINDS.get(scheme, "url")
    given = entry.get("type")
    if given is None:
        return "stdio" if url is None else by_url
    kind = _type_name(given)
    if kind is None:
        close = close_to(given, TYPES) if isinstance(given, str) else None
        question = "" if close is None else f"Did you mean {close!r}? "
        known = "The types: stdio, http+stdio, http, sse, ws, grpc, redis, redis+stream, tcp, tls, unix"
        structurer.add("type", "there is no such type", f"{question}{known}")
    elif kind in _OF_COMMAND and "command" not in entry:
        structurer.add("command", f"a {kind} server needs a command", "Add it, or change the type")
    elif kind not in _OF_COMMAND and url is None:
        structurer.add("url", f"a server of this type ({kind}) needs a url", "Add it, or change the type")
    else:
        return by_url if scheme in ("unix", "http+unix") and kind != "sse" else kind
    return None


def _is_splittable(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def _command(kind: str, entry: Mapping[str, Any], folder: Path, structurer: Structurer) -> Any:
    from trioxport.transports.http_stdio import HttpStdio
    from trioxport.transports.stdio import Stdio

    make: Any = Stdio if kind == "stdio" else HttpStdio
    command = structurer.value(entry["command"], str, "command")
    if command == "":
        structurer.add("command", "the command is empty", "Name a program")
        command = None
    args = structurer.value(_words(entry.get("args")), Sequence[str], "args")
    env = _env(entry, folder, structurer)
    cwd = entry.get("cwd")
    directory = None if cwd is None else structurer.value(cwd, str, "cwd")
    options = _options(entry, make, structurer)
    headers = texts(entry.get("headers"), "headers", structurer)
    if None in (command, args, env, options, headers) or (cwd is not None and directory is None):
        return None
    if directory is not None:
        options["cwd"] = str(folder / Path(directory).expanduser())
    if headers:
        options["headers"] = headers
    return structurer.made(make, {"args": args, "env": env or None, **options}, "command", command)


def _words(args: Any) -> Any:
    """The arguments; numbers are written as texts, as clients do."""
    if isinstance(args, list):
        words = items_of(cast("object", args))
        return [str(each) if isinstance(each, int | float) and not isinstance(each, bool) else each for each in words]
    return [] if args is None else args


def _env(entry: Mapping[str, Any], folder: Path, structurer: Structurer) -> dict[str, str] | None:
    env = texts(entry.get("env"), "env", structurer)
    name = entry.get("env_file")
    if name is None or env is None:
        return env
    path = structurer.value(name, str, "env_file")
    found = None if path is None else _env_file(folder / Path(path).expanduser(), structurer)
    return None if found is None else {**found, **env}


def _env_file(path: Path, structurer: Structurer) -> dict[str, str] | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        structurer.add("env_file", f"the file cannot be read: {why}", "Check its path and permissions")
        return None
    found: dict[str, str] = {}
    for line in map(str.strip, lines):
        name, equals, value = line.removeprefix("export ").partition("=")
        if line and not line.startswith("#") and equals:
            text = value.strip()
            is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
            found[name.strip()] = text[1:-1] if is_quoted else text
    return found


def texts(value: Any, field: str, structurer: Structurer) -> dict[str, str] | None:
    """A table of texts; numbers and truth values are written as texts, and null is left out."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        structurer.add(field, "this is no table", "Write names and texts")
        return None
    found: dict[str, str] = {}
    complete = True
    for name, each in cast("dict[str, Any]", value).items():
        if isinstance(each, bool | int | float | str):
            found[name] = each if isinstance(each, str) else str(each).lower()
        elif each is not None:
            structurer.add(f"{field}.{name}", "this is no text", "Write it in quotes")
            complete = False
    return found if complete else None


def _options(entry: Mapping[str, Any], kind: Any, structurer: Structurer) -> Any:
    options = entry.get("options", {})
    if not isinstance(options, Mapping):
        structurer.add("options", "this is no table", "Write names and values")
        return None
    return structurer.options(cast("Mapping[str, Any]", options), kind, "options")


def _endpoint(kind: str, entry: Mapping[str, Any], structurer: Structurer) -> Any:
    from trioxport.transports.grpc import Grpc
    from trioxport.transports.http import Http
    from trioxport.transports.websocket import WebSocket

    url: str = entry["url"]
    make: Any = {"websocket": WebSocket, "grpc": Grpc}.get(kind, Http)
    if url.lower().startswith("sse+"):
        kind, url = "sse", url[4:]
    if not _is_of_kind(kind, url, structurer):
        return None
    headers = texts(entry.get("headers"), "headers", structurer)
    options = _options(entry, make, structurer)
    auth = build_auth(entry["auth"], structurer) if entry.get("auth") is not None else None
    tls = structurer.table(entry["tls"], TLSOptions, "tls") if entry.get("tls") is not None else None
    if headers is None or options is None:
        return None
    if kind == "sse":
        options["binding"] = "sse"
    make = Grpc.from_url if make is Grpc else make
    return structurer.made(make, {"headers": headers, "auth": auth, "tls": tls, **options}, "url", url)


def _is_of_kind(kind: str, url: str, structurer: Structurer) -> bool:
    if url.lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES[kind])):
        return True
    place = _PLACES.get(kind, "HOST/PATH")
    hint = f"Write {' or '.join(f'{scheme}://{place}' for scheme in _SCHEMES[kind])}"
    structurer.add("url", f"this is no URL of the type {kind}", hint)
    return False


def _redis(kind: str, entry: Mapping[str, Any], structurer: Structurer) -> Any:
    """A service behind Redis; its options come before those in the query of its URL."""
    from trioxport.transports.redis import Redis, RedisStream

    url: str = entry["url"]
    make: Any = Redis if kind == "redis" else RedisStream
    options = _options(entry, make, structurer) if _is_of_kind(kind, url, structurer) else None
    if options is None:
        return None
    return structurer.made(lambda: attrs.evolve(make.from_url(url), **options), {}, "url")


def _plain_url(entry: Mapping[str, Any], structurer: Structurer) -> Any:
    url: str = entry["url"]
    scheme = url.partition(":")[0].lower()
    if scheme not in known_schemes():
        structurer.add("url", "the URL has no known scheme", f"Known schemes: {', '.join(known_schemes())}")
        return None
    target = structurer.made(to_transport, {}, "url", url)
    tls = entry.get("tls")
    if target is None or tls is None:
        return target
    if scheme != "tls":
        structurer.add("tls", f"the scheme {scheme} has no TLS", "Remove it, or write tls://HOST:PORT")
        return None
    from trioxport.transports.stream import Tls

    if not isinstance(tls, Mapping):
        structurer.add("tls", "this is no table", "Write names and files")
        return None
    files = structurer.options(cast("Mapping[str, Any]", tls), TLSOptions, "tls")
    return None if files is None else structurer.made(Tls, files, "tls", target.host, target.port)


def build_auth(value: Any, structurer: Structurer) -> Any:
    """Credentials: ``{"type": "bearer", "token": ...}`` or ``{"type": "api-key", "header": ..., "key": ...}``."""
    if isinstance(value, str):  # FastMCP
        value = {"type": "bearer", "token": value}
    if not isinstance(value, dict):
        structurer.add("auth", "this is no table", _AUTH_HINT)
        return None
    options = {snake(name): each for name, each in cast("dict[str, Any]", value).items()}
    kind = str(options.pop("type", "")).lower().replace("-", "").replace("_", "")
    fields = {"bearer": (Bearer, ("token",)), "apikey": (ApiKey, ("header", "key"))}.get(kind)
    if fields is None:
        structurer.add("auth.type", "there is no such kind of credentials", _AUTH_HINT)
        return None
    make, names = fields
    if set(options) != set(names) or not all(isinstance(each, str) for each in options.values()):
        structurer.add("auth", f"{kind} has the fields {' and '.join(names)}, which are texts", _AUTH_HINT)
        return None
    return structurer.made(make, options, "auth")


_AUTH_HINT: Final = 'Write {"type": "bearer", "token": "${VAR}"}, or "api-key" with "header" and "key"'


def build_layers(value: Any, structurer: Structurer) -> list[Layer]:
    """The layers of a list of names, of ``{"NAME": {options}}`` or of ``{"layer": "NAME", options}``; or of a table."""
    if isinstance(value, dict):
        items: list[Any] = [{name: options} for name, options in cast("dict[str, Any]", value).items()]
    elif isinstance(value, list):
        items = list(items_of(cast("object", value)))
    else:
        structurer.add("layers", "this is no list", 'Write ["Metrics", {"Retry": {"attempts": 3}}]')
        return []
    made = [_layer(each, f"layers[{number}]", structurer) for number, each in enumerate(items)]
    return [layer for layer in made if layer is not None]


def _layer(value: Any, field: str, structurer: Structurer) -> Any:
    name, options = _named(value)
    known = {each.lower(): each for each in LAYERS}
    found = known.get(name.lower().replace("_", "").replace("-", ""))
    if found is None:
        close = close_to(name.lower(), known)
        question = "" if close is None else f"Did you mean {known[close]!r}? "
        structurer.add(field, "there is no such layer", f"{question}The layers: {', '.join(LAYERS)}")
        return None
    return structurer.table({} if options in (None, True) else options, layer_class(found), f"{field}.{found}")


def _named(value: Any) -> tuple[str, Any]:
    if isinstance(value, dict):
        table = dict(cast("dict[str, Any]", value))
        if isinstance(table.get("layer"), str):
            return table.pop("layer"), table
        if len(table) == 1:
            return next(iter(table.items()))
    return (value, {}) if isinstance(value, str) else ("", {})
