"""Servers of the legacy era, one for each request of the modern era over HTTP: those that ask wait for the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
import trio

from tests.support.bridges import INITIALIZED, MODERN, refusal
from trioxport import Bearer, Connection, Http, HttpServer, Request, Response, open_transport, serve_transport
from trioxport.peer import Handlers, JSONRPCError, open_client, open_peer
from trioxport.protocol import META
from trioxport.servers import serve_bridge
from trioxport.servers.bridge import outlasting
from trioxport.transports.memory import MemorySwitch

CALL: Final = {"name": "t", "_meta": {**MODERN, META + "clientCapabilities": {"roots": {}}}}
INFO: Final = {"name": "c", "version": "1"}


class AskingServers:
    """Servers that ask for the roots during each call, and answer with them.

    Attributes:
        url: The address of a bridge to them.
        calls: The number of calls that were answered by each server, in the order of their beginning.
        living: The number of servers with a connection.
    """

    url: str

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.living = 0
        self._changed = trio.lowlevel.ParkingLot()

    async def serve(self, connection: Connection) -> None:
        number = len(self.calls)
        self.calls.append(0)
        self.living += 1
        try:
            await self._converse(connection, number)
        finally:
            self.living -= 1
            self._changed.unpark_all()

    async def _converse(self, connection: Connection, number: int) -> None:
        call: Request | None = None
        async for message in connection.rx:
            if isinstance(message, Request) and message.method == "tools/call":
                call = message
                await connection.tx.send(Request("q", "roots/list"))
            elif isinstance(message, Request):
                known = message.method == "initialize"
                await connection.tx.send(Response(message.id, INITIALIZED) if known else refusal(message))
            elif isinstance(message, Response) and call is not None:
                self.calls[number] += 1
                content = [{"type": "text", "text": root["uri"]} for root in message.result["roots"]]
                await connection.tx.send(Response(call.id, {"content": content}))

    async def are(self, living: int) -> None:
        """Wait until so many have a connection."""
        while self.living != living:
            await self._changed.park()


@asynccontextmanager
async def asking_servers(**options: Any) -> AsyncGenerator[AskingServers]:
    servers, switch = AskingServers(), MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, servers.serve, switch)
        listen = HttpServer("http://127.0.0.1:0/mcp", **options)
        [servers.url] = await nursery.start(partial(serve_bridge, listen, switch, sharing="per-session"))
        yield servers
        nursery.cancel_scope.cancel()


async def principal(token: str) -> str:
    return token


async def request(servers: AskingServers, token: str | None = None, **params: Any) -> Any:
    """Make a call, without answering questions."""
    target = Http(servers.url, auth=None if token is None else Bearer(token))
    async with open_transport(target) as connection, open_peer(connection) as peer:
        return await peer.request("tools/call", {**CALL, **params})


def answer_to(asked: Any) -> dict[str, Any]:
    [key] = asked["inputRequests"]
    return {"requestState": asked["requestState"], "inputResponses": {key: {"roots": [{"uri": "file:///here"}]}}}


async def test_the_server_that_asked_gets_the_answer() -> None:
    async def roots() -> list[str]:
        return ["file:///here"]

    async with asking_servers() as servers, open_transport(servers.url) as connection:
        async with open_client(connection, client_info=INFO, handlers=Handlers(roots=roots), era="modern") as client:
            for _ in range(2):
                assert (await client.call_tool("t")).text == "file:///here"
        await servers.are(0)
        assert sorted(servers.calls)[-2:] == [1, 1]


async def test_only_the_principal_that_was_asked_can_answer() -> None:
    async with asking_servers(verify=principal) as servers:
        asked = await request(servers, "ada")
        with pytest.raises(JSONRPCError, match="requestState is unknown"):
            await request(servers, "bob", **answer_to(asked))
        answered = await request(servers, "ada", **answer_to(asked))
        assert answered["content"][0]["text"] == "file:///here"
        with pytest.raises(JSONRPCError, match="requestState is unknown"):
            await request(servers, "ada", **answer_to(asked))
        await servers.are(0)


async def test_a_server_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlasting, "ANSWER_SECONDS", 0.01)
    async with asking_servers() as servers:
        asked = await request(servers)
        await servers.are(0)
        with pytest.raises(JSONRPCError, match="requestState is unknown"):
            await request(servers, **answer_to(asked))


async def test_the_number_of_servers_that_wait_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlasting, "MAX_OUTLASTING", 2)
    async with asking_servers() as servers:
        first, *others = [await request(servers) for _ in range(3)]
        await servers.are(2)
        with pytest.raises(JSONRPCError, match="requestState is unknown"):
            await request(servers, **answer_to(first))
        for each in others:
            assert (await request(servers, **answer_to(each)))["content"]
        await servers.are(0)
