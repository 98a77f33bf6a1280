"""Credentials for the headers of requests: their protocols, and an API key."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, Protocol, cast, runtime_checkable

import attrs

from trioxport._diagnostics.validators import kind_of
from trioxport.auth.secret import Secret, secret
from trioxport.errors import UsageError

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Credentials(Protocol):
    """The credentials of a client. One object may serve any number of connections, all in the same Trio run.

    A transport sends them to the origin of its target only.
    """

    async def headers(self) -> Mapping[str, str]:
        """The headers of the next request, by names in lower case. Raises ``AuthenticationError``."""
        ...

    async def refused(self, headers: Mapping[str, str]) -> bool:
        """Note that a request with ``headers`` was answered with 401. Returns whether to send it once more."""
        ...


@runtime_checkable
class AuthFlow(Protocol):
    """An ``httpx.Auth``, or that of a compatible library such as ``httpx2``; for HTTP only.

    Each request goes through its flow, which may send requests of its own. Those to another origin than the endpoint's
    need TLS beyond loopback, show no client certificate, and trust the certificates of ``TLSOptions.ca``.
    """

    def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]: ...


class RequestAuthorization(Protocol):
    """The authorization of one request, and of its repetitions."""

    async def fields(self, method: str, url: str, start_soon: Callable[..., Any] | None = None) -> Mapping[str, str]:
        """The headers of the request, by names in lower case.

        Args:
            method: Its HTTP method.
            url: Its URL.
            start_soon: Runs a task of the connection, for a refresh that no request waits for.

        Raises:
            AuthenticationError: No valid credentials can be had.
        """
        ...

    async def answered(self, status: int, url: str, headers: Mapping[str, str]) -> bool:
        """Act on the response, whose ``headers`` are by names in lower case. Returns whether to send the request again.

        Raises ``AuthenticationError``.
        """
        ...


@runtime_checkable
class RequestAuthorizer(Protocol):
    """Credentials that depend on the request and on the challenges of the server, such as OAuth; for HTTP only."""

    def attempt(self, server: str, operation: str = "") -> RequestAuthorization:
        """Begin one request to the endpoint ``server``; ``operation`` names what it asks for."""
        ...


@attrs.frozen
class ApiKey:
    """A key in a header of every request.

    Args:
        header: The name of the header, such as ``"X-Api-Key"``.
        key: The key.

    Raises:
        UsageError: They cannot be written as a header.
    """

    header: str
    key: Secret = attrs.field(converter=secret)

    def __attrs_post_init__(self) -> None:
        if not isinstance(cast("object", self.header), str) or not _NAME.fullmatch(self.header):
            raise UsageError(f"{self.header!r} is no name of a header")
        field_value(self.key, "the API key")

    async def headers(self) -> Mapping[str, str]:
        return {self.header.lower(): self.key.reveal()}

    async def refused(self, headers: Mapping[str, str]) -> bool:
        return False


def field_value(value: Secret, what: str) -> str:
    """The text of ``value``. Raises ``UsageError``, which does not quote it, if it is not valid in a header."""
    text: Any = value.reveal()
    if not isinstance(text, str):
        hint = "Is the environment variable that holds it set?" if text is None else None
        raise UsageError(f"{what} is {kind_of(text)}, and has to be a str", hint=hint)
    if not _VALUE.fullmatch(text):
        raise UsageError(f"{what} is empty, or has characters that HTTP does not allow")
    return text
