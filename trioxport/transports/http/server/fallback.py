"""ASGI applications for the requests that the endpoint does not answer itself."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from trioxport.transports.http.server.client_connection import ConnectedClient
from trioxport.transports.http.server.refusals import body_too_large
from trioxport.transports.http.server.request import Application, ClientGone, Field, Message, ServerRequest
from trioxport.transports.http.server.response_head import check_response_fields

_DISCONNECT: Final = "http.disconnect"


class ConnectionOver(OSError):
    """The client went away, or was too slow to read. An ``OSError``, as ASGI wants it of ``send``."""


@attrs.frozen
class RequestOrigin:
    """The facts about a request that only applications want.

    Args:
        version: The version of HTTP, as ASGI has it.
        raw_path: The path, as it was sent.
        fields: The headers, as they were sent.
        client: The connection.
    """

    version: str
    raw_path: bytes
    fields: Sequence[Field]
    client: ConnectedClient


async def run_application(application: Application, request: ServerRequest, origin: RequestOrigin, limit: int) -> None:
    """Let ``application`` answer a request, with a body of at most ``limit`` bytes.

    Raises:
        Refusal: The body has more.
        ClientGone: The client went away, and the application did not catch that.
    """
    calls = _Calls(request, limit)
    try:
        await application(_scope_of(request, origin), calls.receive, calls.send)
    except ConnectionOver as error:
        raise ClientGone from error


class _Calls:
    """``receive`` and ``send`` of an ASGI application, for one request."""

    def __init__(self, request: ServerRequest, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._size = 0
        self._more = True
        self._answered = trio.Event()

    async def receive(self) -> Message:
        """The next part of the body; after the body, ``http.disconnect`` once the client leaves."""
        if not self._more:
            await self._until_over()
            return {"type": _DISCONNECT}
        try:
            part, self._more = await self._request.receive_part()
        except ClientGone:
            self._more = False
            return {"type": _DISCONNECT}
        self._size += len(part)
        if self._size > self._limit:
            raise body_too_large(self._limit, b"")
        return {"type": "http.request", "body": part, "more_body": self._more}

    async def _until_over(self) -> None:
        """Wait until the client leaves, or its request is answered."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_answered, nursery.cancel_scope)
            await self._request.gone()
            nursery.cancel_scope.cancel()

    async def _cancel_when_answered(self, scope: trio.CancelScope) -> None:
        await self._answered.wait()
        scope.cancel()

    async def send(self, message: Message) -> None:
        """Write a part of the response. Raises ``ConnectionOver``."""
        more = message.get("more_body", False)
        try:
            if message["type"] == "http.response.start":
                await self._request.begin(message["status"], _checked(message.get("headers", ())))
            elif message["type"] == "http.response.body":
                await self._request.write(message.get("body", b""), more=more)
        except ClientGone as error:
            raise ConnectionOver("the client went away") from error
        finally:
            if message["type"] == "http.response.body" and not more:
                self._answered.set()


def _checked(fields: Any) -> list[Field]:
    """The headers of an application's response. Framing is this server's: it sets ``Transfer-Encoding`` itself."""
    found = [(bytes(name).lower(), bytes(value)) for name, value in fields]
    check_response_fields(found)
    return [field for field in found if field[0] != b"transfer-encoding"]


def _scope_of(request: ServerRequest, origin: RequestOrigin) -> dict[str, Any]:
    """The ASGI scope of a request."""
    client = origin.client
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": origin.version,
        "method": request.method,
        "scheme": "http" if client.tls is None else "https",
        "path": request.full_path,
        "raw_path": origin.raw_path,
        "query_string": request.query,
        "root_path": "",
        "headers": list(origin.fields),
        "client": client.client,
        "server": client.server,
    }
    if client.tls is not None:
        scope["extensions"] = {"tls": {"tls_version": ssl.TLSVersion[client.tls.replace(".", "_")].value}}
    return scope
