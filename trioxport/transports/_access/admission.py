"""Admitted clients of connections that outlive a request: until when they may stay, and the messages they may send."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import attrs

from trioxport.abc import MessageCheck
from trioxport.auth import VerifiedToken
from trioxport.auth.verified import deadline_of
from trioxport.messages import ErrorResponse, Message, Request
from trioxport.protocol import INVALID_REQUEST
from trioxport.transports._access.scopes import Scopes

NoteRefusal: TypeAlias = Callable[[str], None]
"""Logs a refusal by its reason."""


@attrs.frozen
class Admission:
    """The permission of one client to use a connection.

    Args:
        until: The time of its end, by the clock of Trio: a token expires.
        check: The check of each message; None where all are allowed.
    """

    until: float = math.inf
    check: MessageCheck | None = None

    @classmethod
    def of(cls, token: VerifiedToken | None, scopes: Scopes, note: NoteRefusal) -> Admission:
        """The permission that a token gives."""
        if not scopes.depends_on_message:
            return cls(deadline_of(token))
        return cls(deadline_of(token), _MessageScopes(token, scopes, note))


@attrs.frozen
class _MessageScopes:
    """The check of messages by the scopes of a token, where no HTTP status can tell what is missing."""

    token: VerifiedToken | None
    scopes: Scopes
    note: NoteRefusal

    def __call__(self, message: Message) -> ErrorResponse | None:
        missing = self.scopes.missing_from(() if self.token is None else self.token.scopes, message)
        if not missing:
            return None
        self.note(f"the token does not have all of: {' '.join(missing)}")
        data = {"error": "insufficient_scope", "scope": " ".join(missing)}
        request_id = message.id if isinstance(message, Request) else None
        return ErrorResponse(request_id, INVALID_REQUEST, "The token does not have the scopes for this", data)
