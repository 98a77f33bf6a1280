"""The client's side: it asks the servers of a service for a connection, and takes the first that accepts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectError, ConnectionLost, ProtocolViolation, ServerUnreachable
from trioxport.transports.message_wire import carry_tagged_messages
from trioxport.transports.redis.link import Inbox, RedisLink, open_link
from trioxport.transports.redis.options import RedisOptions
from trioxport.transports.redis.wire import RedisWire

CONTROL_MESSAGES: Final = 64
"""Room for credits and signs of life, beside the messages that were granted."""
WELCOME: Final = b"mcp1"
"""The first message of a server on the channel of a client: the version of this protocol."""


def inbox_size(scope: Scope) -> int:
    """The number of messages that can be on their way to this side."""
    return max(1, scope.settings.limits.max_buffered_messages) + CONTROL_MESSAGES


@asynccontextmanager
async def open_client(options: RedisOptions, scope: Scope) -> AsyncGenerator[FrameChannels]:
    """Open a connection to a server of the service."""
    target = scope.settings.target
    connection = secrets.token_hex(16)
    mine = options.client_channel(connection)
    async with open_link(options, target, connect_timeout=scope.settings.connect_timeout) as link:
        with link.subscription(mine, inbox_size(scope)) as inbox:
            await link.subscribe(mine)
            if not await link.count_subscribers(options.hello_channel):
                raise no_server(options, target)
            await link.publish(options.hello_channel, connection.encode())
            welcome = await _welcome(options, link, inbox)
            async with open_conversation(options, link, connection, inbox, welcome, scope) as channels:
                yield channels


async def _welcome(options: RedisOptions, link: RedisLink, inbox: Inbox) -> bytes:
    """Wait for the server that accepts the connection, as long as the service has servers. Raises ``ConnectError``."""
    try:
        with link.presence(options.hello_channel, inbox):
            return await inbox.receive()
    except ConnectionLost as loss:
        raise ConnectError(loss.reason, retryable=loss.retryable) from loss


def no_server(options: RedisOptions, target: str) -> ServerUnreachable:
    """The error of a service without a server."""
    return ServerUnreachable(
        f"no server of the service {options.service!r} is connected to Redis",
        target=target,
        hint="Check that the server runs, and that both sides use the same service, prefix and database",
    )


@asynccontextmanager
async def open_conversation(
    options: RedisOptions, link: RedisLink, connection: str, inbox: Inbox, welcome: bytes, scope: Scope
) -> AsyncGenerator[FrameChannels]:
    """Exchange messages with the server that has accepted the connection.

    Args:
        options: The service.
        link: The connection to Redis.
        connection: The number of the connection.
        inbox: The messages to the client.
        welcome: The first of them.
        scope: The connection.
    """
    peer = options.server_channel(connection)
    if welcome != WELCOME:
        raise ProtocolViolation("the server of the service speaks another protocol", target=scope.settings.target)
    wire = RedisWire(link, peer, inbox)
    with link.presence(peer, inbox):
        async with carry_tagged_messages(wire, scope, peer=peer, silence=options.silence) as channels:
            yield channels
        await wire.flush()
