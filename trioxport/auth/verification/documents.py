"""JSON documents of an authorization server, fetched within bounds of size and time."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import attrs
import httpx
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import SECONDS, instance_of
from trioxport.auth.addresses import fault_of
from trioxport.auth.tls import TLSOptions
from trioxport.auth.verified import VerificationUnavailable
from trioxport.errors import UsageError

MAX_DOCUMENT_BYTES: Final = 512 * 1024
"""The most bytes of a document, expanded."""
MAX_RETRY_AFTER_SECONDS: Final = 300.0
RETRY_AFTER_SECONDS: Final = 5.0
"""Seconds after which clients may try again, unless the authorization server asks for others, up to the maximum."""


@attrs.frozen
class IssuerDocument:
    """A response of an authorization server.

    Args:
        status: Its HTTP status.
        members: The members of its JSON object; empty if it is none.
    """

    status: int
    members: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen(eq=False)
class DocumentSource:
    """The means to ask authorization servers: an HTTP client, and the time that a request may take.

    Args:
        client: The application's own ``httpx.AsyncClient``, which stays open; by default each request has a connection
            of its own.
        tls: The trusted certificates, and the own one, of the default client.
        timeout: Seconds for each request, from its start to the end of the response.
    """

    client: httpx.AsyncClient | None = attrs.field(
        default=None, validator=instance_of(httpx.AsyncClient, "an httpx.AsyncClient").or_none(), repr=False
    )
    tls: TLSOptions | None = attrs.field(
        default=None, validator=instance_of(TLSOptions, "a TLSOptions(...)").or_none(), repr=False
    )
    timeout: float = attrs.field(default=5.0, validator=SECONDS)
    _contexts: list[ssl.SSLContext] = attrs.field(factory=list[ssl.SSLContext], init=False, repr=False)

    async def get(self, url: str) -> IssuerDocument:
        """Fetch a document. Raises ``VerificationUnavailable`` if there is no response to read."""
        return await self.request("GET", url)

    async def request(self, method: str, url: str, **options: Any) -> IssuerDocument:
        """Send a request, and read the response; redirects are not followed. Raises ``VerificationUnavailable``."""
        with trio.move_on_after(self.timeout):
            try:
                async with self._client() as client:
                    return await _exchange(client, method, url, options)
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError) as error:
                reason = f"{redact_url(url)} does not answer: {type(error).__name__}"
                raise VerificationUnavailable(reason, retry_after=RETRY_AFTER_SECONDS) from error
        reason = f"{redact_url(url)} did not answer within {self.timeout:g} s"
        raise VerificationUnavailable(reason, retry_after=RETRY_AFTER_SECONDS)

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[httpx.AsyncClient]:
        if self.client is not None:
            yield self.client
            return
        if not self._contexts:  # loading the trusted certificates takes milliseconds
            self._contexts.append((self.tls or TLSOptions()).client_context())
        async with httpx.AsyncClient(verify=self._contexts[0], timeout=self.timeout) as client:
            yield client


async def _exchange(client: httpx.AsyncClient, method: str, url: str, options: Mapping[str, Any]) -> IssuerDocument:
    fields = {"accept": "application/json", "accept-encoding": "identity"}
    async with client.stream(method, url, headers=fields, follow_redirects=False, **options) as response:
        body = await _read(response)
        if body is None:
            reason = f"{redact_url(url)} has more than {MAX_DOCUMENT_BYTES} bytes"
            raise VerificationUnavailable(reason, retry_after=RETRY_AFTER_SECONDS)
        if response.status_code in (429, 503):
            reason = f"{redact_url(url)} answers {response.status_code}"
            raise VerificationUnavailable(reason, retry_after=_retry_after(response.headers.get("retry-after")))
    return IssuerDocument(response.status_code, _members(body))


async def _read(response: httpx.Response) -> bytes | None:
    """The body of a response; None if it is too large."""
    body = bytearray()
    with trio.CancelScope() as reading:
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_DOCUMENT_BYTES:
                reading.cancel()  # the next read then ends the generators of httpx in order
    return None if reading.cancelled_caught or len(body) > MAX_DOCUMENT_BYTES else bytes(body)


def _retry_after(field: str | None) -> float:
    if field is None or not field.strip().isdecimal():
        return RETRY_AFTER_SECONDS
    return min(float(field.strip()[:9]), MAX_RETRY_AFTER_SECONDS) or 1.0


def _members(body: bytes) -> Mapping[str, Any]:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def check_url(url: str, option: str) -> str:
    """Return ``url``. Raises ``UsageError`` unless documents may be fetched from it."""
    if fault_of(url) is not None:
        raise UsageError(
            f"{option} has to be an https URL, or an http URL of this machine, without user name and fragment",
            target=redact_url(url),
        )
    return url
