"""The server's side of Streamable HTTP, in both eras: an ASGI application, and what runs it."""

from trioxport.transports.http.server.bounds import Bounds
from trioxport.transports.http.server.config import HttpServer, ProtectedResource, Sessions, Upgrades
from trioxport.transports.http.server.events import EventStore, MemoryEvents
from trioxport.transports.http.server.proxies import TrustedProxies

__all__ = [
    "Bounds",
    "EventStore",
    "HttpServer",
    "MemoryEvents",
    "ProtectedResource",
    "Sessions",
    "TrustedProxies",
    "Upgrades",
]
