"""Redirects: a bounded number is followed, within the origin, if the method stays (RFC 9110, section 15.4).

Any other redirect is reported as a failure: headers and bodies are meant for this origin alone.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

import attrs
import httpx

from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._urls import HTTP_PORTS
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest, SendRequest

MAX_REDIRECTS: Final = 5
"""The redirects of one request that are followed."""

_SAME_METHOD_STATUSES: Final = (307, 308)
_ANY_METHOD_STATUSES: Final = (301, 302, 303)


@attrs.frozen
class FollowingRedirects:
    """Sends requests to ``url``, and follows redirects within its origin."""

    inner: SendRequest
    url: httpx.URL

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        for _ in range(MAX_REDIRECTS):
            head, body = await self.inner(request)
            path = self._path(request, head)
            if path is None:
                return head, body
            await body.aclose()
            request = attrs.evolve(request, path=path)
        return await self.inner(request)

    def _path(self, request: HTTPRequest, head: ResponseHead) -> str | None:
        """The path to request instead; None if the response is no redirect, or not one to follow."""
        get_only = _ANY_METHOD_STATUSES if request.method == "GET" else ()
        location = head.headers.get("location")
        if head.status_code not in (*_SAME_METHOD_STATUSES, *get_only) or not location:
            return None
        try:
            url = httpx.URL(urljoin(str(self.url.copy_with(raw_path=request.path.encode())), location))
        except (httpx.InvalidURL, ValueError):
            return None
        return url.raw_path.decode("ascii") if origin(url) == origin(self.url) and not url.userinfo else None


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL (RFC 6454)."""
    return url.scheme, url.host, url.port or HTTP_PORTS.get(url.scheme)
