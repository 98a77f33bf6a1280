"""What is known of a message that is tried more than once, and whether it is tried again; nothing here waits."""

from __future__ import annotations

from contextvars import Context, copy_context
from copy import copy
from random import Random
from typing import Protocol

import attrs

from trioxport._core.backoff import Backoff
from trioxport.errors import Outcome, TransportError
from trioxport.messages import Message, Request, Undelivered
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import DISCOVER

_READ_ONLY = frozenset({"ping", DISCOVER, "completion/complete"})
_READING = ("/list", "/read", "/get")
"""The key under which a message that is sent again carries its attempts: what comes back undelivered still has them,
also where it has no id to know it by."""


def is_read_only(message: Message) -> bool:
    """Whether ``message`` is a request that changes nothing, so that to repeat it repeats nothing."""
    return isinstance(message, Request) and (message.method in _READ_ONLY or message.method.endswith(_READING))


def is_safe_to_repeat(undelivered: Undelivered) -> bool:
    """Whether trying again may help, and nothing can then have happened twice."""
    if not undelivered.cause.retryable:
        return False
    return undelivered.outcome == "not_sent" or is_read_only(undelivered.original)


class Policy(Protocol):
    """What decides about the next attempt."""

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
        started: When that was.
        owner: What makes them: there may be several layers that do.
        context: The context that it was sent in.
        causes: Why the attempts failed, one for each that did.
    """

    message: Message
    started: float
    owner: object
    context: Context = attrs.Factory(copy_context)
    causes: list[TransportError] = attrs.Factory(list[TransportError])
    _may_have_arrived: bool = False

    def fail(self, undelivered: Undelivered, now: float, policy: Policy) -> float | None:
        """Note that an attempt failed; when to make the next one, or None if there is none to be made."""
        cause = undelivered.cause
        self.causes.append(cause)
        self._may_have_arrived |= undelivered.outcome == "unknown"
        number = len(self.causes)
        if number >= policy.attempts or not policy.when(undelivered):
            return None
        due = now + policy.backoff.delay(number - 1, policy.random, retry_after=cause.retry_after)
        return due if due <= self.started + policy.deadline else None

    def again(self) -> Message:
        """The message for the next attempt, whose number is in its metadata."""
        noted = Metadata(attempt=len(self.causes) + 1)
        if not isinstance(self.message, Request):
            noted["attempts"] = self
        return attrs.evolve(self.message, metadata={**self.message.metadata, **noted})

    @classmethod
    def of(cls, message: Message, owner: object) -> Attempts | None:
        """The attempts of ``owner`` of which ``message`` is the latest, unless it is the first."""
        found = metadata_of(message).get("attempts")
        return found if isinstance(found, Attempts) and found.owner is owner else None

    def outcome(self) -> Outcome:
        """Whether any of the attempts can have arrived."""
        return "unknown" if self._may_have_arrived else "not_sent"

    def error(self) -> TransportError:
        """The last cause, with a note about each one before it, if there are any."""
        last = self.causes[-1]
        if len(self.causes) == 1:
            return last
        told = copy(last)
        told.__cause__ = last.__cause__
        told.__notes__ = list(getattr(last, "__notes__", ()))  # the copy's own
        told.outcome = self.outcome()
        for number, cause in enumerate(self.causes[:-1], 1):
            told.add_note(f"Attempt {number} failed, too: {type(cause).__name__}: {cause.reason}")
        return told

    def undelivered(self) -> Undelivered:
        """What settles the message, now that there are no more attempts."""
        told = Undelivered.of(self.message, self.error())
        metadata = Metadata(attempt=len(self.causes), causes=tuple(self.causes))
        return attrs.evolve(told, outcome=self.outcome(), metadata=metadata)
