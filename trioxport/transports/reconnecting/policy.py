"""When a lost connection is opened again, and when no more."""

from __future__ import annotations

from random import Random

import attrs

from trioxport._core.backoff import BACKOFF, Backoff
from trioxport._diagnostics.validators import COUNT_OR_0, FLAG, SECONDS_OR_0
from trioxport.errors import TransportError


@attrs.frozen(kw_only=True)
class Reconnect:
    """When and how a lost connection is opened again.

    Errors that are not ``retryable`` end it at once, and a peer's ``retry_after`` is kept to.

    Args:
        backoff: The waits before the attempts. They start anew after progress on a connection that held longer than
            the wait would have been.
        attempts: Attempts that may go by without progress, which is a message from the peer; then the connection
            fails. None for no bound.
        send_timeout: Seconds that a ``send`` waits for the connection to come back; 0 to fail at once.
        retry_first: Whether the first connection is tried again too, for ``connect_timeout`` altogether.
        after_end: Whether an orderly end by the peer counts as a loss, also where it leaves no request unanswered.
        replay_initialize: Whether ``initialize`` and ``notifications/initialized`` are sent again on each new
            connection, out of the application's sight.
        resend_subscriptions: Whether ``subscriptions/listen`` requests are sent again, each under a new id,
            which the application does not see, rather than settled.
        random: Where the jitter comes from.
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
    """What is left of a policy's attempts, and how long to wait before the next; pure."""

    def __init__(self, policy: Reconnect) -> None:
        self._policy = policy
        self._spent = 0
        self._step = 0

    def lost(self, *, heard: bool, held: float) -> None:
        """A connection that was open for ``held`` seconds is lost; ``heard`` says whether it brought a message."""
        if not heard:
            return
        self._spent = 0
        if held >= self._policy.backoff.bound(self._step):
            self._step = 0

    def allows(self, failure: TransportError) -> bool:
        """Whether there is to be an attempt after ``failure``."""
        attempts = self._policy.attempts
        return failure.retryable and (attempts is None or self._spent < attempts)

    def delay(self, failure: TransportError) -> float | None:
        """Seconds until the next attempt, given what ended the one before; None if there is to be none."""
        policy = self._policy
        if not self.allows(failure):
            return None
        delay = policy.backoff.delay(self._step, policy.random, retry_after=failure.retry_after)
        self._spent += 1
        self._step += 1
        return delay
