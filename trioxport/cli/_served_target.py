"""The endpoint of ``trioxport serve`` and ``trioxport bridge``: its options, and the target that they make of a URL."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
import click

from trioxport import Target, TransportError, UsageError
from trioxport.auth import TLSOptions
from trioxport.cli.options import FILE, Function
from trioxport.targets import describe, to_listener
from trioxport.transports.http import Http
from trioxport.transports.http.server import Sessions

_ENDPOINT: Final = (
    click.option("--hosts", multiple=True, metavar="NAME",
                 help="Answer under this name; may be repeated. * is any (default: the host that is listened on)."),
    click.option("--trusted-proxy", "trusted_proxies", multiple=True, metavar="ADDRESS",
                 help="Let this proxy name the client by X-Forwarded-For; an address or network, may be repeated."),
    click.option("--health", metavar="PATH", help="Answer liveness probes at this path, as /livez."),
    click.option("--no-access-log", is_flag=True, help="Do not log each request of HTTP."),
)  # fmt: skip


@attrs.frozen
class EndpointNames:
    """The names of the options that a command with a client's options beside them needs to tell apart.

    Args:
        cert: The option for the certificate.
        key: That for its private key.
        tokens: That for the tokens of clients.
    """

    cert: str
    key: str
    tokens: str

    def options(self, function: Function) -> Function:
        """Add the options of an endpoint, as parameters for :class:`ServingOptions`."""
        named = (
            click.option(self.cert, "cert_file", type=FILE, metavar="FILE",
                         help="Serve with the certificate in this file (https, wss, tls, grpcs)."),
            click.option(self.key, "key_file", type=FILE, metavar="FILE",
                         help="Its private key, if that is in a file of its own."),
            click.option(self.tokens, "client_tokens", type=FILE, metavar="FILE",
                         help="Admit clients with a bearer token of this file: TOKEN or TOKEN PRINCIPAL in each line."),
        )  # fmt: skip
        for option in reversed((*named, *_ENDPOINT)):
            function = option(function)
        return function

    @contextmanager
    def in_advice(self, *others: tuple[str, str]) -> Generator[None]:
        """Have the advice of an error of the block name these options, in place of a program's arguments.

        Args:
            others: Further arguments of a program, each with the text in its place.
        """
        replaced = (
            ('Pass hosts=["mcp.example.com"]', "Add --hosts mcp.example.com"),
            ("Pass cert or ssl_context", f"Add {self.cert} FILE"),
            *others,
        )
        try:
            yield
        except TransportError as error:
            for argument, option in replaced:
                error.hint = error.hint and error.hint.replace(argument, option)
            raise


@attrs.frozen(kw_only=True)
class ServingOptions:
    """The options of an endpoint, as the user gave them; None and empty ones were not given.

    Args:
        cert_file: The file of the certificate.
        key_file: The file of its private key.
        client_tokens: The file of the valid bearer tokens.
        hosts: The names under which clients reach the server.
        trusted_proxies: The proxies that name the client.
        health: The path of the page for liveness probes.
        ready: The path of the page for readiness probes.
        drain: Seconds to go on listening when the server is to stop.
        redis: The URL of the Redis through which sessions and streams are shared.
        no_sessions: Whether there are no sessions of the legacy era.
        no_access_log: Whether requests are left out of the log.
    """

    cert_file: str | None
    key_file: str | None
    client_tokens: str | None
    hosts: Sequence[str]
    trusted_proxies: Sequence[str]
    health: str | None
    no_access_log: bool
    ready: str | None = None
    drain: float | None = None
    redis: str | None = None
    no_sessions: bool = False


def served_target(url: str, options: ServingOptions, names: EndpointNames) -> Target:
    """The target to serve at ``url``. Raises ``UsageError`` for an option that does not apply to it."""
    found = to_listener(url)
    listener: Any = found.server() if isinstance(found, Http) else found
    fields = _fields_of(listener.__class__)
    changes = _certificate(options, fields, url, names) | _access(options)
    given = {
        names.tokens: "verify", "--hosts": "hosts", "--trusted-proxy": "trusted_proxies", "--health": "health",
        "--ready": "ready", "--drain": "drain",
    }  # fmt: skip
    for option, field in given.items():
        if field in changes and field not in fields:
            raise UsageError(f"{option} does not apply to this target", target=describe(listener))
    if "access_log" in fields:
        changes["access_log"] = not options.no_access_log
    if options.redis is not None:
        changes |= _shared(options.redis, fields, listener)
    if "sessions" in fields and options.no_sessions:
        changes["sessions"] = None
    target: Target = attrs.evolve(listener, **changes) if changes else listener
    return target


def _fields_of(kind: Any) -> set[str]:
    return {field.name for field in attrs.fields(kind)} if attrs.has(kind) else set()


def _shared(redis: str, fields: set[str], listener: Any) -> dict[str, Any]:
    """The options of a server that shares its sessions. Raises ``UsageError`` for one without."""
    if "sessions" not in fields:
        raise UsageError("--redis does not apply to this target", target=describe(listener))
    from trioxport.transports.redis import RedisEvents, RedisSessions

    return {"sessions": Sessions(directory=RedisSessions(redis)), "events": RedisEvents(redis)}


def _certificate(options: ServingOptions, fields: set[str], url: str, names: EndpointNames) -> dict[str, Any]:
    scheme = url.partition(":")[0].lower()
    if options.cert_file is None:
        if options.key_file is not None:
            raise click.UsageError(f"{names.key} is the private key of a certificate: add {names.cert} FILE")
        if scheme in ("https", "wss", "grpcs"):
            raise click.UsageError(f"{scheme} needs a certificate: add {names.cert} FILE, or serve http behind a proxy")
        return {}
    if scheme not in ("https", "wss", "tls", "grpcs"):
        raise click.UsageError(f"{names.cert} is for https, wss, tls and grpcs, and the target is {scheme}")
    if "tls" in fields:
        return {"tls": TLSOptions(cert=options.cert_file, key=options.key_file)}
    return {"cert": options.cert_file, "key": options.key_file}


def _access(options: ServingOptions) -> dict[str, Any]:
    """The options of access that were given, by the names of their fields."""
    found: dict[str, Any] = {
        "hosts": list(options.hosts) or None,
        "trusted_proxies": list(options.trusted_proxies) or None,
        "health": options.health,
        "ready": options.ready,
        "drain": options.drain,
    }
    if options.client_tokens is not None:
        from trioxport.auth import TokenFile

        found["verify"] = TokenFile(options.client_tokens)
    return {name: value for name, value in found.items() if value is not None}
