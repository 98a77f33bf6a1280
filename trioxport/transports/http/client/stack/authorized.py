"""Authorization that depends on each request, and on the challenges of the server, such as OAuth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import httpx

from trioxport.auth import RequestAuthorizer
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest, SendRequest

CHALLENGES: Final = (401, 403)


@attrs.frozen
class AuthorizedRequests:
    """Sends requests as ``authorizer`` says, and again after a challenge that it can meet.

    A message with an ``Authorization`` of its own is sent as it is.

    Args:
        inner: Sends requests to the endpoint's origin.
        url: The endpoint.
        authorizer: Authorizes the requests.
        start_soon: Runs a task of the connection.
    """

    inner: SendRequest
    url: httpx.URL
    authorizer: RequestAuthorizer
    start_soon: Callable[..., Any]
    _endpoint: str = attrs.field(init=False, default=attrs.Factory(lambda self: str(self.url), takes_self=True))
    _path: str = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.url.raw_path.decode("ascii"), takes_self=True)
    )

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        if "authorization" in request.headers:
            return await self.inner(request)
        url = self._endpoint if request.path == self._path else str(self.url.copy_with(raw_path=request.path.encode()))
        attempt = self.authorizer.attempt(self._endpoint, _operation(request.headers))
        while True:
            fields = await attempt.fields(request.method, url, self.start_soon)
            head, body = await self.inner(_with(request, fields) if fields else request)
            if head.status_code not in CHALLENGES and "dpop-nonce" not in head.headers:
                return head, body
            try:
                again = await attempt.answered(head.status_code, url, head.headers)
            except BaseException:
                await body.aclose()
                raise
            if not again:
                return head, body
            await body.aclose()


def _with(request: HTTPRequest, fields: Mapping[str, str]) -> HTTPRequest:
    """The request with further headers; its own take precedence."""
    headers = {**fields, **request.headers}
    return HTTPRequest(request.method, request.path, headers, request.content, request.patient)


def _operation(headers: Mapping[str, str]) -> str:
    """The operation that a request asks for, by the headers that name it."""
    method, name = headers.get("mcp-method", ""), headers.get("mcp-name")
    return method if name is None else f"{method} {name}"
