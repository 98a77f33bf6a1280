"""The target ``RedisStream``: a service whose requests wait in a stream of Redis for one of its servers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.transports.redis.options import RedisQuery
from trioxport.transports.redis.stream.options import RedisStreamOptions, RedisStreamQuery


@attrs.frozen
class RedisStream(RedisStreamOptions):
    """A service whose requests wait in a stream of Redis (6.2 or later) for one of its servers.

    Each request is delivered to one server of the service, acknowledged when it is answered, and delivered to another
    one if its server died: at least once. ``metadata["deliveries"]`` says to a handler how often. To the handler each
    request is a connection of its own, as over HTTP in the modern era. A client of the legacy era keeps the server that
    takes its ``initialize``, with what :class:`~trioxport.transports.redis.Redis` promises.

    The other arguments are those of :class:`~trioxport.transports.redis.Redis`; after ``silence`` seconds without a
    sign of life of a server its requests are delivered to others.

    Args:
        max_deliveries: The number of servers that a request is delivered to before it is given up: its client gets a
            :class:`~trioxport.DeliveryFailed`, and it becomes a dead letter.
        max_length: The number of requests in the stream, those at work included; with more, clients wait.
        max_age: Seconds that a request may wait, after which it is not acted upon; dead letters, and what clients have
            left behind, are kept as long.
        prefetch: The number of requests that a server acts on at a time.
    """

    schemes: ClassVar[tuple[str, str]] = ("redis+stream", "rediss+stream")
    query: ClassVar[type[RedisQuery]] = RedisStreamQuery
    client_begins: ClassVar[bool] = True

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        self.check(scope.settings)
        from trioxport.transports.redis.stream.client import open_stream_client

        return open_stream_client(self, scope)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self.check(settings)
        from trioxport.transports.redis.stream.consumer import serve_stream

        await serve_stream(self, acceptor, settings, task_status)
