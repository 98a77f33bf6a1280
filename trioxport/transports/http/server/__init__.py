"""The server's side of Streamable HTTP, in both eras: an ASGI application, and the HTTP/1.1 server that runs it."""

from trioxport.transports._access.protected import ProtectedResource
from trioxport.transports._access.proxies import TrustedProxies
from trioxport.transports.http.server.directory import SessionDirectory
from trioxport.transports.http.server.events import EventStore, MemoryEvents
from trioxport.transports.http.server.options import Bounds, Sessions, Upgrades
from trioxport.transports.http.server.target import HttpServer
from trioxport.transports.unix_sockets import SocketFile

__all__ = [
    "Bounds",
    "EventStore",
    "HttpServer",
    "MemoryEvents",
    "ProtectedResource",
    "SessionDirectory",
    "Sessions",
    "SocketFile",
    "TrustedProxies",
    "Upgrades",
]
