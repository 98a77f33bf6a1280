"""Proofs that were used already, so that none is accepted twice (RFC 9449, section 11.1)."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from typing import TypeAlias

_Id: TypeAlias = bytes


class UsedProofs:
    """The proofs of the last seconds, by the hash of their key and ``jti``.

    Memory is bounded. When a proof has to be forgotten early, older ones are no longer accepted: the time for which a
    proof is good becomes shorter under load, and no replay gets through.

    Args:
        most: The most proofs to remember.
        seconds: Seconds for which a proof is accepted after its ``iat``.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._used: OrderedDict[_Id, float] = OrderedDict()
        self._forgotten_until = -math.inf

    def use(self, thumbprint: str, jti: str, issued_at: float, now: float) -> bool:
        """Note the use of a proof; False if it was used before, or that cannot be told any more."""
        self._forget_old(now)
        proof = hashlib.sha256(f"{thumbprint}.{jti}".encode("utf-8", "surrogatepass")).digest()[:16]
        if issued_at <= self._forgotten_until or proof in self._used:
            return False
        self._used[proof] = issued_at
        if len(self._used) > self._most:
            _, oldest = self._used.popitem(last=False)
            self._forgotten_until = max(self._forgotten_until, oldest)
        return True

    def _forget_old(self, now: float) -> None:
        """Forget proofs that are refused for their age anyway. They are nearly in the order of their age."""
        while self._used:
            proof = next(iter(self._used))
            if self._used[proof] + self._seconds > now:
                break
            del self._used[proof]

    def __len__(self) -> int:
        return len(self._used)
