"""The keys that sign an issuer's tokens: fetched when they are needed, kept, and fetched again when they rotate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport._diagnostics.redaction import redact_url
from trioxport.auth.jose import BadJWT, BadKey, PublicKey
from trioxport.auth.single_flight import SingleFlight
from trioxport.auth.verification.discovery import discover_keys, fetch_keys
from trioxport.auth.verification.documents import RETRY_AFTER_SECONDS, DocumentSource
from trioxport.auth.verified import VerificationUnavailable
from trioxport.errors import UsageError

MAX_KEYS: Final = 64
"""Keys of one issuer that are read; further ones are ignored."""


@attrs.frozen
class KeySet:
    """The public keys of an issuer, by their ids; those without an id are under None."""

    keys: Mapping[str | None, Sequence[PublicKey]]

    @classmethod
    def of(cls, jwks: Mapping[str, Any], algorithms: Sequence[str]) -> KeySet:
        """The usable keys of a JWK Set (RFC 7517, section 5): others are skipped, since a set may have any."""
        found: dict[str | None, list[PublicKey]] = {}
        listed = jwks.get("keys")
        for each in cast("list[object]", listed)[:MAX_KEYS] if isinstance(listed, list) else ():
            if not isinstance(each, Mapping):
                continue
            jwk = cast("Mapping[str, object]", each)
            if jwk.get("use", "sig") != "sig":
                continue
            try:
                key = PublicKey.of(jwk, algorithms)
            except (BadKey, BadJWT) as error:
                logger.debug("a key of the issuer is not used: %s", error)
                continue
            kid = jwk.get("kid")
            found.setdefault(kid if isinstance(kid, str) else None, []).append(key)
        return cls(found)

    def candidates(self, kid: object, algorithm: str) -> Sequence[PublicKey]:
        """The keys that may have signed a token with the header members ``kid`` and ``alg``."""
        if isinstance(kid, str):
            named = [*self.keys.get(kid, ()), *self.keys.get(None, ())]
        else:
            named = [key for keys in self.keys.values() for key in keys]
        return [key for key in named if algorithm in key.algorithms]


class KeySource(Protocol):
    """The place from which the keys of an issuer come."""

    async def keys_for(self, kid: object, algorithm: str, *, renew: bool = False) -> Sequence[PublicKey]:
        """The keys that may have signed a token; none if there is no such key.

        Args:
            kid: The ``kid`` in the header of the token.
            algorithm: The ``alg`` in it.
            renew: Whether the known keys did not fit, so that newer ones are wanted.

        Raises ``VerificationUnavailable`` if the keys cannot be known.
        """
        ...


@attrs.frozen
class GivenKeys:
    """Keys that the application knows, and that never change."""

    keys: KeySet

    @classmethod
    def of(cls, jwks: Mapping[str, Any], algorithms: Sequence[str]) -> GivenKeys:
        """The keys of a JWK Set. Raises ``UsageError`` if none is usable."""
        keys = KeySet.of(jwks, algorithms)
        if not keys.keys:
            raise UsageError("keys has no public key that fits the allowed algorithms", hint='Pass {"keys": [...]}')
        return cls(keys)

    async def keys_for(self, kid: object, algorithm: str, *, renew: bool = False) -> Sequence[PublicKey]:
        return self.keys.candidates(kid, algorithm)


@attrs.frozen
class Rotation:
    """The times of the keys of an issuer.

    Args:
        lifetime: Seconds after which keys are fetched again.
        stale: Seconds for which keys are used after that while the issuer cannot be reached.
        interval: Seconds, at least, between two fetches: also those for a token whose key is unknown.
    """

    lifetime: float
    stale: float
    interval: float


class FetchedKeys:
    """The keys at an issuer's ``jwks_uri``.

    A token with an unknown key has them fetched again, since keys rotate, but not more often than ``interval``. While
    one request fetches, others with a known key do not wait.

    Args:
        issuer: The issuer.
        jwks_uri: The URL of its keys; None finds it by the issuer's metadata.
        algorithms: The allowed algorithms.
        source: Fetches the documents.
        rotation: The times.
        changed: Called when the fetched keys are others than before.
    """

    def __init__(
        self,
        issuer: str,
        jwks_uri: str | None,
        algorithms: Sequence[str],
        source: DocumentSource,
        rotation: Rotation,
        changed: Callable[[], None],
    ) -> None:
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._algorithms = algorithms
        self._source = source
        self._rotation = rotation
        self._changed = changed
        self._keys: KeySet | None = None
        self._document: Mapping[str, Any] = {}
        self._fetched_at = -math.inf
        self._asked_at = -math.inf
        self._failure: VerificationUnavailable | None = None
        self._fetches = SingleFlight[None, None]()
        self._fetching = False

    async def keys_for(self, kid: object, algorithm: str, *, renew: bool = False) -> Sequence[PublicKey]:
        age = trio.current_time() - self._fetched_at
        if age >= self._rotation.lifetime + self._rotation.stale:
            self._keys = None
        found = () if self._keys is None else self._keys.candidates(kid, algorithm)
        wanted = renew or not found or (age >= self._rotation.lifetime and not self._fetching)
        if not wanted or not (self._may_ask() or self._fetching):
            return self._known(found)
        try:
            await self._fetches.run(None, self._fetch)
        except VerificationUnavailable as error:
            if not found:
                raise
            logger.warning("%s: its keys cannot be renewed, the old ones stay in use: %s", self._issuer, error)
            return found
        return () if self._keys is None else self._keys.candidates(kid, algorithm)

    def _may_ask(self) -> bool:
        wait = self._rotation.interval
        if self._failure is not None:
            wait = min(wait, RETRY_AFTER_SECONDS)
        return trio.current_time() >= self._asked_at + wait

    def _known(self, found: Sequence[PublicKey]) -> Sequence[PublicKey]:
        """The keys that were found. Raises ``VerificationUnavailable`` if the issuer may have others by now."""
        if found or (self._keys is not None and self._failure is None):
            return found
        raise self._unavailable()

    def _unavailable(self) -> VerificationUnavailable:
        reason = "its keys are not known" if self._failure is None else self._failure.reason
        return VerificationUnavailable(f"{self._issuer}: {reason}", retry_after=RETRY_AFTER_SECONDS)

    async def _fetch(self) -> None:
        self._fetching = True
        self._asked_at, before = trio.current_time(), self._asked_at
        try:
            await self._renew()
        except VerificationUnavailable as failure:
            self._failure = failure
            raise
        except BaseException:  # cancelled: the next request may fetch at once
            self._asked_at = before
            raise
        finally:
            self._fetching = False

    async def _renew(self) -> None:
        uri = self._jwks_uri or await discover_keys(self._issuer, self._source)
        members = await fetch_keys(uri, self._source)
        keys = KeySet.of(members, self._algorithms)
        if not keys.keys:
            raise VerificationUnavailable(f"{redact_url(uri)} has no key that fits the allowed algorithms")
        if members != self._document:
            self._changed()
        self._keys, self._document, self._failure = keys, members, None
        self._fetched_at = trio.current_time()
