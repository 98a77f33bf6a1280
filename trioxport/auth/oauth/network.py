"""The policy for addresses that servers name, against server-side request forgery.

A server that asks for authorization names URLs to request. It shall not reach what the client's machine can reach and
the server cannot. Specification 2026-07-28, security best practices, "Server-Side Request Forgery"; RFC 9728, 7.7.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport.auth.addresses import fault_of, is_loopback_host, shown_url
from trioxport.auth.tls import TLSOptions
from trioxport.errors import OAuthError, UsageError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Area: TypeAlias = Literal["public", "loopback", "link-local", "private", "reserved"]

NETWORK_STEP: Final = "network"
SSRF_SECTION: Final = "RFC 9728, section 7.7"
TRANSLATED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16"))
"""IPv6 prefixes whose addresses hold an IPv4 address that is reached through them."""


@attrs.frozen
class NetworkPolicy:
    """The options of requests to authorization servers.

    Args:
        proxy: The URL of an egress proxy, such as ``http://proxy:4750``, which resolves and checks the names itself.
        tls: Trusted authorities; by default those that this machine trusts.
        allowed_hosts: Hosts that may be private, and on loopback without TLS, such as an authorization server in the
            own network.
        timeout: Seconds for one request with its redirects.
        max_size: Bytes of a response.
        max_redirects: Redirects of one metadata document; no other request follows any.
    """

    proxy: str | None = attrs.field(default=None, repr=lambda value: redact_url(value or ""))
    tls: TLSOptions = attrs.field(factory=TLSOptions)
    allowed_hosts: Sequence[str] = attrs.field(default=(), converter=tuple[str, ...])
    timeout: float = 15.0
    max_size: int = 256 * 1024
    max_redirects: int = 3

    def __attrs_post_init__(self) -> None:
        if not self.timeout > 0 or self.max_size < 1 or self.max_redirects < 0:
            raise UsageError("timeout and max_size are positive, and max_redirects is not negative")


def area_of(address: Address) -> Area:
    """The area of the network in which an address is; an IPv6 address that stands for an IPv4 one is in that one's."""
    if isinstance(address, ipaddress.IPv6Address) and (inner := _inner(address)) is not None:
        return area_of(inner)
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return "reserved"
    return "public" if address.is_global else "private"


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in TRANSLATED[0]:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, as the system resolves it. Raises ``OAuthError``."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OAuthError(f"{host} has no address", step=NETWORK_STEP, retryable=True) from error
    return list(dict.fromkeys(ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found))


class AddressGuard:
    """The decision of which addresses may be requested on behalf of one MCP server.

    Args:
        server: The URL of the MCP server. Where it is itself on loopback, in a private network or link-local, its
            authorization server may be there as well.
        policy: The options.
    """

    def __init__(self, server: str, policy: NetworkPolicy) -> None:
        parts = urlsplit(server)
        self._host = parts.hostname or ""
        self._port = parts.port or 443
        self._policy = policy
        self._areas: frozenset[Area] | None = None

    async def check_url(self, url: str) -> None:
        """Raise ``OAuthError`` for a URL that must not be requested."""
        if fault := fault_of(url):
            raise _refused(f"{shown_url(url)} is refused: {fault}")
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host in self._policy.allowed_hosts:
            return
        if parts.scheme == "http" and "loopback" not in await self._own_areas():
            raise _refused(f"{shown_url(url)} is refused: it is not encrypted, and the server is not on this machine")
        if (literal := _literal(host)) is not None:
            await self.check(host, literal)

    async def check(self, host: str, address: Address) -> None:
        """Raise ``OAuthError`` if ``host`` must not be reached at ``address``."""
        area = area_of(address)
        if area == "public" or host in self._policy.allowed_hosts or area in await self._own_areas():
            return
        hint = "If this is your authorization server, pass network=NetworkPolicy(allowed_hosts=[...])"
        raise _refused(f"{host} is refused: its address is {area}, and the server's is not", hint)

    async def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of ``host``, all checked. Connect to these, and resolve no second time."""
        literal = _literal(host)
        found = [literal] if literal is not None else await resolve(host, port)
        for address in found:
            await self.check(host, address)
        return found

    async def _own_areas(self) -> frozenset[Area]:
        """The areas, other than the public one, in which the MCP server is with all of its addresses."""
        if self._areas is None:
            if is_loopback_host(self._host):
                areas: set[Area] = {"loopback"}
            else:
                areas = {area_of(address) for address in await resolve(self._host, self._port)}
            self._areas = frozenset(areas) if "public" not in areas else frozenset()
        return self._areas - {"reserved"}


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refused(reason: str, hint: str | None = None) -> OAuthError:
    return OAuthError(reason, step=NETWORK_STEP, section=SSRF_SECTION, hint=hint)
