"""Translation between the eras: a server of one era, presented as a server of the other.

Both translations are message layers around the connection to the server. The conversation above the layer is of the
presented era in every respect::

    async with open_transport("https://modern.example/mcp", layers=[AsLegacyServer()]) as (tx, rx):
        await tx.send(Request(1, "initialize", {...}))

**Between several clients and one server.** A program in the middle, such as a bridge, wraps any pair of message
channels itself: ``AsModernServer().wrap(MessageChannels(tx, rx), upstream.scope)``. The scope is that of the connection
whose end is also the end of the translation. The rules of the seam, for both layers:

- The layer is a server: requests and notifications of clients go into ``send``; answers, notifications and, in the
  legacy era, the server's own requests come out of ``receive``. Nothing moves while ``receive`` is not called.
- The ids of requests in flight are unique over all clients of one wrapped pair. Progress tokens need not be.
- A notification or request out of ``receive`` has ``metadata["related_request"]``, the id of the client's request that
  it belongs to, wherever that is known. Subscriptions: the id of ``subscriptions/listen``. Without it, the message is
  for the client as a whole.
- A client that goes away, or closes the stream of a request, is a ``notifications/cancelled`` into ``send`` for each of
  its requests in flight.
- Every request that went into ``send`` comes back once: as a response, an error, or an ``Undelivered``; unless it was
  cancelled.
- ``AsLegacyServer`` speaks for one legacy client: one wrapped pair for each session. ``AsModernServer`` serves any
  number of clients through one wrapped pair. It tells them apart by ``metadata["principal"]`` of each request, and
  takes a ``requestState`` from the principal only to whom it was given; no principal counts as one principal.
"""

from trioxport.servers.translation.as_legacy import AsLegacyServer
from trioxport.servers.translation.as_modern import AsModernServer

__all__ = ["AsLegacyServer", "AsModernServer"]
