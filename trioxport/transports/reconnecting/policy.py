"""Reconnection policy: attempts, backoff, and the attempts that are left."""

from __future__ import annotations

from random import Random

import attrs

from trioxport._core.backoff import BACKOFF, Backoff
from trioxport._diagnostics.validators import COUNT_OR_0, FLAG, SECONDS_OR_0
from trioxport.errors import TransportError


@attrs.frozen(kw_only=True)
class Reconnect:
    """The policy by which a lost connection is opened again.

    An error that is not ``retryable`` ends the attempts at once; a peer's ``retry_after`` is obeyed.

    Args:
        backoff: The delays before the attempts. They start anew after progress on a connection that lasted longer
            than the next delay.
        attempts: The number of attempts without progress, which is a message from the peer, before the connection
            fails; None for no bound.
        send_timeout: Seconds that a ``send`` waits for the connection to come back; 0 to fail at once.
        retry_first: Whether the first connection is retried too, within ``connect_timeout``.
        after_end: Whether an orderly end by the peer counts as a loss, also where it leaves no request unanswered.
        replay_initialize: Whether ``initialize`` and ``notifications/initialized`` are sent again on each new
            connection, invisibly to the application.
        resend_subscriptions: Whether ``subscriptions/listen`` requests are sent again, each under a new id,
            which the application does not see, rather than settled.
        random: The source of the jitter.
    """

    backoff: Backoff = attrs.field(factory=Backoff, validator=BACKOFF)
    attempts: int | None = attrs.field(default=12, validator=COUNT_OR_0.or_none())
    send_timeout: float = attrs.field(default=30.0, validator=SECONDS_OR_0)
    retry_first: bool = attrs.field(default=False, validator=FLAG)
    after_end: bool = attrs.field(default=False, validator=FLAG)
    replay_initialize: bool = attrs.field(default=True, validator=FLAG)
    resend_subscriptions: bool = attrs.field(default=False, validator=FLAG)
    random: Random = attrs.field(factory=Random, repr=False, eq=False)


class Budget:
    """The attempts that a policy has left, and the delay before the next one; no input or output."""

    def __init__(self, policy: Reconnect) -> None:
        self._policy = policy
        self._spent = 0
        self._step = 0

    def lost(self, *, received: bool, open_seconds: float) -> None:
        """Count the loss of a connection.

        Args:
            received: Whether a message arrived on it.
            open_seconds: The time that it was open.
        """
        if not received:
            return
        self._spent = 0
        if open_seconds >= self._policy.backoff.bound(self._step):
            self._step = 0

    def allows(self, failure: TransportError) -> bool:
        """Whether another attempt follows ``failure``."""
        attempts = self._policy.attempts
        return failure.retryable and (attempts is None or self._spent < attempts)

    def delay(self, failure: TransportError) -> float | None:
        """Use an attempt; return the seconds to wait before it, or None if none follows ``failure``."""
        policy = self._policy
        if not self.allows(failure):
            return None
        delay = policy.backoff.delay(self._step, policy.random, retry_after=failure.retry_after)
        self._spent += 1
        self._step += 1
        return delay
