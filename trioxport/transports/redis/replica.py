"""One server of sessions that several servers share: it forwards requests to the owners of sessions, and is an owner.

The id of a session names its owner. That holds a leased key, whose value is the address of its channel: a new address
with each connection to Redis, so that a message which reached no receiver is known to be lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import ConnectionSettings
from trioxport.errors import ConnectionLost, TransportError
from trioxport.protocol import INTERNAL_ERROR
from trioxport.transports.http.server.refusals import Refusal, unavailable
from trioxport.transports.http.server.request import ClientGone, ServerRequest
from trioxport.transports.redis.connection import RedisConnection
from trioxport.transports.redis.forward import Forward
from trioxport.transports.redis.forward_messages import (
    Abort,
    Cancel,
    Opening,
    Query,
    RequestPart,
    ResponseTaken,
    ToForwarder,
    decode,
    encode,
)
from trioxport.transports.redis.lease import Leases, is_name
from trioxport.transports.redis.owner import SessionOwner, note_of
from trioxport.transports.redis.relayed_request import RelayedRequest
from trioxport.transports.redis.target import Redis

if TYPE_CHECKING:
    from trioxport.transports.redis.link import RedisLink

SEARCH_SECONDS: Final = 0.1
"""Seconds between two attempts to reach an owner that has a lease and no channel."""
SEARCH_LEASES: Final = 2
"""Leases for which such an owner is searched."""
RETRY_AFTER_SECONDS: Final = 1
"""Seconds after which a client may repeat what was refused for want of Redis."""
GOODBYE_SECONDS: Final = 1.0
"""Seconds that Redis gets to end a lease."""
MAX_ADDRESSES: Final = 1024
"""Addresses of other replicas that are remembered."""


@attrs.frozen
class _Receiver:
    """The receiver of what arrives on the channel of a replica, over one connection."""

    replica: RedisReplica
    link: RedisLink

    def put(self, payload: bytes) -> None:
        self.replica.take(self.link, payload)

    def end(self, loss: TransportError) -> None:
        self.replica.end_all(loss)


class RedisReplica:
    """One server of the sessions in a directory.

    Args:
        redis: The Redis server.
        lease: Seconds of its lease.
        serve: Answers the forwarded requests of its sessions.

    Attributes:
        leases: Its lease.
    """

    def __init__(self, redis: Redis, lease: float, serve: Callable[[ServerRequest], Awaitable[None]]) -> None:
        self._id = secrets.token_hex(8)
        self.leases = Leases(redis, self._id, lease)
        self._prefix = redis.key_prefix
        self._channels = f"{self._prefix}at:"
        self._target = str(redis)
        self._serve = serve
        self._connection = RedisConnection(redis)
        self._address: str | None = None
        self._sure_from = 0.0
        self._addresses: dict[str, str] = {}
        self._numbers = count(1)
        self._forwards: dict[int, Forward] = {}
        self._requests: dict[tuple[str, int], RelayedRequest] = {}
        self._tasks: trio.Nursery | None = None
        self._count_event: Callable[[str], None] = lambda event: None

    @property
    def is_ready(self) -> bool:
        """Whether others can find the sessions of this server."""
        return self._address is not None

    def new_session_id(self) -> str:
        """Return the id of a new session of this server. Raises ``Refusal`` while others could not find it."""
        if self._address is None:
            raise unavailable("New sessions cannot be opened now", RETRY_AFTER_SECONDS, "directory")
        return f"{secrets.token_urlsafe(24)}.{self._id}"

    def owns(self, session_id: str) -> bool:
        """Whether this server has the session, if there is one with this id."""
        return session_id.rpartition(".")[2] == self._id

    # The connection.

    async def run(
        self, settings: ConnectionSettings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be found by others until cancelled. Raises ``TransportError`` as a resource does."""
        self._count_event = self.leases.count_event = settings.count_event
        self.leases.is_given_up = False
        async with open_bare_nursery() as self._tasks:
            await self._connection.run(settings, self._use, task_status=task_status)

    async def _use(self, link: RedisLink, started: Callable[[], None]) -> None:
        """Answer on a channel, under the lease, until the connection is lost. Raises the loss."""
        address = secrets.token_hex(8)
        await link.silence(self._channels + address)
        with link.receiving(self._channels + address, _Receiver(self, link)):
            await link.subscribe(self._channels + address)
            await link.check_telling(f"{self._channels}nowhere", note_of(self._prefix, "nowhere", address, 0))
            await self.leases.take(link, address)
            self._address = address
            started()
            try:
                await self.leases.hold(link, address)
            finally:
                self._address = None
                self._sure_from = trio.current_time() + self.leases.seconds

    def leave(self) -> None:
        """End the lease at once: others that do not know the address of this server find its sessions no more."""
        self.leases.is_given_up = True
        with suppress(TransportError):
            self.leases.end(self._connection.link)

    async def close(self) -> None:
        """Wait until the lease is over, if Redis answers."""
        with trio.move_on_after(GOODBYE_SECONDS), suppress(TransportError):
            self.leave()
            await self._connection.command(b"PING")

    def stop(self) -> None:
        """End the streams that this server forwards, whose clients resume them elsewhere."""
        for forward in self._forwards.values():
            if forward.is_stream:
                forward.stop()

    def take(self, link: RedisLink, payload: bytes) -> None:
        """Take a message of another replica."""
        try:
            message = decode(payload)
        except ValueError:
            logger.warning("%s: a message that no server of this version sends was dropped", self._target)
            return
        if isinstance(message, Opening):
            self._accept(link, message)
        elif isinstance(message, RequestPart | ResponseTaken | Cancel):
            request = self._requests.get((message.sender, message.number))
            if request is not None:
                request.take(message)
        elif isinstance(message, Query):
            if (message.sender, message.number) not in self._requests and is_name(message.sender):
                self._tell(link, message.sender, Abort(message.number))
        else:
            forward = self._forwards.get(message.number)
            if forward is not None:
                forward.take(message)

    def end_all(self, loss: TransportError) -> None:
        """End everything that is under way over a lost connection."""
        for forward in self._forwards.values():
            forward.end(loss)
        for request in self._requests.values():
            request.end(loss)

    def _tell(self, link: RedisLink, address: str, message: ToForwarder) -> None:
        """Send a message to a replica. Raises ``TransportError``."""
        link.tell(self._channels + address, encode(message))

    # As the owner.

    def _accept(self, link: RedisLink, opening: Opening) -> None:
        assert self._tasks is not None
        key = opening.sender, opening.number
        if is_name(opening.sender) and key not in self._requests:
            self._count_event("served")
            request = RelayedRequest(opening, partial(self._tell, link, opening.sender))
            self._requests[key] = request
            self._tasks.start_soon(self._answer, link, opening.sender, opening.number, request)

    async def _answer(self, link: RedisLink, sender: str, number: int, request: RelayedRequest) -> None:
        try:
            with link.presence(self._channels + sender, request), request.scope:
                await self._serve(request)
        except Exception:
            logger.exception("%s: a forwarded request failed", self._target)
        finally:
            del self._requests[sender, number]
            with suppress(ClientGone):
                request.conclude()

    # As the one that has the client.

    async def forward(self, request: ServerRequest, session_id: str, body: bytes) -> bool:
        """Let the owner of a session answer a request. Returns whether there is an owner.

        Raises:
            Refusal: The owner was not reached (503), or was lost before it answered (502).
            ClientGone: The response was cut off.
        """
        owner = session_id.rpartition(".")[2]
        if not is_name(owner):
            return False
        try:
            link = self._connection.link
            if self._address is None:
                raise ConnectionLost("the connection to Redis has just been opened", outcome="not_sent")
            forward = Forward(next(self._numbers), self._address, request, body)
        except TransportError as error:
            raise _unreachable(error) from error
        self._forwards[forward.number] = forward
        try:
            return await self._ask_owner(link, owner, forward)
        finally:
            del self._forwards[forward.number]
            if forward.is_lost:
                self._addresses.pop(owner, None)
                self._count_event("owner lost")

    async def _ask_owner(self, link: RedisLink, owner: str, forward: Forward) -> bool:
        """Let the owner of a session answer, and return whether there is one. Raises ``Refusal`` and ``ClientGone``.

        An owner that lost its connection to Redis has a lease, and no channel: it gets time to return. Nothing is sent
        twice, since what was published to no receiver was not received.
        """
        deadline = trio.current_time() + SEARCH_LEASES * self.leases.seconds
        while trio.current_time() < deadline:
            address = await self._address_of(link, owner)
            if address is not None:
                if await self._exchange(link, SessionOwner(link, self.leases, self._prefix, owner, address), forward):
                    return True
                self._addresses.pop(owner, None)
            elif trio.current_time() >= self._sure_from:
                return False
            await trio.sleep(SEARCH_SECONDS)
        raise _unreachable(ConnectionLost("the owner of a session has a lease, and does not listen"))

    async def _exchange(self, link: RedisLink, owner: SessionOwner, forward: Forward) -> bool:
        """Send a request to an address, and write the response; returns whether a replica is there. Raises as above."""
        try:
            owner.open(forward.opening())
        except TransportError as error:
            raise _unreachable(error) from error
        try:
            with link.presence(owner.channel, forward):
                return await forward.run(owner)
        finally:
            if not forward.is_unreached:
                self._count_event("forwarded")

    async def _address_of(self, link: RedisLink, owner: str) -> str | None:
        """The address of the owner of a session; None if it has no lease. Raises ``Refusal`` (503)."""
        address = self._addresses.get(owner)
        if address is None:
            try:
                address = await self.leases.address_of(link, owner)
            except TransportError as error:
                raise _unreachable(error) from error
            if address is not None:
                self._remember(owner, address)
        return address

    def _remember(self, owner: str, address: str) -> None:
        self._addresses[owner] = address
        if len(self._addresses) > MAX_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]


def _unreachable(error: TransportError) -> Refusal:
    return Refusal(
        503,
        "The server that has the session cannot be reached now",
        code=INTERNAL_ERROR,
        fields=[(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)],
        about="directory",
        detail=str(error),
    )
