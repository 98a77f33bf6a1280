"""``ws://`` and ``wss://``: each JSON-RPC message is a WebSocket message, in both directions at any time."""

from trioxport.transports._access.protected import ProtectedResource
from trioxport.transports._access.proxies import TrustedProxies
from trioxport.transports.websocket.target import WebSocket

__all__ = ["ProtectedResource", "TrustedProxies", "WebSocket"]
