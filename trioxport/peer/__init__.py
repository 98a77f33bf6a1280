"""A small JSON-RPC endpoint on top of a connection, for programs that bring no SDK of their own.

::

    async with open_transport("stdio:python server.py") as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info={"name": "example", "version": "1.0"})
        tools = await peer.request("tools/list")
"""

from trioxport.peer.client import Client, open_client
from trioxport.peer.client_handlers import Handlers
from trioxport.peer.endpoint import IncomingRequest, Peer, RequestHandler, open_peer
from trioxport.peer.incoming import NotificationHandler
from trioxport.peer.negotiation import Negotiated
from trioxport.peer.outgoing import ProgressCallback
from trioxport.peer.results import (
    Completion,
    Content,
    Prompt,
    PromptArgument,
    PromptMessage,
    PromptResult,
    Resource,
    ResourceContents,
    ResourceTemplate,
    Tool,
    ToolResult,
)
from trioxport.peer.subscriptions import Subscription
from trioxport.protocol import JSONRPCError

__all__ = [
    "Client",
    "Completion",
    "Content",
    "Handlers",
    "IncomingRequest",
    "JSONRPCError",
    "Negotiated",
    "NotificationHandler",
    "Peer",
    "ProgressCallback",
    "Prompt",
    "PromptArgument",
    "PromptMessage",
    "PromptResult",
    "RequestHandler",
    "Resource",
    "ResourceContents",
    "ResourceTemplate",
    "Subscription",
    "Tool",
    "ToolResult",
    "open_client",
    "open_peer",
]
