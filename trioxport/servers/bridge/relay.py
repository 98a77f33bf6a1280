"""The relay: messages between the connection of a client and the channels of its server, both ways.

Messages pass as they came; only metadata is exchanged, which is never on the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import MessageChannels
from trioxport.connection import Connection
from trioxport.errors import MessageTooLarge, TransportError, UsageError
from trioxport.messages import (
    ErrorResponse,
    Incoming,
    Message,
    Request,
    RequestId,
    Response,
    Undelivered,
)
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import INITIALIZE, cancelled_id
from trioxport.servers.bridge.failures import GONE, error_response, send_or_log, undelivered_response
from trioxport.servers.bridge.headers import ClientMetadata

_CHANGES: Final = ("/list_changed", "/updated")


class Relay:
    """Passes messages between one client and its server.

    The end of one side reaches the other: a half-close of the client is one towards the server, which then has the
    ``close_timeout`` of the client's connection to answer, and the end of the server ends the client's connection.
    Backpressure does too, for no message is read before the last one was sent.

    Args:
        client: The client's connection.
        server: The channels of the server.
        name: The name of the server, for errors.
        metadata: Exchanges the metadata of the client's messages.
    """

    def __init__(self, client: Connection, server: MessageChannels, name: str, metadata: ClientMetadata) -> None:
        self._client = client
        self._server = server
        self._name = name
        self._metadata = metadata
        self._in_flight: dict[RequestId, Callable[[], object] | None] = {}
        self._has_initialized = False
        self._restart: Request | None = None

    async def run(self, first: Message, *, is_sent: bool) -> Request | None:
        """Pass messages until one side is over, or the client begins anew in the legacy era, after a probe in vain.

        Args:
            first: The first message of the client.
            is_sent: Whether the server has got it already.

        Returns:
            The ``initialize`` with which the client begins anew, which is not sent; else None.

        Raises:
            ConnectionLost: The client or the server was lost.
        """
        if is_sent:
            self._note(first)
        else:
            await self._to_server(first)
        if self._metadata.is_one_request:
            await self._answer_one()
            return None
        self._has_initialized = _is_initialize(first)
        async with open_bare_nursery() as tasks:
            tasks.start_soon(self._pass_requests, tasks.cancel_scope)
            await self._pass_answers()
            tasks.cancel_scope.cancel()
        return self._restart

    async def _answer_one(self) -> None:
        """Pass messages to a client that sent one request, until it is answered."""
        while self._in_flight:
            await self._to_client(await self._server.receive.receive())

    async def _pass_requests(self, both_ways: trio.CancelScope) -> None:
        async for message in self._client.rx:
            if isinstance(message, Request) and _is_initialize(message) and not self._has_initialized:
                self._restart = message
                both_ways.cancel()
                return
            await self._to_server(message)
        await self._server.send.aclose()
        both_ways.deadline = trio.current_time() + self._client.scope.settings.close_timeout

    async def _pass_answers(self) -> None:
        async for message in self._server.receive:
            await self._to_client(message)

    async def _to_server(self, message: Incoming) -> None:
        if isinstance(message, Undelivered):
            await self._return_undelivered(message)
            return
        self._note(message)
        try:
            await self._server.send.send(self._metadata.exchanged(message))
        except GONE as error:
            await self._not_taken(message, error)
        if (request_id := cancelled_id(message)) is not None:
            unanswered = self._in_flight.pop(request_id, None)
            if unanswered is not None:
                unanswered()

    def _note(self, message: Message) -> None:
        if isinstance(message, Request):
            self._in_flight[message.id] = metadata_of(message).get("unanswered")

    async def _not_taken(self, message: Message, error: BaseException) -> None:
        if isinstance(message, Request):
            await self._to_client(error_response(message.id, self._name, error))
        else:
            logger.debug("%s: a message of a client is not sent: %s", self._name, error)

    async def _return_undelivered(self, message: Undelivered) -> None:
        """Answer a request of the server that did not reach the client."""
        if isinstance(message.original, Request):
            answer = undelivered_response(message.original, message.cause.reason)
            await send_or_log(self._server.send, answer, self._name)

    async def _to_client(self, message: Incoming) -> None:
        if isinstance(message, Undelivered):
            if not isinstance(message.original, Request):
                logger.debug("%s: a message of a client is lost: %s", self._name, message.cause)
                return
            logger.info("a request is lost: %s", message.cause)
            message = error_response(message.original.id, self._name, message.cause)
        if isinstance(message, Response | ErrorResponse) and message.id is not None:
            self._in_flight.pop(message.id, None)
        try:
            await self._client.tx.send(self._with_relation(message))
        except (UsageError, MessageTooLarge) as error:
            await self._not_deliverable(message, error)

    def _with_relation(self, message: Message) -> Message:
        """A message with the request that it belongs to, as far as that can be told, for its stream over HTTP.

        A client need not have a stream for messages that belong to no request. So a request of the server goes to the
        latest request in flight, and a notification to the only one, unless it is about a change.
        """
        if isinstance(message, Response | ErrorResponse) or "related_request" in message.metadata:
            return message
        is_certain = len(self._in_flight) == 1 and not message.method.endswith(_CHANGES)
        if not self._in_flight or not (is_certain or isinstance(message, Request)):
            return message
        related = next(reversed(self._in_flight))
        return attrs.evolve(message, metadata={**message.metadata, **Metadata(related_request=related)})

    async def _not_deliverable(self, message: Message, error: TransportError) -> None:
        """Settle a message that the client's connection does not take."""
        logger.debug("%s: a message for a client is not sent: %s", self._name, error)
        if isinstance(message, Response):
            await send_or_log(self._client.tx, error_response(message.id, self._name, error), self._name)
        elif isinstance(message, Request):
            await self._return_undelivered(Undelivered.of(message, error))


def _is_initialize(message: Message) -> bool:
    return isinstance(message, Request) and message.method == INITIALIZE
