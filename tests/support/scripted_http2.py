"""A small HTTP/2 server over TLS, which answers every request with its id."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded


@attrs.define
class Http2Server:
    """The number of connections, and the headers of each request."""

    url: str
    accepted: int = 0
    asked: list[dict[str, str]] = attrs.Factory(list[dict[str, str]])

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        bodies: dict[int, bytes] = {}
        try:
            await stream.do_handshake()
            if stream.selected_alpn_protocol() != "h2":  # a client that only looks who is there
                return
            self.accepted += 1
            await stream.send_all(connection.data_to_send())
            while data := await stream.receive_some():
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived):
                        self.asked.append({str(name): str(value) for name, value in event.headers})
                    elif isinstance(event, DataReceived):
                        bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, StreamEnded):
                        answer(connection, event.stream_id, bodies.pop(event.stream_id))
                await stream.send_all(connection.data_to_send())
        except (trio.BrokenResourceError, ssl.SSLError):
            return
        finally:
            await trio.aclose_forcefully(stream)


def answer(connection: H2Connection, stream_id: int, body: bytes) -> None:
    result = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": "fine"}
    connection.send_headers(stream_id, [(":status", "200"), ("content-type", "application/json")])
    connection.send_data(stream_id, json.dumps(result).encode(), end_stream=True)


@asynccontextmanager
async def serving_http2(context: ssl.SSLContext) -> AsyncGenerator[Http2Server]:
    """A server on a port of its own, for the time of a block."""
    context.set_alpn_protocols(["h2"])
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Http2Server(f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}/mcp")
        secure = [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners]
        nursery.start_soon(trio.serve_listeners, server.serve, secure)
        yield server
        nursery.cancel_scope.cancel()
