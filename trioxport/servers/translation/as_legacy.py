"""A modern server, presented as a legacy server."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import attrs

from trioxport._core.backoff import BACKOFF, Backoff
from trioxport._diagnostics.validators import whole_between
from trioxport.abc import MessageChannels, Scope
from trioxport.servers.translation._legacy_session import LegacySession
from trioxport.servers.translation._link import Link, TranslatedReceive, TranslatedSend

MAX_ROUNDS: Final = 32
"""Rounds in which a server may ask for more input before it answers a request."""


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
        backoff: The waits before a subscription that the server ended is opened again, and before the next round of a
            request for which the server asks nothing.

    Specification 2026-07-28, basic/patterns/mrtr and basic/patterns/subscriptions; 2025-11-25, basic/lifecycle.
    """

    level: ClassVar[Literal["message"]] = "message"
    max_rounds: int = attrs.field(default=MAX_ROUNDS, validator=whole_between(1, 10_000))
    backoff: Backoff = attrs.field(factory=Backoff, validator=BACKOFF)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        """Return channels to a legacy server in place of ``channels``, which lead to a modern one."""
        session = LegacySession(Link(channels, scope), self.max_rounds, self.backoff)
        return MessageChannels(TranslatedSend(session), TranslatedReceive(session))
