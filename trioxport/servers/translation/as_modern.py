"""A legacy server, presented as a modern server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import attrs

from trioxport._diagnostics.validators import SECONDS, whole_between
from trioxport._version import __version__
from trioxport.abc import MessageChannels, Scope
from trioxport.servers.translation._link import Link, TranslatedReceive, TranslatedSend
from trioxport.servers.translation._modern_server import ModernServer

ANSWER_SECONDS: Final = 600.0
"""Seconds in which a client has to repeat a request with the input that the server asked for."""
MAX_PENDING: Final = 1024
"""Requests that may wait for the input of clients at the same time."""
CLIENT_INFO: Final[Mapping[str, Any]] = {"name": "trioxport", "version": __version__}
CAPABILITIES: Final[Mapping[str, Any]] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}


@attrs.frozen(kw_only=True)
class AsModernServer:
    """A message layer that presents a server of revision 2025-11-25 or before as one of 2026-07-28.

    The layer initializes the server by itself, before the first request. The server's requests to its client during a
    request become an ``input_required`` result of that request; the client's repetition of it carries the answers.
    ``subscriptions/listen`` becomes ``resources/subscribe``, counted over all clients, and the server's notifications
    are given to each subscription that asked for them.

    One pair of wrapped channels serves any number of clients: ``metadata["principal"]`` of a request, a string, is the
    identity of its client, for a ``requestState`` is taken from the principal only to whom it was given.

    Args:
        client_info: The ``name`` and ``version`` that the server is given in ``initialize``.
        capabilities: The capabilities that the server is given. A client that does not declare the capability for a
            question is not asked: the server gets an error.
        answer_timeout: Seconds in which a client has to repeat a request with the input. Then the request is cancelled
            at the server, and its ``requestState`` is refused.
        max_pending: Requests that may wait for input at the same time; at more, the server gets an error for its
            question.

    Specification 2025-11-25, basic/lifecycle; 2026-07-28, basic/patterns/mrtr and basic/patterns/subscriptions.
    """

    level: ClassVar[Literal["message"]] = "message"
    client_info: Mapping[str, Any] = CLIENT_INFO
    capabilities: Mapping[str, Any] = CAPABILITIES
    answer_timeout: float = attrs.field(default=ANSWER_SECONDS, validator=SECONDS)
    max_pending: int = attrs.field(default=MAX_PENDING, validator=whole_between(1, 1_000_000))

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        """Return channels to a modern server in place of ``channels``, which lead to a legacy one."""
        params = {"capabilities": self.capabilities, "clientInfo": self.client_info}
        waiting = max(1, scope.settings.limits.max_buffered_messages)
        server = ModernServer(Link(channels, scope), params, self.answer_timeout, self.max_pending, waiting)
        return MessageChannels(TranslatedSend(server), TranslatedReceive(server))
