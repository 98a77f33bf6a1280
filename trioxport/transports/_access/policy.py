"""The access policy: the checks of a request by Host, Origin, bearer token and rate, before anything else is read.

A page of any site can make a browser send requests to this machine, and can make its own name resolve to this machine
(DNS rebinding). The browser always tells the host that it believes to talk to, and the origin of the page.
Specification 2026-07-28, basic/transports/streamable-http, section Security Warning; RFC 6455, section 10.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import attrs

from trioxport._core.shared_rates import SharedRates
from trioxport._core.token_bucket import Rate
from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.refusal_log import RefusalLog, status_reason
from trioxport._diagnostics.validators import WORDS, OptionCheck
from trioxport.errors import UsageError
from trioxport.transports._access.admission import Admission
from trioxport.transports._access.bearer import BearerAuth
from trioxport.transports._access.protected import ProtectedResource, protected_resource
from trioxport.transports._access.proxies import TrustedProxies, trusted_proxies
from trioxport.transports._access.rates import Rates
from trioxport.transports._access.request import AccessRefused, AccessRequest, address_of, client_of
from trioxport.transports._urls import bracketed, is_loopback, is_unspecified

_RATE: Final = OptionCheck(
    "a Rate(...) or a RedisRates(...)", lambda rate: isinstance(rate, Rate | SharedRates)
).or_none()
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
_PAGE_SCHEMES: Final = {"ws": "http", "wss": "https"}
"""The scheme of the pages of a server that is reached by another one."""


@attrs.frozen
class AccessOptions:
    """The options of the access policy, which the configurations of servers share and document."""

    hosts: Sequence[str] | None = attrs.field(default=None, validator=WORDS.or_none(), kw_only=True)
    origins: Sequence[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    verify: ProtectedResource | None = attrs.field(default=None, converter=protected_resource, repr=False, kw_only=True)
    rate: Rate | SharedRates | None = attrs.field(default=None, validator=_RATE, kw_only=True)
    trusted_proxies: TrustedProxies | None = attrs.field(default=None, converter=trusted_proxies, kw_only=True)


class AccessPolicy:
    """The access policy of one server.

    Args:
        options: The options of the policy.
        url: The URL of the server.
        publishes_metadata: Whether the server answers requests for the metadata of RFC 9728 itself.

    Attributes:
        bearer: The check of tokens; None where clients need none.

    Raises:
        UsageError: The server listens on all addresses, and has no ``hosts``.
    """

    def __init__(self, options: AccessOptions, url: str, *, publishes_metadata: bool) -> None:
        parts = urlsplit(url)
        self._hosts = _hosts(options.hosts, url)
        own = f"{_PAGE_SCHEMES.get(parts.scheme, parts.scheme)}://{parts.netloc}"
        self._origins = frozenset((*options.origins, own))
        self._proxies = options.trusted_proxies
        self.bearer: BearerAuth | None = None
        if options.verify is not None:
            self.bearer = BearerAuth(options.verify, parts.path or "/", publishes_metadata=publishes_metadata)
        self._rates = None if options.rate is None else Rates(options.rate)

    def identify(self, request: AccessRequest) -> None:
        """Replace peer and scheme of a request by those of the client behind trusted proxies."""
        if self._proxies is not None:
            request.peer, scheme = self._proxies.client(request.peer, request.headers)
            request.secure = request.secure if scheme is None else scheme == "https"

    async def check(self, request: AccessRequest) -> None:
        """Check a request and find its principal. Raises ``AccessRefused``."""
        self.check_host(request)
        self.check_origin(request)
        await self.check_client(request)

    def check_host(self, request: AccessRequest) -> None:
        """Raise ``AccessRefused`` (421) if a request is for a host that this server is not."""
        host = request.headers.get("host", "").lower()
        if self._hosts is None or host in self._hosts or _without_port(host) in self._hosts:
            return
        detail = f"the Host is {host!r}; add it to hosts= if clients may use it"
        raise AccessRefused(421, "This server is not known under the name in the Host header", detail=detail)

    def check_origin(self, request: AccessRequest) -> None:
        """Raise ``AccessRefused`` (403) if a request comes from a page of another origin: then it has an Origin."""
        origin = request.headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        own = f"{'https' if request.secure else 'http'}://{request.headers.get('host', '')}"
        if origin.lower() != own.lower():
            detail = f"the Origin is {origin!r}; add it to origins= if its pages may ask"
            raise AccessRefused(403, "Pages of this Origin may not ask here", about="Origin", detail=detail)

    @property
    def checks_clients(self) -> bool:
        """Whether :meth:`check_client` checks anything."""
        return self.bearer is not None or self._rates is not None

    async def check_client(self, request: AccessRequest) -> None:
        """Check the bearer token and the rate. Raises ``AccessRefused`` (401, 403, 429 or 503)."""
        if self.bearer is not None:
            await self._check_token(request, self.bearer)
        if self._rates is not None:
            await self._rates.take(client_of(request))

    def admission(self, request: AccessRequest, refusals: RefusalLog) -> Admission:
        """The permission of the client of a request that was checked, for a connection that outlives the request."""
        if self.bearer is None:
            return Admission()
        return Admission.of(
            request.token, self.bearer.scopes, partial(refusals.note, status_reason(403, "scope"), request.peer)
        )

    async def _check_token(self, request: AccessRequest, bearer: BearerAuth) -> None:
        """Check the token. A refused one is charged to the address: verifying can cost a request elsewhere."""
        check = partial(bearer.authenticate, request, bearer.token_of(request))
        if self._rates is None:
            await check()
        else:
            await self._rates.guard(address_of(request.peer), check)


def _hosts(given: Sequence[str] | None, url: str) -> frozenset[str] | None:
    """The hosts that requests may be for; None for any."""
    if given is not None:
        return None if "*" in given else frozenset(host.lower() for host in given)
    listening = urlsplit(url).hostname or ""
    if is_loopback(listening):
        return frozenset((*_LOOPBACK, bracketed(listening)))
    if is_unspecified(listening):
        raise UsageError(
            "a server for all addresses has to know the names under which clients reach it",
            target=redact_url(url),
            hint='Pass hosts=["mcp.example.com"]: without them any web page could reach it (DNS rebinding)',
        )
    return frozenset((bracketed(listening.lower()),))


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdecimal() else host
