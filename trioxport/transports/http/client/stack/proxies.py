"""Proxies of the environment, and the errors of requests that a proxy refused or could not pass on."""

from __future__ import annotations

import urllib.request
from importlib.util import find_spec
from typing import Final

import attrs
import httpx

from trioxport.errors import ConnectTimeout, NameResolutionError, ServerUnreachable, TransportError, UsageError
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._urls import HTTP_PORTS, is_loopback
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest, SendRequest
from trioxport.transports.http.failures import of_exchange, of_proxy_refusal

PROXY_PORTS: Final = {**HTTP_PORTS, "socks5": 1080, "socks5h": 1080}
"""The kinds of proxies, and their default ports."""

_HINT: Final = (
    "Check the proxy, and HTTPS_PROXY, HTTP_PROXY and ALL_PROXY in the environment; NO_PROXY lists hosts without one"
)


def proxy_for(url: httpx.URL, target: str) -> httpx.URL | None:
    """The proxy that the environment names for ``url``. Raises ``UsageError`` for one that cannot be used."""
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named:
        return None
    scheme = named.partition("://")[0].lower() if "://" in named else "http"
    if scheme not in PROXY_PORTS:
        raise UsageError(f"the proxy of the environment is of the unknown kind {scheme!r}", target=target)
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise UsageError("SOCKS is not installed", target=target, hint="Install it: pip install 'httpx[socks]'")
    return httpx.URL(named if "://" in named else f"http://{named}")


@attrs.frozen
class ThroughProxy:
    """Sends requests through a proxy.

    Args:
        inner: Sends them to the proxy.
        proxy: The URL of the proxy, redacted.
    """

    inner: SendRequest
    proxy: str

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        try:
            head, body = await self.inner(request)
        except httpx.TransportError as error:
            failure = of_proxy(error, self.proxy)
            if failure is None:
                raise
            raise failure from error
        if head.status_code == 407:
            await body.aclose()
            raise of_proxy_refusal(f"407 {head.reason_phrase}", f"the proxy {self.proxy}", hint=_HINT)
        return head, body


def of_proxy(error: httpx.TransportError, proxy: str) -> TransportError | None:
    """The error of an exchange that failed at the proxy; None if it failed elsewhere."""
    if isinstance(error, httpx.ProxyError):
        return of_proxy_refusal(str(error), f"the proxy {proxy}", hint=_HINT)
    failure = of_exchange(error)
    if not isinstance(failure, ServerUnreachable | NameResolutionError | ConnectTimeout):
        return None
    failure.reason = f"no connection to the proxy {proxy}: {failure.reason}"
    failure.hint = _HINT
    return failure
