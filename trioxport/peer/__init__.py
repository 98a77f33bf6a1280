"""A small JSON-RPC endpoint on top of a connection, for programs that bring no SDK of their own.

::

    async with open_transport("stdio:python server.py") as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info={"name": "example", "version": "1.0"})
        tools = await peer.request("tools/list")
"""

from trioxport.peer.endpoint import IncomingRequest, Peer, RequestHandler, open_peer
from trioxport.peer.incoming import NotificationHandler
from trioxport.peer.negotiation import Negotiated
from trioxport.peer.outgoing import ProgressCallback
from trioxport.protocol import JSONRPCError

__all__ = [
    "IncomingRequest",
    "JSONRPCError",
    "Negotiated",
    "NotificationHandler",
    "Peer",
    "ProgressCallback",
    "RequestHandler",
    "open_peer",
]
