"""Clients behind trusted reverse proxies: X-Forwarded-For, or Forwarded (RFC 7239)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trioxport.errors import UsageError
from trioxport.transports._http_heads import TOKEN
from trioxport.transports._urls import bracketed

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Hop: TypeAlias = tuple[str | None, str | None]

_PORT: Final = re.compile(r":[0-9]{1,5}")
_PAIR: Final = re.compile(rf'[ \t]*(?:({TOKEN.pattern})=("(?:[^"\\]|\\.)*"|[^\s;,"]*)[ \t]*)?([;,]|\Z)')
"""A parameter of a Forwarded header, or nothing, and the delimiter after it; linear in the length of the header."""


UNIX: Final = "unix"


def _networks(given: Sequence[str]) -> tuple[Network | Literal["unix"], ...]:
    if isinstance(given, str):
        raise TypeError("networks is a sequence of networks, not a text")
    try:
        return tuple(UNIX if each == UNIX else ipaddress.ip_network(each, strict=False) for each in given)
    except ValueError as error:
        raise UsageError(
            f"a trusted proxy is no network: {error}", hint='Write addresses or networks, as "10.0.0.0/8", or "unix"'
        ) from None


@attrs.frozen
class TrustedProxies:
    """Reverse proxies whose header about their clients is trusted.

    The header is read from right to left: each address that is a trusted proxy has added the one before it. The first
    that is none is the client. From any other peer the header is ignored. Name the header that the proxies themselves
    set: one that they pass on unchanged is written by the client.

    Args:
        networks: The proxies' addresses, or networks of them; ``"unix"`` for all clients of a Unix socket, which have
            no address.
        header: ``"x-forwarded-for"``, with ``X-Forwarded-Proto`` for the scheme, or ``"forwarded"`` (RFC 7239).

    Raises:
        UsageError: A text is no network.
    """

    networks: Sequence[Network | Literal["unix"]] = attrs.field(converter=_networks)
    header: Literal["x-forwarded-for", "forwarded"] = attrs.field(
        default="x-forwarded-for", validator=attrs.validators.in_(("x-forwarded-for", "forwarded")), kw_only=True
    )

    def client(self, peer: str | None, headers: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The address of the client behind ``peer``, and the scheme that it used; None if the header has no scheme."""
        scheme = None
        if not self._trusts(peer):
            return peer, scheme
        for address, protocol in self._hops(headers):
            scheme = protocol or scheme
            if address is None:  # unknown or hidden: the proxy stands for it
                break
            peer = address
            if not self._trusts(peer):
                break
        return peer, scheme

    def _trusts(self, peer: str | None) -> bool:
        if peer is None:
            return UNIX in self.networks
        address = _address_in(peer)
        return address is not None and any(address in each for each in self.networks if each != UNIX)

    def _hops(self, headers: Mapping[str, str]) -> Iterator[_Hop]:
        """The address and scheme that each proxy added, the nearest proxy's first."""
        value = headers.get(self.header, "")
        if not value:
            return iter(())
        if self.header == "forwarded":
            return map(_hop, reversed(_elements(value)))
        return _x_forwarded(value.split(","), headers.get("x-forwarded-proto", "").split(","))


def trusted_proxies(given: TrustedProxies | Sequence[str] | None) -> TrustedProxies | None:
    """The converter of the option ``trusted_proxies``: networks stand for proxies with ``X-Forwarded-For``."""
    return given if given is None or isinstance(given, TrustedProxies) else TrustedProxies(given)


def _x_forwarded(addresses: list[str], schemes: list[str]) -> Iterator[_Hop]:
    """Pairs from the right. With fewer schemes than addresses, the first is that of the client's connection."""
    for behind, address in enumerate(reversed(addresses), 1):
        scheme = schemes[-behind] if behind <= len(schemes) else schemes[0]
        yield _node(address.strip()), _scheme(scheme.strip())


def _elements(value: str) -> list[dict[str, str]]:
    """The parameters of each element of a Forwarded header; none if it is malformed.

    A quote that a client leaves open would swallow what a proxy adds: then no part of the header counts.
    """
    elements: list[dict[str, str]] = [{}]
    position, end = 0, ""
    while position < len(value) or end:
        pair = _PAIR.match(value, position)
        if pair is None or (pair[1] or "").lower() in elements[-1]:
            return []
        if pair[1] is not None:
            elements[-1][pair[1].lower()] = pair[2].strip('"')
        position, end = pair.end(), pair[3]
        if end == ",":
            elements.append({})
    return elements


def _hop(element: Mapping[str, str]) -> _Hop:
    return _node(element.get("for", "")), _scheme(element.get("proto", ""))


def _scheme(text: str) -> str | None:
    scheme = text.lower()
    return scheme if scheme in ("http", "https") else None


def _node(text: str) -> str | None:
    """An address as ``ConnectionInfo.peer`` has it, with its port or without; None for another text."""
    address = _address_in(text)
    if address is None or "%" in text:  # a zone has no meaning beyond the proxy, and may be any text
        return None
    port = _PORT.search(text.rpartition("]")[2]) if "]" in text or text.count(":") == 1 else None
    return bracketed(str(address)) + (port[0] if port else "")


def _address_in(node: str) -> Address | None:
    host = node
    if node.startswith("["):
        host = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        host = node.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address
