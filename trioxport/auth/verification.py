"""The result of checking a bearer token on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen
class VerifiedToken:
    """The facts about a bearer token that a server's check established.

    Args:
        principal: The party that the token speaks for: sessions and rates belong to it.
        client_id: The OAuth client that the token was issued to, where that is known.
        scopes: What the token is good for.
        expires_at: When it ends, in seconds since 1970; None if that is not known.
        claims: Further claims, as the check found them.
    """

    principal: str
    client_id: str | None = attrs.field(default=None, kw_only=True)
    scopes: Sequence[str] = attrs.field(default=(), kw_only=True)
    expires_at: float | None = attrs.field(default=None, kw_only=True)
    claims: Mapping[str, Any] = attrs.field(factory=dict[str, Any], kw_only=True, repr=False)
