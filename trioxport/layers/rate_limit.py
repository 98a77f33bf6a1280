"""Rate limits for requests and notifications, sent and received."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import ClassVar, Final, Literal

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.shared_rates import RateUnavailable, SharedBucket
from trioxport._core.token_bucket import Rate, TokenBucket
from trioxport._diagnostics.validators import OptionCheck, one_of
from trioxport.abc import MessageChannels, Scope
from trioxport.errors import RateLimited
from trioxport.messages import Incoming, Message, Notification, Request
from trioxport.protocol import CANCELLED

_LIMIT: Final = OptionCheck(
    "a Rate(...), a TokenBucket or a bucket in Redis",
    lambda limit: isinstance(limit, Rate | TokenBucket | SharedBucket),
).or_none()
_INITIATED: Final = (Request, Notification)


@attrs.frozen
class RateLimit:
    """Lets requests and notifications pass at a rate, by a token bucket for each direction.

    Responses are not limited, because they were asked for, nor is ``notifications/cancelled``, which ends work.

    Messages *received* faster than the limit are held up, one at a time and in order: ``receive`` waits, then the
    buffers fill, and in the end the peer's ``send`` has to wait. Nothing is dropped. On a server this bounds what a
    client can ask for; the answers to the server's own requests wait behind what is held up.

    Args:
        send: The rate of what is sent; None for no limit. A :class:`Rate` holds for each connection by itself, a
            :class:`TokenBucket` for everything that shares it, and a bucket of
            :class:`~trioxport.transports.redis.RedisRates` for all programs that share it.
        receive: The same, for what is received.
        on_limit: Whether a ``send`` over the limit waits for its turn, first come, first served, or raises
            ``RateLimited``, whose ``retry_after`` says when there is room again.

    Cancelling a ``send`` or a ``receive`` that waits loses nothing and takes no token; closing the channel ends the
    wait with ``trio.ClosedResourceError``. A token that Redis gives while the wait for it is cancelled is for the next
    message of the connection.
    """

    level: ClassVar[Literal["message"]] = "message"

    send: Rate | TokenBucket | SharedBucket | None = attrs.field(default=None, validator=_LIMIT)
    receive: Rate | TokenBucket | SharedBucket | None = attrs.field(default=None, validator=_LIMIT)
    on_limit: Literal["wait", "raise"] = attrs.field(default="wait", validator=one_of("wait", "raise"), kw_only=True)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        send, receive = channels
        if self.send is not None and self.on_limit == "wait":
            send = _WaitingSend(send, _bucket(self.send))
        elif self.send is not None:
            send = _RaisingSend(send, _bucket(self.send), scope.settings.target)
        if self.receive is not None:
            receive = _LimitedReceive(receive, _bucket(self.receive))
        return MessageChannels(send, receive)


def _bucket(limit: Rate | TokenBucket | SharedBucket) -> TokenBucket | SharedBucket:
    return TokenBucket(limit) if isinstance(limit, Rate) else limit


def _is_limited(message: Incoming) -> bool:
    return isinstance(message, _INITIATED) and message.method != CANCELLED


class _RateGate:
    """The wait of one direction of a connection for tokens, in turn, until it is closed."""

    def __init__(self, bucket: TokenBucket | SharedBucket) -> None:
        self._bucket = bucket
        self._asked: Awaitable[float] | None = None
        self._closed = trio.Event()
        self.turn = trio.Lock()

    def take_nowait(self) -> bool:
        """Take a token if there is one and no other task waits. Returns whether one was taken."""
        if not isinstance(self._bucket, TokenBucket) or self.turn.locked():
            return False
        return not self._bucket.take(trio.current_time())

    async def try_take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one. The caller holds ``turn``.

        Raises ``RateUnavailable``.
        """
        if isinstance(self._bucket, TokenBucket):
            return self._bucket.take(trio.current_time())
        earlier = self._asked  # by a caller that was cancelled
        self._asked = earlier or self._bucket.ask()
        try:
            wait = await self._asked
        except RateUnavailable:
            self._asked = None
            raise
        self._asked = None
        return await self.try_take() if earlier and wait else wait

    async def take(self) -> None:
        """Wait for a token and take it. The caller holds ``turn``."""
        while seconds := await self._seconds_to_wait():
            with trio.move_on_after(seconds):
                await self._closed.wait()
            if self._closed.is_set():
                raise trio.ClosedResourceError

    async def _seconds_to_wait(self) -> float:
        try:
            return await self.try_take()
        except RateUnavailable as unavailable:
            return unavailable.retry_after

    def close(self) -> None:
        self._closed.set()


class _WaitingSend(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], bucket: TokenBucket | SharedBucket) -> None:
        self._inner = inner
        self._gate = _RateGate(bucket)

    async def send(self, value: Message) -> None:
        if _is_limited(value) and not self._gate.take_nowait():
            async with self._gate.turn:
                await self._gate.take()
        await self._inner.send(value)

    async def aclose(self) -> None:
        self._gate.close()
        await self._inner.aclose()


class _RaisingSend(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], bucket: TokenBucket | SharedBucket, target: str) -> None:
        self._inner = inner
        self._gate = _RateGate(bucket)
        self._target = target

    async def send(self, value: Message) -> None:
        if _is_limited(value) and not self._gate.take_nowait():
            await self._take()
        await self._inner.send(value)

    async def _take(self) -> None:
        """Take a token. Raises ``RateLimited`` if there is none."""
        try:
            async with self._gate.turn:
                seconds = await self._gate.try_take()
        except RateUnavailable as unavailable:
            raise RateLimited(
                "the rate limit of this side cannot be checked now",
                target=self._target,
                hint="Check that Redis runs, or let the rate fail open",
                retry_after=unavailable.retry_after,
            ) from unavailable
        if seconds:
            raise RateLimited(
                "more is sent than the rate limit of this side allows",
                target=self._target,
                hint="Send less often, or raise the limit",
                retry_after=seconds,
            )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _LimitedReceive(ReceiveChannel[Incoming]):
    def __init__(self, inner: ReceiveChannel[Incoming], bucket: TokenBucket | SharedBucket) -> None:
        self._inner = inner
        self._gate = _RateGate(bucket)
        self._held: deque[Incoming] = deque()

    async def receive(self) -> Incoming:
        while True:
            if not self._held:
                message = await self._inner.receive()
                if not _is_limited(message) or self._gate.take_nowait():
                    return message
                self._held.append(message)
            async with self._gate.turn:
                if self._held:  # another task may have taken it
                    await self._gate.take()
                    return self._held.popleft()

    async def aclose(self) -> None:
        self._held.clear()
        self._gate.close()
        await self._inner.aclose()
