"""The target of ``trioxport serve``: a URL with the options that apply to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import click

from trioxport import Target, UsageError
from trioxport.auth import TLSOptions
from trioxport.targets import describe, to_listener
from trioxport.transports.http import Http


@attrs.frozen(kw_only=True)
class ServingOptions:
    """The options of an endpoint, as the user gave them; None and empty ones were not given.

    Args:
        cert: The file of the certificate.
        key: The file of its private key.
        token_file: The file of the valid bearer tokens.
        hosts: The names under which clients reach the server.
        trusted_proxies: The proxies that name the client.
        health: The path of the page for liveness probes.
        ready: The path of the page for readiness probes.
        drain: Seconds to go on listening when the server is to stop.
        sessions: Whether there are sessions of the legacy era.
        access_log: Whether requests are logged.
    """

    cert: str | None
    key: str | None
    token_file: str | None
    hosts: Sequence[str]
    trusted_proxies: Sequence[str]
    health: str | None
    ready: str | None
    drain: float | None
    sessions: bool
    access_log: bool


def served_target(url: str, options: ServingOptions) -> Target:
    """The target to serve at ``url``. Raises ``UsageError`` for an option that does not apply to it."""
    found = to_listener(url)
    listener: Any = found.server() if isinstance(found, Http) else found
    fields = _fields_of(listener.__class__)
    changes = _certificate(options, fields, url) | _access(options)
    given = {
        "--token-file": "verify", "--hosts": "hosts", "--trusted-proxy": "trusted_proxies", "--health": "health",
        "--ready": "ready", "--drain": "drain",
    }  # fmt: skip
    for option, field in given.items():
        if field in changes and field not in fields:
            raise UsageError(f"{option} does not apply to this target", target=describe(listener))
    if "access_log" in fields:
        changes["access_log"] = options.access_log
    if "sessions" in fields and not options.sessions:
        changes["sessions"] = None
    target: Target = attrs.evolve(listener, **changes) if changes else listener
    return target


def _fields_of(kind: Any) -> set[str]:
    return {field.name for field in attrs.fields(kind)} if attrs.has(kind) else set()


def _certificate(options: ServingOptions, fields: set[str], url: str) -> dict[str, Any]:
    scheme = url.partition(":")[0].lower()
    if options.cert is None:
        if options.key is not None:
            raise click.UsageError("--key is the private key of a certificate: add --cert FILE")
        if scheme in ("https", "wss"):
            raise click.UsageError(f"{scheme} needs a certificate: add --cert FILE, or serve http behind a proxy")
        return {}
    if scheme not in ("https", "wss", "tls"):
        raise click.UsageError(f"--cert is for https, wss and tls, and the target is {scheme}")
    if "tls" in fields:
        return {"tls": TLSOptions(cert=options.cert, key=options.key)}
    return {"cert": options.cert, "key": options.key}


def _access(options: ServingOptions) -> dict[str, Any]:
    """The options of access that were given, by the names of their fields."""
    found: dict[str, Any] = {
        "hosts": list(options.hosts) or None,
        "trusted_proxies": list(options.trusted_proxies) or None,
        "health": options.health,
        "ready": options.ready,
        "drain": options.drain,
    }
    if options.token_file is not None:
        from trioxport.auth import TokenFile

        found["verify"] = TokenFile(options.token_file)
    return {name: value for name, value in found.items() if value is not None}
