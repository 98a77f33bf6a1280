"""Exchanges through a proxy: where the proxy is what fails, the error names it."""

from __future__ import annotations

from typing import Final

import attrs
import httpx

from trioxport.errors import ConnectTimeout, NameResolutionError, ServerUnreachable, TransportError
from trioxport.transports.http._failures import of_exchange, of_proxy_refusal
from trioxport.transports.http._wire import Asked, Carry, Head, Source

_HINT: Final = (
    "Check the proxy, and HTTPS_PROXY, HTTP_PROXY and ALL_PROXY in the environment; NO_PROXY lists hosts without one"
)


@attrs.frozen
class Proxied:
    """Carries requests through a proxy.

    Args:
        inner: What sends them.
        proxy: The URL of the proxy, redacted.
    """

    inner: Carry
    proxy: str

    async def carry(self, asked: Asked) -> tuple[Head, Source]:
        try:
            head, source = await self.inner(asked)
        except httpx.TransportError as error:
            failure = of_proxy(error, self.proxy)
            if failure is None:
                raise
            raise failure from error
        if head.status_code == 407:
            await source.aclose()
            raise of_proxy_refusal(f"407 {head.reason_phrase}", f"the proxy {self.proxy}", hint=_HINT)
        return head, source


def of_proxy(error: httpx.TransportError, proxy: str) -> TransportError | None:
    """The error of an exchange that the proxy broke; None if it was not the proxy."""
    if isinstance(error, httpx.ProxyError):
        return of_proxy_refusal(str(error), f"the proxy {proxy}", hint=_HINT)
    failure = of_exchange(error)
    if not isinstance(failure, ServerUnreachable | NameResolutionError | ConnectTimeout):
        return None
    failure.reason = f"no connection to the proxy {proxy}: {failure.reason}"
    failure.hint = _HINT
    return failure
