"""The engine on trio-websocket: the opening handshake of either side is the library's, over a stream of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final, cast

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from trioxport.errors import ConnectError
from trioxport.framing.websocket import SKIPPED
from trioxport.transports.websocket._handshake import Knock, await_agreement, misunderstanding, texts
from trioxport.transports.websocket._library_wire import LibraryWire
from trioxport.transports.websocket._seam import Link, OpenWebSocket, Wish

QUEUE: Final = 16
"""Messages that the library may have ready."""
RECEIVED: Final = 64 * 1024


class TrioWebSocket:
    """Lets trio-websocket speak, over a stream that keeps its books."""

    async def ask(self, link: Link, wish: Wish) -> tuple[OpenWebSocket, Mapping[str, str]]:
        async def read_answer() -> tuple[bytes, bytes]:
            return await await_agreement(link.stream, wish.url)

        def wrap(nursery: trio.Nursery, stream: trio.abc.Stream) -> Awaitable[WebSocketConnection]:
            return wrap_client_stream(
                nursery,
                cast("trio.SocketStream", stream),  # any stream will do
                wish.host,
                wish.path,
                subprotocols=wish.subprotocols,
                extra_headers=[(name.encode(), value.encode()) for name, value in wish.headers.items()],
                message_queue_size=QUEUE,
                max_message_size=SKIPPED * link.scope.limits.max_message_size,
                receive_buffer_size=RECEIVED,
            )

        wire = LibraryWire(link, read_answer, client=True)
        error = await wire.open(wrap)
        if error is not None:
            raise misunderstanding(error, wish.url, asked=wire.was_used) from error
        return wire, texts(wire.handshake_headers)

    async def admit(self, link: Link, knock: Knock, subprotocol: str | None) -> OpenWebSocket:
        async def repeat_request() -> tuple[bytes, bytes]:
            return knock.request, knock.early

        async def wrap(nursery: trio.Nursery, stream: trio.abc.Stream) -> WebSocketConnection:
            request = await wrap_server_stream(
                nursery,
                stream,
                message_queue_size=QUEUE,
                max_message_size=SKIPPED * link.scope.limits.max_message_size,
                receive_buffer_size=RECEIVED,
            )
            return await request.accept(subprotocol=subprotocol)

        wire = LibraryWire(link, repeat_request, client=False)
        error = await wire.open(wrap)
        if error is not None:
            raise ConnectError("the client went away during the handshake") from error
        return wire
