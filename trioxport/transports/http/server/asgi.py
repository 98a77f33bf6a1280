"""Requests over the ASGI 3 interface of the program that runs the server."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from trioxport.transports._http_heads import values_by_name
from trioxport.transports._urls import authority
from trioxport.transports.http.server.refusals import body_too_large
from trioxport.transports.http.server.request import (
    Application,
    ClientGone,
    Field,
    Message,
    Receive,
    Scope,
    Send,
    ServerRequest,
)

DISCONNECT: Final = "http.disconnect"
DISCONNECT_ERRORS: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

_TLS_VERSIONS: Final = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


class AsgiRequest(ServerRequest):
    """A request as an ASGI application gets it."""

    __slots__ = ("_handed_over", "_receive", "_scope", "_send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        super().__init__(
            scope["method"],
            scope["path"],
            scope.get("query_string", b""),
            values_by_name(scope["headers"]),
            peer=client and authority(*client),
            secure=scope.get("scheme") == "https",
            tls=_TLS_VERSIONS.get(scope.get("extensions", {}).get("tls", {}).get("tls_version")),
            root=scope.get("root_path", ""),
        )
        self.begun = False
        self._handed_over = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self.scope = trio.CancelScope()

    async def receive_part(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == DISCONNECT:
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def gone(self) -> None:
        with suppress(*DISCONNECT_ERRORS):
            while (await self._receive())["type"] != DISCONNECT:
                pass
        if self._handed_over:  # the event follows each response then, whether the client is there or not
            await trio.sleep_forever()

    async def respond(self, status: int, body: bytes = b"", *fields: Field) -> None:
        await self.begin(status, [*self.response_fields(body, fields), (b"content-length", b"%d" % len(body))])
        await self.write(body, more=False)

    async def begin(self, status: int, fields: list[Field]) -> None:
        await self._written({"type": "http.response.start", "status": status, "headers": fields})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._written({"type": "http.response.body", "body": data, "more_body": more})

    async def _written(self, message: Message) -> None:
        self._note(message)
        try:
            await self._send(message)
        except DISCONNECT_ERRORS as error:
            raise ClientGone from error

    def _note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
        else:
            self._handed_over = not message.get("more_body", False)
        self.sent += len(message.get("body", b""))

    async def delegate(self, application: Application, limit: int) -> None:
        if self.announces_more_than(limit):
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

        await application(self._scope, receive, send)
