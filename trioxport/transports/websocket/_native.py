"""The engine of our own: handshake and frames."""

from __future__ import annotations

from collections.abc import Mapping

from trioxport.transports.websocket._handshake import Knock, ask
from trioxport.transports.websocket._seam import Link, OpenWebSocket, Wish
from trioxport.transports.websocket._wire import Wire


class Native:
    """Reads what there is at once, answers without waking a task where it can, and skips what is too large unread."""

    async def ask(self, link: Link, wish: Wish) -> tuple[OpenWebSocket, Mapping[str, str]]:
        opened = await ask(link.stream, wish.url, wish.host, wish.path, wish.subprotocols, wish.headers)
        return _wire(link, client=True, early=opened.early), opened.headers

    async def admit(self, link: Link, knock: Knock, subprotocol: str | None) -> OpenWebSocket:
        await knock.admit(subprotocol)
        return _wire(link, client=False, early=knock.early)


def _wire(link: Link, *, client: bool, early: bytes) -> Wire:
    return Wire(link.stream, link.socket, link.scope, client=client, early=early, heartbeat=link.heartbeat)
