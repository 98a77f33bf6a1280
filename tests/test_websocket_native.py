"""WebSockets on frames of our own, which are stricter than what a library does: handshakes, close frames and pongs."""

from __future__ import annotations

import pytest
from raw_websocket import RawPeer, raw_server, response
from test_websocket_handshake import opened

from trioxport import ConnectError
from trioxport.framing.websocket import CLOSE
from trioxport.transports.websocket import WebSocket

# Handshakes.


@pytest.mark.parametrize(
    ("right", "wrong", "about"),
    [
        ("HTTP/1.1 101", "HTTP/1.0 101", "HTTP/1.0"),
        ("HTTP/1.1 101", "HTTP/2.0 101", "no answer of HTTP"),
        ("HTTP/1.1 101", "HTTP/1.1  101", "no answer of HTTP"),
        ("Upgrade: websocket", "Upgrade: h2c", "Upgrade header"),
        ("Upgrade: websocket", "Upgrade: websocket, h2c", "Upgrade header"),
        ("Connection: Upgrade", "Connection: keep-alive", "Connection header"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Accept"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x\r\nSec-WebSocket-Accept: ", "Sec-WebSocket-Accept"),
        ("Upgrade: ", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: ", "extension"),
        ("Upgrade: ", "Sec-WebSocket-Protocol: mcp\r\nSec-WebSocket-Protocol: mcp\r\nUpgrade: ", "subprotocol"),
        ("Upgrade: ", "Sec-WebSocket-Protocol: MCP\r\nUpgrade: ", "subprotocol"),
        ("Upgrade: ", "Bad Name: x\r\nUpgrade: ", "headers are not written"),
        ("Upgrade: ", "Folded: x\r\n y\r\nUpgrade: ", "headers are not written"),
        ("Upgrade: ", "Bare: x\ny: z\r\nUpgrade: ", "headers are not written"),
    ],
)
async def test_an_agreement_that_rfc_6455_does_not_know(right: str, wrong: str, about: str) -> None:
    async def handler(peer: RawPeer) -> None:
        agreement = response(await peer.read_head()).decode()
        await peer.stream.send_all(agreement.replace(right, wrong, 1).encode())
        await peer.stream.send_eof()

    async with raw_server(handler) as address:
        with pytest.raises(ConnectError, match=f"does not speak WebSocket here: .*{about}") as raised:
            await opened(WebSocket(address, engine="native"))
        assert not raised.value.retryable


@pytest.mark.parametrize("spelling", ["connection: keep-alive, UPGRADE", "Connection:\tupgrade\t"])
async def test_an_agreement_in_another_spelling(spelling: str) -> None:
    async def handler(peer: RawPeer) -> None:
        agreement = response(await peer.read_head()).decode()
        agreement = agreement.replace("Connection: Upgrade", spelling).replace(
            "Upgrade: websocket", "UPGRADE: WebSocket"
        )
        await peer.stream.send_all(agreement.encode())
        await peer.closing()
        await peer.send(CLOSE)

    async with raw_server(handler) as address:
        await opened(WebSocket(address, engine="native"))
