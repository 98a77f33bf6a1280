"""The attempts to send one message, and the decision about the next one; nothing here waits."""

from __future__ import annotations

from contextvars import Context, copy_context
from copy import copy
from random import Random
from typing import Protocol, cast

import attrs

from trioxport._core.backoff import Backoff
from trioxport.errors import Outcome, TransportError
from trioxport.messages import Message, Request, Undelivered
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import DISCOVER

_READ_ONLY = frozenset({"ping", DISCOVER, "completion/complete"})
_READING = ("/list", "/read", "/get")


def is_read_only(message: Message) -> bool:
    """Whether ``message`` is a request that changes nothing and can be repeated without effect."""
    return isinstance(message, Request) and (message.method in _READ_ONLY or message.method.endswith(_READING))


def is_safe_to_repeat(undelivered: Undelivered) -> bool:
    """Whether another attempt may succeed and cannot repeat a side effect."""
    if not undelivered.cause.retryable:
        return False
    return undelivered.outcome == "not_sent" or is_read_only(undelivered.original)


class RetryPolicy(Protocol):
    """The part of ``Retry`` that decides about the next attempt."""

    @property
    def attempts(self) -> int: ...
    @property
    def deadline(self) -> float: ...
    @property
    def backoff(self) -> Backoff: ...
    @property
    def random(self) -> Random: ...
    def when(self, undelivered: Undelivered, /) -> bool: ...


@attrs.define(eq=False)
class Attempts:
    """The attempts to send one message.

    Args:
        message: The message, as the application sent it.
        started: The time of the first attempt, by Trio's clock.
        owner: The layer instance that makes the attempts; a connection may have several.
        context: The context that the message was sent in.
        causes: The error of each attempt that failed, oldest first.
    """

    message: Message
    started: float
    owner: object
    context: Context = attrs.Factory(copy_context)
    causes: list[TransportError] = attrs.Factory(list[TransportError])
    _may_have_arrived: bool = False

    def fail(self, undelivered: Undelivered, now: float, policy: RetryPolicy) -> float | None:
        """Record a failed attempt. Returns the time of the next one, or None if no attempt is left."""
        cause = undelivered.cause
        self.causes.append(cause)
        self._may_have_arrived |= undelivered.outcome == "unknown"
        number = len(self.causes)
        if number >= policy.attempts or not policy.when(undelivered):
            return None
        due = now + policy.backoff.delay(number - 1, policy.random, retry_after=cause.retry_after)
        return due if due <= self.started + policy.deadline else None

    def next_message(self) -> Message:
        """The message for the next attempt, with the attempt's number in its metadata.

        Other messages than requests carry the attempts as well: undelivered, they have no id to find them by.
        """
        noted = Metadata(attempt=len(self.causes) + 1)
        if not isinstance(self.message, Request):
            noted["attempts"] = self
        return attrs.evolve(self.message, metadata={**self.message.metadata, **noted})

    @classmethod
    def of(cls, message: Message, owner: object) -> Attempts | None:
        """The attempts of ``owner`` that ``message`` belongs to; None for a first attempt."""
        if not isinstance(cast("object", message), Message):  # the codec refuses it
            return None
        found = metadata_of(message).get("attempts")
        return found if isinstance(found, Attempts) and found.owner is owner else None

    def outcome(self) -> Outcome:
        """The outcome of all attempts together: ``"unknown"`` if any of them may have arrived."""
        return "unknown" if self._may_have_arrived else "not_sent"

    def error(self) -> TransportError:
        """The error of the last attempt, with a note about each attempt before it."""
        last = self.causes[-1]
        if len(self.causes) == 1:
            return last
        error = copy(last)
        error.__cause__ = last.__cause__
        error.__notes__ = list(getattr(last, "__notes__", ()))  # copy() would share the list
        error.outcome = self.outcome()
        for number, cause in enumerate(self.causes[:-1], 1):
            error.add_note(f"Attempt {number} failed, too: {type(cause).__name__}: {cause.reason}")
        return error

    def undelivered(self) -> Undelivered:
        """The ``Undelivered`` that settles the message when no attempt is left."""
        undelivered = Undelivered.of(self.message, self.error())
        metadata = Metadata(attempt=len(self.causes), causes=tuple(self.causes))
        return attrs.evolve(undelivered, outcome=self.outcome(), metadata=metadata)
