"""Decisions about tokens, kept for a while: by the hash of a token, so that no token stays in memory."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Final, TypeAlias

import attrs
import trio

from trioxport.auth.verified import InvalidToken, VerifiedToken

Decision: TypeAlias = VerifiedToken | InvalidToken
TokenHash: TypeAlias = bytes

MAX_DECISIONS: Final = 10_000
"""Decisions that are kept, by default; beyond it the one that was unused for longest goes."""


def hash_of(token: str) -> TokenHash:
    """The key of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@attrs.frozen
class _KeptDecision:
    decision: Decision
    until: float


class Decisions:
    """The latest decisions of a verifier.

    Args:
        most: The most decisions to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[TokenHash, _KeptDecision] = OrderedDict()

    def get(self, key: TokenHash) -> Decision | None:
        """The decision about a token, unless it is too old, or the token has expired."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        decision = kept.decision
        if trio.current_time() >= kept.until or (
            isinstance(decision, VerifiedToken)
            and decision.expires_at is not None
            and time.time() >= decision.expires_at
        ):
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return decision

    def put(self, key: TokenHash, decision: Decision, seconds: float) -> None:
        """Keep a decision for at most ``seconds``, and not beyond the token's expiry."""
        if seconds <= 0:
            return
        self._kept[key] = _KeptDecision(decision, trio.current_time() + seconds)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all decisions."""
        self._kept.clear()
