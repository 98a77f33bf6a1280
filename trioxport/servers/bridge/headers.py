"""The metadata of clients' messages at the server: headers of a list, and no other; the identity of the client.

That a request is delivered again is told in its ``_meta``, since metadata ends at the bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

import attrs

from trioxport.abc import ConnectionInfo
from trioxport.codecs.forwarding import with_deliveries
from trioxport.errors import UsageError
from trioxport.messages import Message, Request
from trioxport.metadata import Metadata, metadata_of

_numbers: Final = count(1)

_OF_THE_WIRE: Final = frozenset(
    (
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
        *("host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"),
    )
)
"""Headers about the message or the connection, which the transport to the server sets by itself."""


class HeaderAllowList:
    """The headers of clients that servers get.

    Args:
        names: The names, in any case.

    Raises:
        UsageError: A name is one of those that transports set.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(name.lower() for name in names)
        for name in sorted(self.names):
            if name in _OF_THE_WIRE or name.startswith("mcp-param-"):
                raise UsageError(f"the header {name} cannot be forwarded: the transport to the server sets it")

    def __bool__(self) -> bool:
        return bool(self.names)

    def of(self, message: Message, info: ConnectionInfo) -> Mapping[str, str]:
        """The headers to forward with a message: its own, or else those with which its connection was made."""
        if not self.names:
            return {}
        headers = metadata_of(message).get("headers", info.headers)
        return {name: value for name, value in headers.items() if name.lower() in self.names}


class ClientMetadata:
    """Exchanges the metadata of one client's messages, which is about its connection, for that of the server's side.

    Args:
        info: The client's connection. When it is made, HTTP alone knows the era.
        headers: The headers that are forwarded.

    Attributes:
        is_one_request: Whether the connection is one request over HTTP, as it is in the modern era.
    """

    def __init__(self, info: ConnectionInfo, headers: HeaderAllowList) -> None:
        self.is_one_request = info.era == "modern"
        self._info = info
        self._headers = headers
        self._principal = info.principal
        self._client: str | None = None
        connection = f"connection {next(_numbers)}"
        if self.is_one_request:  # another request may come from the same client
            self._client = connection
        elif self._principal is None:
            self._principal = connection

    def exchanged(self, message: Message) -> Message:
        """The message as the server is to get it."""
        if isinstance(message, Request):
            message = with_deliveries(message)
        metadata: Metadata = {}
        noted = metadata_of(message)
        if "encoded" in noted:
            metadata["encoded"] = noted["encoded"]
        if self._principal is not None:
            metadata["principal"] = self._principal
        if self._client is not None:
            metadata["client"] = self._client
        if headers := self._headers.of(message, self._info):
            metadata["headers"] = headers
        return attrs.evolve(message, metadata=metadata)
