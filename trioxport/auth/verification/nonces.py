"""Nonces that a server asks clients to put into their proofs (RFC 9449, section 9)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Final

from trioxport.auth.dpop import base64url
from trioxport.auth.secret import Secret

_PERIODS: Final = 2
"""Periods for which a nonce is accepted: a new one is given out in the second."""


class Nonces:
    """Nonces that are valid for a while; the server keeps none of them.

    A nonce is the keyed hash of the period in which it was given out.

    Args:
        seconds: Seconds for which a nonce is valid, at least; it is at most twice as long.
        key: The key. Servers with the same key accept each other's nonces; by default each has a key of its own.
    """

    def __init__(self, seconds: float, key: Secret | None = None) -> None:
        self._seconds = seconds
        self._key = secrets.token_bytes(32) if key is None else hashlib.sha256(key.reveal().encode()).digest()

    def current(self) -> str:
        """The nonce to give out now."""
        return self._of(self._period())

    def accepts(self, nonce: str) -> bool:
        """Whether a nonce is one of this server, and not too old."""
        period = self._period()
        found = nonce.encode("utf-8", "surrogatepass")
        return any(hmac.compare_digest(self._of(period - age).encode(), found) for age in range(_PERIODS))

    def _period(self) -> int:
        return int(time.time() // self._seconds)

    def _of(self, period: int) -> str:
        return base64url(hmac.digest(self._key, b"%d" % period, "sha256")[:18])
