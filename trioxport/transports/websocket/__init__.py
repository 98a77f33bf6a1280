"""``ws://`` and ``wss://``: one JSON-RPC message a WebSocket message, in both directions at any time."""

from trioxport.transports.websocket.target import WebSocket

__all__ = ["WebSocket"]
