"""The target ``Redis``: a service that clients and servers find through a Redis server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Self

import attrs
import trio

from trioxport._diagnostics.hints import install_hint
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.targets import options_of
from trioxport.transports._sockets import refuse_plaintext
from trioxport.transports.redis.options import REDIS_PORT, RedisOptions, credentials_of, split_redis_url


@attrs.frozen
class Redis(RedisOptions):
    """A service behind a Redis server (6 or later), to connect to or to serve, by publish and subscribe.

    Clients and servers name the same service; each client is accepted by one of its servers, and both then have a
    channel of their own. Delivery is at most once: messages on their way are lost with Redis or with the peer, and the
    requests among them come back as ``"unknown"``. Flow control is end to end. A client learns at once that no server
    listens, and both sides within a second or two that the other is gone.

    Every user of the database can read the messages, and can serve the service: protect Redis by a password or by
    access control lists, and let ``Signing`` prove the sender of a message.

    Args:
        host: The host of the Redis server. Unencrypted beyond loopback it needs ``allow_plaintext``.
        port: Its port.
        service: The name of the service: up to 100 letters, digits, ``.``, ``_`` and ``-``.
        prefix: The beginning of the names of all channels and keys, followed by a colon.
        database: The number of the database.
        username: The user, for access control lists; None for the default one.
        password: The password of the user.
        tls: Whether the connection to Redis is encrypted.
        ca: The file of the certificates to trust, for TLS; those of this machine by default.
        cert: The file of this side's own certificate, for TLS.
        key: The file of its private key, if it is not in ``cert``.
        ssl_context: The application's own context, in place of these three.
        silence: Seconds without a sign of life after which the peer is lost, or Redis. It is given one three times in
            that time.

    Needs the extra ``redis``. A slow reader is disconnected by Redis itself once more than its
    ``client-output-buffer-limit`` waits: 32 MiB by default.
    """

    @classmethod
    def from_url(cls, url: str) -> Self:
        parts = split_redis_url(url, cls.schemes)
        query = options_of(url, cls.query)
        username, password = credentials_of(parts)
        return cls(
            parts.hostname or "",
            parts.port or REDIS_PORT,
            database=int(parts.path.strip("/") or 0),
            username=username,
            password=password,
            tls=parts.scheme == cls.schemes[True],
            **attrs.asdict(query),
        )

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        self.check(scope.settings)
        from trioxport.transports.redis.client import open_client

        return open_client(self, scope)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self.check(settings)
        from trioxport.transports.redis.server import RedisServer

        await RedisServer(self, acceptor, settings).run(task_status)

    def check(self, settings: ConnectionSettings) -> None:
        """Raise ``UsageError`` without the extra, and for an unencrypted connection that is not allowed."""
        if find_spec("coredis") is None:
            raise UsageError("coredis is not installed, which Redis needs", hint=install_hint("redis"))
        if not self.tls:
            refuse_plaintext(self.host, settings)
