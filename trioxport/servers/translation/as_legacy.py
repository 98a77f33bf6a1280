"""A modern server, presented as a legacy server."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import attrs

from trioxport._core.backoff import BACKOFF, Backoff
from trioxport._diagnostics.validators import SECONDS, whole_between
from trioxport.abc import MessageChannels, Scope
from trioxport.servers.translation._legacy_session import LegacySession
from trioxport.servers.translation._link import Link, TranslatedReceive, TranslatedSend
from trioxport.servers.translation._rounds import RoundLimits

MAX_ROUNDS: Final = 32
"""Rounds in which a server may ask for more input before it answers a request."""
MAX_QUESTIONS: Final = 1024
"""Questions that may wait for a client at the same time."""
ANSWER_SECONDS: Final = 600.0
"""Seconds in which a client has to answer the questions of a round."""


@attrs.frozen(kw_only=True)
class AsLegacyServer:
    """A message layer that presents a server of revision 2026-07-28 as one of 2025-11-25 and before.

    ``initialize`` is answered from ``server/discover``, and ``ping`` here. A server's need for input becomes requests
    to the client, whose answers go to the server in a next round. ``resources/subscribe``, and the changes of lists
    that the server declares, become one ``subscriptions/listen``, which is opened again when the server ends it.
    ``logging/setLevel`` becomes the level of the requests that follow.

    One pair of wrapped channels is one session of one client.

    Args:
        max_rounds: Rounds after which a request that needs more input still is answered with an error.
        max_questions: Questions that may wait for the client at the same time; a request whose questions exceed it is
            answered with an error.
        answer_timeout: Seconds in which the client has to answer the questions of a round. Then they are cancelled, and
            the request is answered with an error.
        backoff: The waits before a subscription that the server ended is opened again, and before the next round of a
            request for which the server asks nothing.

    Specification 2026-07-28, basic/patterns/mrtr and basic/patterns/subscriptions; 2025-11-25, basic/lifecycle.
    """

    level: ClassVar[Literal["message"]] = "message"
    max_rounds: int = attrs.field(default=MAX_ROUNDS, validator=whole_between(1, 10_000))
    max_questions: int = attrs.field(default=MAX_QUESTIONS, validator=whole_between(1, 1_000_000))
    answer_timeout: float = attrs.field(default=ANSWER_SECONDS, validator=SECONDS)
    backoff: Backoff = attrs.field(factory=Backoff, validator=BACKOFF)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        """Return channels to a legacy server in place of ``channels``, which lead to a modern one."""
        limits = RoundLimits(self.max_rounds, self.max_questions, self.answer_timeout, self.backoff)
        session = LegacySession(Link(channels, scope), limits)
        return MessageChannels(TranslatedSend(session), TranslatedReceive(session))
