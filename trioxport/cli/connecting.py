"""Connections of commands: the target that an argument means, with the options that apply to it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

import attrs
import trio

from trioxport import (
    Connection,
    RequestTimeout,
    Target,
    UsageError,
    __version__,
    open_transport,
)
from trioxport.abc import CONNECT_TIMEOUT, Layer, Transport
from trioxport.auth import Bearer, TLSOptions
from trioxport.cli._configuration import find_server
from trioxport.cli._wire_log import wire_log
from trioxport.cli.options import ConnectionOptions
from trioxport.peer import Client, Handlers, open_client
from trioxport.targets import describe, to_transport

OnLine: TypeAlias = Callable[[str], object]
CLIENT_INFO: Final = {"name": "trioxport", "version": __version__}

_COMMAND: Final = re.compile(r"[^:\s]*(\s|/)")
"""The beginning of a command: a word without a colon that is a path, or is followed by another word."""


def resolve(target: str, options: ConnectionOptions, on_stderr: OnLine | None = None) -> Target:
    """The target that ``target`` means, under ``options``.

    Args:
        target: A URL, a command, or the name of a server in a configuration file.
        options: The options; one that the target has no place for is an error.
        on_stderr: Called with each line that a command writes to its standard error; None leaves it on the terminal.

    Raises:
        UsageError: There is no such target, or an option does not apply to it.
    """
    if _COMMAND.match(target):
        return _configured(to_transport(f"stdio:{target}"), options, on_stderr)
    if ":" in target:
        return _configured(to_transport(target), options, on_stderr)
    server = find_server(target, options.config)
    if server.target.transport is None:
        return server
    transport = _configured(server.target.transport, options, on_stderr, str(server))
    return attrs.evolve(server, target=attrs.evolve(server.target, transport=transport))


def open_target(
    target: str, options: ConnectionOptions, layers: Sequence[Layer] = (), on_stderr: OnLine | None = None
) -> AbstractAsyncContextManager[Connection]:
    """Open a connection as the user asked for it; ``layers`` are message layers, then frame layers."""
    return open_transport(
        resolve(target, options, on_stderr),
        layers=[*layers, *([wire_log()] if options.verbose else [])],
        allow_plaintext=options.allow_plaintext,
        connect_timeout=min(CONNECT_TIMEOUT, options.timeout),
    )


@asynccontextmanager
async def open_session(
    target: str,
    options: ConnectionOptions,
    handlers: Handlers = Handlers(),
    on_stderr: OnLine | None = None,
) -> AsyncGenerator[Client]:
    """Open a connection and negotiate. A server that is too late for a request is not waited for on leaving either."""
    with trio.CancelScope() as patience:
        async with open_target(target, options, on_stderr=on_stderr) as connection:
            try:
                async with open_client(
                    connection,
                    client_info=CLIENT_INFO,
                    handlers=handlers,
                    era=options.era,
                    timeout=options.timeout,
                ) as client:
                    yield client
            except RequestTimeout:
                patience.cancel()
                raise


def _configured(
    transport: Transport, options: ConnectionOptions, on_stderr: OnLine | None, shown: str | None = None
) -> Transport:
    """The transport, with the options that the user gave; ``shown`` is its description, if it has one of its own."""
    places = _Places(transport, shown or describe(transport))
    if options.headers:
        places.change("headers", {**places.value("headers", "--header"), **options.headers})
    if options.token is not None:
        places.value("auth", "--token")
        places.change("auth", Bearer(options.token))
    elif (login := places.stored_login(options.ca)) is not None:
        places.change("auth", login)
    if options.env:
        places.change("env", {**(places.value("env", "--env") or {}), **options.env})
    if options.cwd is not None:
        places.value("cwd", "--cwd")
        places.change("cwd", options.cwd)
    if options.http2:
        places.value("http2", "--http2")
        places.change("http2", True)
    files = {name: file for name, file in (("ca", options.ca), ("cert", options.cert), ("key", options.key)) if file}
    if files:
        places.change_certificates(files)
    if on_stderr is not None and places.is_default("stderr", "inherit"):
        places.change("stderr", on_stderr)
    return places.changed()


class _Places:
    """The fields of a transport that options can change."""

    def __init__(self, transport: Any, shown: str) -> None:
        self._transport = transport
        self._shown = shown
        kind = transport.__class__
        self._names = [field.name for field in attrs.fields(kind)] if attrs.has(kind) else []
        self._changes: dict[str, Any] = {}

    def value(self, name: str, option: str) -> Any:
        """The value of a field. Raises ``UsageError``, which names the option, if the transport has no such field."""
        if name not in self._names:
            raise UsageError(f"{option} does not apply to this target", target=self._shown)
        return getattr(self._transport, name)

    def stored_login(self, ca: str | None) -> Any:
        """The login of ``trioxport login`` for an HTTP target without credentials; None if there is none."""
        if "http2" not in self._names or self._transport.auth is not None or self._transport.unix is not None:
            return None
        if any(name.lower() == "authorization" for name in self._transport.headers):
            return None
        from trioxport.cli._oauth import stored_login

        return stored_login(self._transport.url, ca)

    def is_default(self, name: str, default: Any) -> bool:
        """Whether there is such a field, and it has its default."""
        return name in self._names and getattr(self._transport, name) == default

    def change(self, name: str, value: Any) -> None:
        self._changes[name] = value

    def change_certificates(self, files: Mapping[str, str]) -> None:
        """Set the files of certificates: fields of a stream's transport, and ``tls`` of the others."""
        if set(files) <= set(self._names):
            self._changes.update(files)
            return
        given = self.value("tls", f"--{next(iter(files))}")
        options: Any = files
        self._changes["tls"] = attrs.evolve(given if isinstance(given, TLSOptions) else TLSOptions(), **options)

    def changed(self) -> Transport:
        """The transport with the changes; itself if there are none."""
        changed: Transport = attrs.evolve(self._transport, **self._changes) if self._changes else self._transport
        return changed
