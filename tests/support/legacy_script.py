"""A legacy server for the tests' scripts, and the handshake with it."""

from __future__ import annotations

from typing import Final

from tests.support.scripted_http import Reply, Script, Server
from trioxport import Connection, Notification, Request, Response

INITIALIZE: Final = Request(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
INITIALIZED: Final = Notification("notifications/initialized")
HELLO: Final = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}


def legacy(script: Script | None = None, session_id: str | None = "abc", stream: Script | None = None) -> Script:
    """A legacy server, which does ``script`` for all but the handshake and ``stream`` for a GET."""

    async def scripted(reply: Reply) -> None:
        asked = reply.asked
        if asked.rpc == "initialize":
            await reply.result(HELLO, **({} if session_id is None else {"mcp_session_id": session_id}))
        elif asked.rpc == "GET":
            await (reply.status(405) if stream is None else stream(reply))
        elif asked.rpc == "DELETE":
            await reply.status(200)
        elif script is not None and asked.rpc != "notifications/initialized":
            await script(reply)
        else:
            await (reply.result() if "id" in asked.message and asked.rpc else reply.status(202))

    return scripted


async def shake_hands(connection: Connection, server: Server) -> None:
    await connection.tx.send(INITIALIZE)
    assert await connection.rx.receive() == Response(0, HELLO)
    await connection.tx.send(INITIALIZED)
    await server.until(lambda: "GET" in server.rpcs())
