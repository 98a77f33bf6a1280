"""HTTP for authorization servers: addresses are checked and pinned, sizes and times bounded."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit

import httpcore
import trio

from trioxport._version import __version__
from trioxport.auth.addresses import shown_url
from trioxport.auth.oauth.network import NETWORK_STEP, SSRF_SECTION, AddressGuard, NetworkPolicy
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse
from trioxport.errors import OAuthError

REDIRECTS: Final = (301, 302, 303, 307, 308)
CLOSE_SECONDS: Final = 1.0


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that the guard has checked, and resolves no name by itself."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._inner = cast("httpcore.AsyncNetworkBackend", httpcore.TrioBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._guard.addresses(host, port):
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")


class GuardedSender:
    """Sends the requests of OAuth on behalf of one MCP server.

    Each request has a connection of its own. Redirects are followed for metadata documents only, each one checked as
    the first URL.

    Args:
        server: The URL of the MCP server.
        policy: The options.
    """

    def __init__(self, server: str, policy: NetworkPolicy) -> None:
        self._guard = AddressGuard(server, policy)
        self._policy = policy
        self._context: ssl.SSLContext | None = None

    async def send(self, request: OAuthRequest) -> OAuthResponse:
        """Send a request and return the whole response. Raises ``OAuthError``."""
        with trio.move_on_after(self._policy.timeout):
            return await self._send_and_follow(request)
        reason = f"{shown_url(request.url)} did not answer within {self._policy.timeout:g} s"
        raise OAuthError(reason, step=NETWORK_STEP, retryable=True)

    async def _send_and_follow(self, request: OAuthRequest) -> OAuthResponse:
        url = request.url
        for _ in range(self._policy.max_redirects + 1):
            await self._guard.check_url(url)
            response = await self._exchange(request, url)
            location = response.headers.get("location")
            if response.status not in REDIRECTS or location is None:
                return response
            if request.purpose != "metadata":
                reason = f"{shown_url(url)} redirects, which no {request.purpose} request follows"
                raise OAuthError(reason, step=NETWORK_STEP, section="RFC 9700, section 4.12")
            url = _redirected(url, location)
        raise OAuthError(f"{shown_url(request.url)} redirects too often", step=NETWORK_STEP, section=SSRF_SECTION)

    async def _exchange(self, request: OAuthRequest, url: str) -> OAuthResponse:
        fields = {"user-agent": f"trioxport/{__version__}", **request.headers}
        try:
            async with self._pool(url) as pool:
                response = await pool.handle_async_request(
                    httpcore.Request(
                        request.method, url, headers=_fields(url, fields, request), content=request.content
                    )
                )
                try:
                    body = await self._body(response, url)
                finally:
                    with trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True):
                        await response.aclose()
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.ProxyError) as error:
            raise OAuthError(_reason(url, error), step=NETWORK_STEP, retryable=True) from error
        received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return OAuthResponse(response.status, received, body)

    def _pool(self, url: str) -> httpcore.AsyncConnectionPool:
        if self._context is None and urlsplit(url).scheme == "https":
            self._context = self._policy.tls.client_context("http/1.1")
        if self._policy.proxy is not None:
            return httpcore.AsyncHTTPProxy(self._policy.proxy, ssl_context=self._context)
        return httpcore.AsyncConnectionPool(self._context, network_backend=_PinnedBackend(self._guard))

    async def _body(self, response: httpcore.Response, url: str) -> bytes:
        """The body of a response. Raises ``OAuthError`` beyond the limit; the rest is not read."""
        stream = response.stream
        assert not isinstance(stream, Iterable)
        kept = bytearray()
        with trio.CancelScope() as scope:
            async for chunk in stream:
                kept += chunk
                if len(kept) > self._policy.max_size:
                    scope.cancel()  # reading on, cancelled, closes the generators within the stream
        if len(kept) > self._policy.max_size:
            reason = f"{shown_url(url)} answers with more than {self._policy.max_size} bytes"
            raise OAuthError(reason, step=NETWORK_STEP)
        return bytes(kept)


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        reason = f"{shown_url(url)} redirects to what is no URL"
        raise OAuthError(reason, step=NETWORK_STEP, section=SSRF_SECTION) from None


def _fields(url: str, fields: dict[str, str], request: OAuthRequest) -> list[tuple[str, str]]:
    authority = urlsplit(url).netloc
    length = [("content-length", str(len(request.content)))] if request.content is not None else []
    return [("host", authority), *fields.items(), *length]


def _reason(url: str, error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate of {shown_url(url)} is not valid: {cause.verify_message}"
    return f"{shown_url(url)} cannot be reached: {type(error).__name__}"
