"""The addresses of clients behind reverse proxies that the operator trusts: X-Forwarded-For, or RFC 7239."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from trioxport.errors import UsageError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORT: Final = re.compile(r":[0-9]{1,5}")
_PAIR: Final = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*')


def _networks(given: Sequence[str]) -> tuple[Network, ...]:
    if isinstance(given, str):
        raise TypeError("networks is a sequence of networks, not a text")
    try:
        return tuple(ipaddress.ip_network(each, strict=False) for each in given)
    except ValueError as error:
        raise UsageError(
            f"a trusted proxy is no network: {error}", hint='Write addresses or networks, as "10.0.0.0/8"'
        ) from None


@attrs.frozen
class TrustedProxies:
    """Reverse proxies whose word about their clients is taken.

    The header is read from right to left: each address that is a trusted proxy has added the one before it. The first
    that is none is the client. From any other peer the header is ignored. Name the header that the proxies themselves
    set: one that they pass on as it came could be written by anybody.

    Args:
        networks: The proxies' addresses, or networks of them.
        header: ``"x-forwarded-for"``, with ``X-Forwarded-Proto`` for the scheme, or ``"forwarded"`` (RFC 7239).

    Raises:
        UsageError: A network is none.
    """

    networks: Sequence[Network] = attrs.field(converter=_networks)
    header: Literal["x-forwarded-for", "forwarded"] = attrs.field(
        default="x-forwarded-for", validator=attrs.validators.in_(("x-forwarded-for", "forwarded")), kw_only=True
    )

    def client(self, peer: str | None, headers: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The address of the client behind ``peer``, and the scheme that it used, or None if that is not said."""
        scheme = None
        for hop in reversed(list(self._hops(headers))):
            if not self._trusts(peer):
                break
            address, protocol = hop
            scheme = protocol or scheme
            if address is None:  # an unknown or hidden one: the proxy stands for it
                break
            peer = address
        return peer, scheme

    def _trusts(self, peer: str | None) -> bool:
        address = _address_in(peer or "")
        return address is not None and any(address in network for network in self.networks)

    def _hops(self, headers: Mapping[str, str]) -> Iterator[tuple[str | None, str | None]]:
        """The address and scheme that each proxy has noted, the client's own first."""
        value = headers.get(self.header, "")
        if self.header == "forwarded":
            yield from (_forwarded(element) for element in _elements(value)) if value else ()
        elif value:
            schemes = [each.strip().lower() for each in headers.get("x-forwarded-proto", "").split(",")]
            addresses = value.split(",")
            for place, each in enumerate(addresses):
                behind = len(addresses) - place
                scheme = schemes[-behind] if behind <= len(schemes) else schemes[0]
                yield _node(each.strip()), scheme if scheme in ("http", "https") else None


def _elements(value: str) -> list[str]:
    """The elements of a Forwarded header; commas in quotes do not divide."""
    return re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', value)


def _forwarded(element: str) -> tuple[str | None, str | None]:
    pairs = {name.lower(): value.strip('"') for name, value in _PAIR.findall(element)}
    scheme = pairs.get("proto", "").lower()
    return _node(pairs.get("for", "")), scheme if scheme in ("http", "https") else None


def _node(text: str) -> str | None:
    """An address as ``ConnectionInfo.peer`` has it, with its port or without; None for what is no address."""
    address = _address_in(text)
    if address is None:
        return None
    port = _PORT.search(text.rpartition("]")[2]) if "]" in text or text.count(":") == 1 else None
    shown = f"[{address}]" if address.version == 6 else str(address)
    return shown + (port[0] if port else "")


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
