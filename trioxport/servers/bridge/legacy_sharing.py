"""Several legacy clients on one legacy server, which was initialized once.

The legacy era has state for each connection, and the clients share one: this module keeps the state of each client.
Specification 2025-11-25, basic/lifecycle, server/resources and server/utilities/logging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import MessageChannels
from trioxport.codecs.forwarding import renamed
from trioxport.messages import ErrorResponse, Incoming, Message, Notification, Request, Response
from trioxport.peer.subscriptions import is_watched
from trioxport.protocol import INITIALIZE, INITIALIZED, INVALID_REQUEST, LEGACY_VERSIONS, METHOD_NOT_FOUND, members_of
from trioxport.servers.bridge.multiplexer import LOG, Multiplexer
from trioxport.servers.bridge.port import Port

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
SET_LEVEL: Final = "logging/setLevel"
UPDATED: Final = "notifications/resources/updated"
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""The levels of log messages, the lowest first."""
DEFAULT_LEVEL: Final = LEVELS.index("info")
"""The level of clients that ask for none, once another client has asked for one."""

_LISTS: Final = ("tools", "prompts", "resources")
_CAPABILITY_OF: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""The capability that a client needs for a request of the server."""


class LegacySharing:
    """The state of the clients of one legacy server, and the audience of its messages.

    ``initialize`` of a client is answered with the result that the server gave to the bridge, ``ping`` here. A resource
    is subscribed to for as long as one client is. The server has the lowest of the levels that clients ask for.

    A notification that belongs to no request goes to all clients, a change of a resource to those that subscribed to
    it, a log message to those that asked for its level. A request of the server goes to the client whose request it
    belongs to, or to the only client that has a request in flight, or to the only client there is; else it is refused.

    Args:
        multiplexer: Passes the messages.
    """

    def __init__(self, multiplexer: Multiplexer) -> None:
        self.initialized: Mapping[str, Any] = {}
        self._multiplexer = multiplexer
        self._clients: dict[Port, LegacyClient] = {}
        self._level: int | None = None
        self._was_connected = False

    def open_client(self) -> LegacyClient:
        """The channels of one more client."""
        port = self._multiplexer.open_port()
        client = self._clients[port] = LegacyClient(self, port)
        return client

    def connected(self, initialized: Mapping[str, Any]) -> None:
        """Note that the server was initialized; if it was before, restore its state, and report that lists may differ.

        Args:
            initialized: The result of ``initialize``.
        """
        self.initialized = initialized
        if self._was_connected:
            for uri in {uri for client in self._clients.values() for uri in client.uris}:
                self._request_soon(SUBSCRIBE, {"uri": uri})
            if self._level is not None:
                self._request_soon(SET_LEVEL, {"level": LEVELS[self._level]})
            self._report_changes()
        self._was_connected = True

    def _report_changes(self) -> None:
        capabilities = members_of(self.initialized.get("capabilities"))
        for kind in _LISTS:
            if members_of(capabilities.get(kind)).get("listChanged"):
                for port in self._clients:
                    port.deliver(Notification(f"notifications/{kind}/list_changed"))

    def _request_soon(self, method: str, params: dict[str, Any]) -> None:
        self._multiplexer.send_soon(Request(self._multiplexer.new_id(), method, params))

    # The state of the clients.

    def is_subscribed(self, uri: str) -> bool:
        """Whether a client is subscribed to a resource."""
        return any(uri in client.uris for client in self._clients.values())

    def level_wanted(self) -> int | None:
        """The lowest level that a client asks for; None if none does."""
        return min((client.level for client in self._clients.values() if client.level is not None), default=None)

    def change_level(self) -> str | None:
        """The level that the server has to be given now; None if it has that."""
        wanted = self.level_wanted()
        if wanted is None or wanted == self._level:
            return None
        self._multiplexer.take_back(SET_LEVEL)
        self._level = wanted
        return LEVELS[wanted]

    def keep(self, uri: str) -> None:
        """Take back an unsubscription that waits: a client is about to subscribe, whose request would be before it."""
        self._multiplexer.take_back(UNSUBSCRIBE, uri)

    def forget(self, client: LegacyClient) -> None:
        """Forget a client that has left, and what only it had asked for."""
        if self._clients.pop(client.port, None) is None:
            return
        for uri in client.uris:
            if not self.is_subscribed(uri):
                self._request_soon(UNSUBSCRIBE, {"uri": uri})
        if (level := self.change_level()) is not None:
            self._request_soon(SET_LEVEL, {"level": level})

    # The audience.

    def of_notification(self, ports: Iterable[Port], notification: Notification) -> Iterable[Port]:
        """The clients that a notification goes to."""
        params = members_of(notification.params)
        if notification.method == LOG:
            return [
                port for port, client in self._clients.items() if client.wants_log(params.get("level"), self._level)
            ]
        if notification.method == UPDATED:
            return [port for port, client in self._clients.items() if client.watches(params.get("uri"))]
        return list(self._clients)

    def of_request(self, request: Request, related: Port | None) -> Port | ErrorResponse:
        """The client that a request of the server goes to, or its refusal."""
        busy = [port for port in self._clients if port.in_flight]
        candidates = [related] if related is not None else busy or list(self._clients)
        if len(candidates) != 1:
            clients = f"which of its {len(candidates)} clients this request is for"
            reason = f"The bridge cannot tell {clients}" if candidates else "The bridge has no client to ask"
            return ErrorResponse(request.id, INVALID_REQUEST, reason)
        if candidates[0] in self._clients and not self._clients[candidates[0]].offers(request.method):
            return ErrorResponse(request.id, METHOD_NOT_FOUND, f"The client does not offer {request.method}")
        return candidates[0]


class LegacyClient:
    """One legacy client: its channels, and the state that a connection of its own would have.

    Args:
        sharing: The state of all clients.
        port: The client's port.

    Attributes:
        uris: The resources that it is subscribed to.
        level: The lowest level of the log messages that it asked for, as a place in ``LEVELS``.
    """

    def __init__(self, sharing: LegacySharing, port: Port) -> None:
        self.port = port
        self.uris: set[str] = set()
        self.level: int | None = None
        self.channels = MessageChannels(_LegacySend(self), _LegacyReceive(self))
        self._sharing = sharing
        self._capabilities: Mapping[str, Any] = {}

    def close(self) -> None:
        """Forget the client, which has left."""
        self.port.close()
        self._sharing.forget(self)

    def offers(self, method: str) -> bool:
        """Whether the client has declared the capability for a request of the server."""
        capability = _CAPABILITY_OF.get(method)
        return capability is None or capability in self._capabilities

    def watches(self, uri: object) -> bool:
        """Whether the client is subscribed to a resource, or to one that it is a part of."""
        return is_watched(uri, self.uris)

    def wants_log(self, level: object, server_level: int | None) -> bool:
        """Whether the client asked for log messages of a level."""
        if level not in LEVELS or server_level is None:
            return True
        return LEVELS.index(str(level)) >= (DEFAULT_LEVEL if self.level is None else self.level)

    async def send(self, message: Message) -> None:
        """Take a message of the client: answer it from the shared state, or send it to the server."""
        if isinstance(message, Request) and message.method in self._HANDLERS:
            known = self._HANDLERS[message.method](self, message)
            if isinstance(known, Response):
                await trio.lowlevel.checkpoint()
                await self.port.wait_for_room()
                self.port.deliver(known)
            else:
                await self.port.send(known)
        elif not (isinstance(message, Notification) and message.method == INITIALIZED):
            await self.port.send(message)

    def _initialize(self, request: Request) -> Message:
        params = members_of(request.params)
        self._capabilities = members_of(params.get("capabilities"))
        version = agreed_version(params.get("protocolVersion"), self._sharing.initialized.get("protocolVersion"))
        return Response(request.id, {**self._sharing.initialized, "protocolVersion": version})

    def _ping(self, request: Request) -> Message:
        return Response(request.id, {})

    def _set_level(self, request: Request) -> Message:
        level = members_of(request.params).get("level")
        if level not in LEVELS:
            return request
        self.level = LEVELS.index(str(level))
        needed = self._sharing.change_level()
        return Response(request.id, {}) if needed is None else renamed(request, params={"level": needed})

    def _subscribe(self, request: Request) -> Message:
        uri = members_of(request.params).get("uri")
        if isinstance(uri, str):
            self.uris.add(uri)
            self._sharing.keep(uri)
        return request

    def _unsubscribe(self, request: Request) -> Message:
        uri = members_of(request.params).get("uri")
        if isinstance(uri, str):
            self.uris.discard(uri)
            if self._sharing.is_subscribed(uri):
                return Response(request.id, {})
        return request

    _HANDLERS: ClassVar = {
        INITIALIZE: _initialize,
        "ping": _ping,
        SET_LEVEL: _set_level,
        SUBSCRIBE: _subscribe,
        UNSUBSCRIBE: _unsubscribe,
    }
    """Requests that the shared state answers or changes; each returns the answer, or the request to send."""


def agreed_version(wanted: object, server: object) -> object:
    """The version of a client's session: the older one of the two that it and the server speak."""
    if wanted in LEGACY_VERSIONS and server in LEGACY_VERSIONS:
        return LEGACY_VERSIONS[max(LEGACY_VERSIONS.index(str(wanted)), LEGACY_VERSIONS.index(str(server)))]
    return server


@attrs.frozen
class _LegacySend(SendChannel[Message]):
    _client: LegacyClient

    async def send(self, value: Message) -> None:
        await self._client.send(value)

    async def aclose(self) -> None:
        self._client.port.end()
        await trio.lowlevel.checkpoint()


@attrs.frozen
class _LegacyReceive(ReceiveChannel[Incoming]):
    _client: LegacyClient

    async def receive(self) -> Incoming:
        return await self._client.port.receive()

    async def aclose(self) -> None:
        self._client.close()
        await trio.lowlevel.checkpoint()
