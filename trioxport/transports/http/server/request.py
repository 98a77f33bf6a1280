"""One HTTP request and its response: the interface that the endpoint uses, over any HTTP server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeAlias

import trio

from trioxport._diagnostics.redaction import Headers
from trioxport.abc import ConnectionInfo, Era
from trioxport.auth import VerifiedToken
from trioxport.codecs.json import JSON
from trioxport.messages import ErrorResponse
from trioxport.protocol import INVALID_REQUEST, LAST_EVENT_HEADER, SESSION_HEADER, VERSION_HEADER
from trioxport.transports._access.request import AccessRefused, client_of
from trioxport.transports.http.server.refusals import Refusal

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
        is_forwarded: Whether another server has it from the client, and has checked it.
        is_known: Whether an earlier request of the same client with the same head has passed the checks of the head.
    """

    __slots__ = (
        "_shown",
        "fields",
        "full_path",
        "headers",
        "is_known",
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

    is_forwarded: ClassVar[bool] = False

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: dict[str, str],
        *,
        peer: str | None,
        secure: bool,
        tls: str | None,
        root: str = "",
    ) -> None:
        self._shown: Mapping[str, str] | None = None
        self.method = method
        self.full_path = path
        self.path = path.removeprefix(root)
        self.query = query
        self.headers = headers
        self.peer = peer
        self.secure = secure
        self.tls = tls
        self.principal: str | None = None
        self.token: VerifiedToken | None = None
        self.fields: list[Field] = []
        self.status = 0
        self.sent = 0
        self.mcp_method: str | None = None
        self.is_known = False

    def become_known(self) -> None:
        """Note that the head has passed its checks, for servers that see the same head again."""

    @property
    def client(self) -> tuple[bool, str]:
        """The client for whom limits hold: its principal, or else its address; and whether it is a principal."""
        return client_of(self)

    def shown(self) -> Mapping[str, str]:
        """The headers without credentials; ``principal`` names the client."""
        if self._shown is None:
            self._shown = Headers({name: value for name, value in self.headers.items() if name not in SECRET_FIELDS})
        return self._shown


class ServerRequest(RequestHead, ABC):
    """A request and its response.

    Every write raises ``ClientGone`` once the client has stopped reading. Subclasses write, and count what they wrote
    by ``begun``, ``status`` and ``sent``.

    Attributes:
        begun: Whether the response has begun.
        scope: The cancel scope in which the request is answered.
    """

    __slots__ = ("begun", "scope")

    begun: bool
    scope: trio.CancelScope

    def announces_more_than(self, limit: int) -> bool:
        """Whether the body is announced to have more than ``limit`` bytes."""
        length = self.headers.get("content-length", "")
        return length.isdecimal() and int(length[:18]) > limit

    @abstractmethod
    async def receive_part(self) -> tuple[bytes, bool]:
        """The next part of the body, and whether more follows. Raises ``ClientGone``."""

    @abstractmethod
    async def gone(self) -> None:
        """Wait until the client disconnects, once the body was read."""

    def cancel(self) -> None:
        """Cancel the answer, since the client has left."""
        self.scope.cancel()

    def expire(self, deadline: float) -> None:
        """Cancel the answer at a time on the clock of Trio, with which the server stops."""
        self.scope.deadline = min(self.scope.deadline, deadline)

    @abstractmethod
    async def respond(self, status: int, body: bytes = b"", *fields: Field) -> None:
        """Write a whole response; its body is JSON unless ``fields`` has a content type."""

    def respond_now(self, status: int, body: bytes, *fields: Field) -> bytes | None:
        """Write a whole response without waiting, and return the rest, which is for :meth:`write_rest`.

        None if this request cannot do that: then nothing was written.
        """
        return None

    async def write_rest(self, rest: bytes) -> None:
        """Write what :meth:`respond_now` has left, if anything."""
        assert not rest
        await trio.lowlevel.checkpoint()

    @abstractmethod
    async def begin(self, status: int, fields: list[Field]) -> None:
        """Begin a response of unknown length. Its head may be written with the first part of its body."""

    @abstractmethod
    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Write a part of the body; the last one with ``more=False``."""

    @abstractmethod
    async def delegate(self, application: Application, limit: int) -> None:
        """Delegate the request to ``application``. Raises ``Refusal`` if the body has more than ``limit`` bytes."""

    def response_fields(self, body: bytes, fields: Sequence[Field]) -> list[Field]:
        """The headers of a whole response, with its type."""
        if not body:
            return [*self.fields, *fields]
        if fields and any(name == b"content-type" for name, _ in fields):
            return [*self.fields, *fields]
        return [*self.fields, *fields, _JSON_FIELD]

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
