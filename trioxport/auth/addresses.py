"""URLs of OAuth: those of servers and endpoints, and the well-known ones that follow from them."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from trioxport._diagnostics.redaction import redact_url

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
RESOURCE_SUFFIX: Final = "/.well-known/oauth-protected-resource"
SERVER_SUFFIX: Final = "/.well-known/oauth-authorization-server"
OPENID_SUFFIX: Final = "/.well-known/openid-configuration"


def is_loopback_host(host: str) -> bool:
    """Whether ``host`` is this machine by its spelling."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def fault_of(url: str) -> str | None:
    """The reason why a URL that a server names cannot be used; None if it can.

    It has to be ``https``, or ``http`` to loopback, with a host, and without credentials and fragment. This keeps
    ``javascript:``, ``data:`` and ``file:`` out (security best practices, OAuth Authorization URL Validation).
    """
    if not url.isascii() or not url.isprintable() or any(mark in url for mark in ' "<>\\^`{|}'):
        return "it has characters that a URL cannot have"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it is no URL"
    if parts.scheme not in DEFAULT_PORTS:
        return f"its scheme is {parts.scheme[:20]!r}, not https" if parts.scheme else "it is no absolute URL"
    if not host or port == 0:
        return "it has no host" if not host else "its port is 0"
    if parts.username is not None or parts.password is not None:
        return "it holds credentials"
    if parts.fragment or url.endswith("#"):
        return "it has a fragment"
    if parts.scheme == "http" and not is_loopback_host(host):
        return "it is not encrypted: https is required"
    return None


def shown_url(url: str) -> str:
    """A URL of a server as an error shows it: redacted, printable and short."""
    text = redact_url("".join(each if each.isprintable() else "?" for each in url))
    return text if len(text) <= 200 else f"{text[:200]}..."


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


def canonical(url: str, *, keep_query: bool = False) -> str:
    """The canonical URI of a server: scheme and host in lower case, no default port, fragment or trailing slash.

    Specification 2026-07-28, basic/authorization, "Canonical Server URI".
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, _authority(parts), path, parts.query if keep_query else "", ""))


def root_of(url: str) -> str:
    """The origin of a URL, as an issuer without a path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_authority(parts)}"


def _authority(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return host if port is None or port == DEFAULT_PORTS.get(parts.scheme) else f"{host}:{port}"


def covers(resource: str, server: str) -> bool:
    """Whether the protected resource ``resource`` is the server, or a part of its URL that contains it.

    RFC 9728, section 3.3; a server may describe itself at its root.
    """
    if origin_of(resource) != origin_of(server):
        return False
    outer, inner = urlsplit(resource), urlsplit(server)
    path = outer.path.rstrip("/")
    return (inner.path.rstrip("/") + "/").startswith(path + "/") and outer.query in ("", inner.query)


def resource_metadata_urls(server: str) -> list[str]:
    """The well-known URLs of a server's metadata, in the order of the specification (RFC 9728, section 3.1)."""
    parts = urlsplit(server)
    path = parts.path.rstrip("/")
    root = root_of(server)
    query = f"?{parts.query}" if parts.query else ""
    urls = [f"{root}{RESOURCE_SUFFIX}{path}{query}", f"{root}{RESOURCE_SUFFIX}"]
    return list(dict.fromkeys(urls))


def server_metadata_urls(issuer: str) -> list[str]:
    """The URLs of an authorization server's metadata, in the order of the specification.

    Specification 2026-07-28, basic/authorization/authorization-server-discovery; RFC 8414, sections 3.1 and 5.
    """
    parts = urlsplit(issuer)
    root = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    path = parts.path.rstrip("/")
    urls = [f"{root}{SERVER_SUFFIX}{path}", f"{root}{OPENID_SUFFIX}{path}"]
    return [*urls, f"{root}{path}{OPENID_SUFFIX}"] if path else urls
