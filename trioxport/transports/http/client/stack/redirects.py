"""Redirects: followed within the origin, where the method stays the same, and not for ever (RFC 9110, section 15.4).

Any other is left to be told as the failure that it is: what goes with a request is meant for this origin alone.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

import attrs
import httpx

from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._urls import HTTP_PORTS
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest, SendRequest

MOST: Final = 5
"""How many redirects of one request are followed."""

_SAME_METHOD: Final = (307, 308)
_ANY_METHOD: Final = (301, 302, 303)


@attrs.frozen
class FollowingRedirects:
    """Carries requests to ``url``, and to where that sends them on to within its origin."""

    inner: SendRequest
    url: httpx.URL

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        for _ in range(MOST):
            head, source = await self.inner(asked)
            path = self._path(asked, head)
            if path is None:
                return head, source
            await source.aclose()
            asked = attrs.evolve(asked, path=path)
        return await self.inner(asked)

    def _path(self, asked: HTTPRequest, head: ResponseHead) -> str | None:
        """Where to go on; None if the response is no redirect, or none to follow."""
        followed = _SAME_METHOD if asked.method != "GET" else (*_SAME_METHOD, *_ANY_METHOD)
        location = head.headers.get("location")
        if head.status_code not in followed or not location:
            return None
        try:
            url = httpx.URL(urljoin(str(self.url.copy_with(raw_path=asked.path.encode())), location))
        except (httpx.InvalidURL, ValueError):
            return None
        return url.raw_path.decode("ascii") if origin(url) == origin(self.url) and not url.userinfo else None


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL (RFC 6454)."""
    return url.scheme, url.host, url.port or HTTP_PORTS.get(url.scheme)
