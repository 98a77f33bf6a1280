"""A request, a negotiation and a whole conversation, cancelled before every step of any task."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.cancel_everywhere import Cut, sweep
from trioxport import Connection, open_transport, serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.demo import serve_demo
from trioxport.peer import IncomingRequest, Peer, open_peer

CLIENT: Final = {"name": "test", "version": "1"}


class Server:
    """Works on requests, and knows how many of them."""

    def __init__(self) -> None:
        self.at_work = 0

    async def work(self, request: IncomingRequest) -> None:
        self.at_work += 1
        try:
            await request.progress(1)
            await request.peer.request("ping")
        finally:
            self.at_work -= 1

    async def __call__(self, connection: Connection) -> None:
        async with open_peer(connection, requests={"work": self.work}) as peer:
            await peer.wait_finished()


async def ask(peer: Peer) -> None:
    await peer.request("work", on_progress=lambda *progress: None, timeout=None)


def test_a_cancelled_request_leaves_the_conversation_as_it_was() -> None:
    async def conversation(cut: Cut) -> None:
        server = Server()
        async with open_bare_nursery() as tasks:
            (target,) = await tasks.start(serve_transport, server, "memory://work")
            async with open_transport(target) as connection, open_peer(connection) as peer:
                with cut.here():
                    await ask(peer)
                for _ in range(2):
                    await ask(peer)
            assert server.at_work == 0
            tasks.cancel_scope.cancel()

    sweep(conversation)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_cancelled_conversation_leaves_the_server_as_it_was(era: str) -> None:
    async def converse(target: str) -> None:
        async with open_transport(target) as connection, open_peer(connection) as peer:
            await peer.negotiate(client_info=CLIENT, era="modern" if era == "modern" else "legacy")
            await peer.request("tools/call", {"name": "echo", "arguments": {"text": "hi"}})

    async def conversation(cut: Cut) -> None:
        async with open_bare_nursery() as tasks:
            (target,) = await tasks.start(serve_transport, serve_demo, "memory://demo")
            with cut.here():
                await converse(target)
            await converse(target)
            tasks.cancel_scope.cancel()

    sweep(conversation)
