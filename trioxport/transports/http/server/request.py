"""One HTTP request and its response, over the ASGI 3 interface of the program that runs the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

import trio

from trioxport._diagnostics.redaction import Headers
from trioxport.abc import ConnectionInfo, Era
from trioxport.auth import VerifiedToken
from trioxport.codecs.json import JSON
from trioxport.messages import ErrorResponse
from trioxport.protocol import INVALID_REQUEST, LAST_EVENT_HEADER, SESSION_HEADER, VERSION_HEADER
from trioxport.transports._access.request import AccessRefused, client_of
from trioxport.transports._http_heads import values_by_name
from trioxport.transports._urls import authority
from trioxport.transports.http.server.refusals import Refusal, body_too_large

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Field: TypeAlias = tuple[bytes, bytes]

VERSION_FIELD: Final = VERSION_HEADER.lower()
SESSION_FIELD: Final = SESSION_HEADER.lower()
LAST_EVENT_FIELD: Final = LAST_EVENT_HEADER.lower()
"""Header names in lower case, as in ``RequestHead.headers``."""

SECRET_FIELDS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers that applications do not see, because they hold credentials."""

_JSON_FIELD: Final = (b"content-type", b"application/json")
_TLS_VERSIONS: Final = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_DISCONNECT_ERRORS: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class ClientGone(Exception):
    """The client closed the connection, or stopped reading."""


class RequestHead:
    """The head of a request, its client, and the progress of its response.

    Attributes:
        method: The HTTP method, as ``"POST"``.
        path: The path, without the prefix under which a surrounding application mounts the endpoint.
        full_path: The path with it.
        query: The part of the URL behind the question mark.
        headers: The headers by names in lower case; values of the same name are joined by commas.
        peer: The client's address.
        secure: Whether the connection is encrypted.
        tls: The version of TLS, if it is known.
        principal: The client, once it is authenticated.
        token: The claims of its bearer token, if the verifier returns them.
        fields: Headers of every response to it.
        status: The status of the response; 0 before its head was written.
        sent: Bytes of the response's body that were written.
        mcp_method: The method of the message in a POST, once it was read.
    """

    __slots__ = (
        "_shown",
        "fields",
        "full_path",
        "headers",
        "mcp_method",
        "method",
        "path",
        "peer",
        "principal",
        "query",
        "secure",
        "sent",
        "status",
        "tls",
        "token",
    )

    def __init__(self, scope: Scope) -> None:
        self._shown: Mapping[str, str] | None = None
        self.method: str = scope["method"]
        self.full_path: str = scope["path"]
        self.path: str = self.full_path.removeprefix(scope.get("root_path", ""))
        self.query: bytes = scope.get("query_string", b"")
        self.headers = values_by_name(scope["headers"])
        client = scope.get("client")
        self.peer: str | None = client and authority(*client)
        self.secure = scope.get("scheme") == "https"
        self.tls = _TLS_VERSIONS.get(scope.get("extensions", {}).get("tls", {}).get("tls_version"))
        self.principal: str | None = None
        self.token: VerifiedToken | None = None
        self.fields: list[Field] = []
        self.status = 0
        self.sent = 0
        self.mcp_method: str | None = None

    @property
    def client(self) -> tuple[bool, str]:
        """The client for whom limits hold: its principal, or else its address; and whether it is a principal."""
        return client_of(self)

    def shown(self) -> Mapping[str, str]:
        """The headers without credentials; ``principal`` names the client."""
        if self._shown is None:
            self._shown = Headers({name: value for name, value in self.headers.items() if name not in SECRET_FIELDS})
        return self._shown


class ServerRequest(RequestHead):
    """A request and its response. Every write raises ``ClientGone`` once the client has stopped reading.

    Attributes:
        begun: Whether the head of the response was written.
    """

    __slots__ = ("_receive", "_send", "begun")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope)
        self._receive = receive
        self._send = send
        self.begun = False

    async def body(self, limit: int, count: Callable[[int], None]) -> bytes:
        """Read the body. Raises ``Refusal`` as soon as it is known to have more than ``limit`` bytes.

        ``count`` is called with the bytes of each part that arrives, and may raise.
        """
        if self._announces_more_than(limit):
            seen = b"" if "expect" in self.headers else (await self._receive()).get("body", b"")
            raise body_too_large(limit, seen)
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            count(len(parts[-1]))
            if size > limit:
                raise body_too_large(limit, parts[0])
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _announces_more_than(self, limit: int) -> bool:
        length = self.headers.get("content-length", "")
        return length.isdecimal() and int(length[:18]) > limit

    async def delegate(self, application: Application, scope: Scope, limit: int) -> None:
        """Delegate the request to ``application``. Raises ``Refusal`` if the body has more than ``limit`` bytes."""
        if self._announces_more_than(limit):
            raise body_too_large(limit, b"")
        size = 0

        async def receive() -> Message:
            nonlocal size
            message = await self._receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise body_too_large(limit, b"")
            return message

        async def send(message: Message) -> None:
            self._note(message)
            await self._send(message)

        await application(scope, receive, send)

    async def gone(self) -> None:
        """Wait until the client disconnects, once the body was read."""
        with suppress(*_DISCONNECT_ERRORS):
            while (await self._receive())["type"] != "http.disconnect":
                pass

    async def respond(self, status: int, body: bytes = b"", *fields: Field) -> None:
        """Write a whole response; its body is JSON unless ``fields`` has a content type."""
        head = [*self.fields, *fields]
        if body and not any(name == b"content-type" for name, _ in fields):
            head.append(_JSON_FIELD)
        head.append((b"content-length", b"%d" % len(body)))
        await self.begin(status, head)
        await self.write(body, more=False)

    async def begin(self, status: int, fields: list[Field]) -> None:
        """Write the head of a response."""
        await self._written({"type": "http.response.start", "status": status, "headers": fields})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Write a part of the body; the last one with ``more=False``."""
        await self._written({"type": "http.response.body", "body": data, "more_body": more})

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
        self.sent += len(message.get("body", b""))

    async def _written(self, message: Message) -> None:
        self._note(message)
        try:
            await self._send(message)
        except _DISCONNECT_ERRORS as error:
            raise ClientGone from error

    async def refuse(self, refusal: AccessRefused) -> None:
        """Answer with a refusal, unless the client left."""
        error = refusal.error if isinstance(refusal, Refusal) else ErrorResponse(None, INVALID_REQUEST, refusal.reason)
        with suppress(ClientGone):
            await self.respond(refusal.status, JSON.encode(error), *refusal.fields)


def describe_connection(info: ConnectionInfo, request: RequestHead, era: Era, version: str | None) -> None:
    """Fill in the information about a connection from the request that makes it."""
    info.era = era
    info.protocol_version = version
    info.headers = request.shown()
    info.principal = request.principal
    info.token = request.token
    info.tls = request.tls
