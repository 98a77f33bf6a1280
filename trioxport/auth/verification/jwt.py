"""Access tokens that are signed JWTs (RFC 7519, RFC 9068)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import attrs
import httpx

from trioxport._diagnostics.validators import COUNT, COUNT_OR_0, SECONDS, SECONDS_OR_0, TEXT, one_of
from trioxport.auth.jose import ALGORITHM_NAMES, ALGORITHMS, MAX_JWT_BYTES, BadJWT, SignedJWT
from trioxport.auth.tls import TLSOptions
from trioxport.auth.verification.claims import LEEWAY_SECONDS, SUBJECT, ClaimRules, audiences
from trioxport.auth.verification.decisions import MAX_DECISIONS, Decisions, hash_of
from trioxport.auth.verification.documents import DocumentSource, check_url
from trioxport.auth.verification.keys import FetchedKeys, GivenKeys, KeySource, Rotation
from trioxport.auth.verified import InvalidToken, VerifiedToken
from trioxport.errors import UsageError

ACCESS_TOKEN_TYPES: Final = ("at+jwt", "application/at+jwt")
"""The ``typ`` of a JWT that is an access token (RFC 9068, section 2.1)."""
PLAIN_TYPES: Final = (None, "jwt", "application/jwt")
"""The types that other issuers give to their access tokens."""


@attrs.frozen(eq=False)
class JWTVerifier:
    """A verifier of signed access tokens, to pass as ``HttpServer(verify=...)``, alone or in a ``ProtectedResource``.

    The keys come from the issuer, as its metadata says, and are kept. A token's header never names the place of a key.
    ``await verifier(token)`` returns a ``VerifiedToken``, or raises ``InvalidToken`` or ``VerificationUnavailable``.

    Args:
        issuer: The ``iss`` of the tokens, exactly; also the URL below which the issuer's metadata is.
        audience: The name of this server, best its URL: one of these names has to be an ``aud`` of the token.
        jwks_uri: The URL of the issuer's keys; by default the issuer's metadata names it.
        keys: The issuer's keys as a JWK Set; then nothing is fetched.
        algorithms: The signatures to accept. All have a public key.
        type: ``"at+jwt"`` accepts only tokens whose header says that they are access tokens (RFC 9068); ``"any"`` also
            those of type ``JWT`` or of no type.
        principal: The claim that names the principal.
        leeway: Seconds by which the clocks of this machine and of the issuer may differ.
        key_lifetime: Seconds after which the keys are fetched again.
        stale_keys: Seconds for which keys are used after that while the issuer cannot be reached.
        key_interval: Seconds, at least, between two fetches of keys, whatever tokens arrive.
        cached: The most verified tokens that are remembered, by their hash; 0 remembers none.
        cache_seconds: Seconds for which a token is remembered, at most until it expires, or keys change.
        most_bytes: The most bytes of a token.
        client: The application's own ``httpx.AsyncClient`` for the fetches, which stays open.
        tls: The certificates to trust for the fetches.
        timeout: Seconds for each fetch.

    Raises:
        UsageError: A URL is neither https nor of this machine, no audience is given, or an algorithm is not known.
    """

    issuer: str = attrs.field(validator=TEXT)
    audience: tuple[str, ...] = attrs.field(converter=audiences)
    jwks_uri: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    keys: Mapping[str, Any] | None = attrs.field(default=None, repr=False, kw_only=True)
    algorithms: Sequence[str] = attrs.field(default=ALGORITHMS, validator=ALGORITHM_NAMES, kw_only=True)
    type: Literal["any", "at+jwt"] = attrs.field(default="any", validator=one_of("any", "at+jwt"), kw_only=True)
    principal: str = attrs.field(default=SUBJECT, validator=TEXT, kw_only=True)
    leeway: float = attrs.field(default=LEEWAY_SECONDS, validator=SECONDS_OR_0, kw_only=True)
    key_lifetime: float = attrs.field(default=3600.0, validator=SECONDS, kw_only=True)
    stale_keys: float = attrs.field(default=86400.0, validator=SECONDS_OR_0, kw_only=True)
    key_interval: float = attrs.field(default=30.0, validator=SECONDS, kw_only=True)
    cached: int = attrs.field(default=MAX_DECISIONS, validator=COUNT_OR_0, kw_only=True)
    cache_seconds: float = attrs.field(default=300.0, validator=SECONDS_OR_0, kw_only=True)
    most_bytes: int = attrs.field(default=MAX_JWT_BYTES, validator=COUNT, kw_only=True)
    client: httpx.AsyncClient | None = attrs.field(default=None, repr=False, kw_only=True)
    tls: TLSOptions | None = attrs.field(default=None, repr=False, kw_only=True)
    timeout: float = attrs.field(default=5.0, validator=SECONDS, kw_only=True)
    _rules: ClaimRules = attrs.field(init=False, repr=False)
    _source: KeySource = attrs.field(init=False, repr=False)
    _decisions: Decisions = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.audience:
            raise UsageError(
                "JWTVerifier needs an audience: a token for another server must not be accepted here",
                hint="Pass the URL of this server, for which the authorization server issues the tokens",
            )
        rules = ClaimRules(self.audience, principal=self.principal, leeway=self.leeway)
        object.__setattr__(self, "_rules", rules)
        object.__setattr__(self, "_source", self._key_source())
        object.__setattr__(self, "_decisions", Decisions(self.cached))

    def _key_source(self) -> KeySource:
        if self.keys is not None:
            if self.jwks_uri is not None:
                raise UsageError("the keys are given by keys or by jwks_uri, not by both")
            return GivenKeys.of(self.keys, self.algorithms)
        if self.jwks_uri is None:
            check_url(self.issuer, "issuer")
        else:
            check_url(self.jwks_uri, "jwks_uri")
        return FetchedKeys(
            self.issuer,
            self.jwks_uri,
            self.algorithms,
            DocumentSource(self.client, self.tls, self.timeout),
            Rotation(self.key_lifetime, self.stale_keys, self.key_interval),
            self._decisions_of_old_keys,
        )

    def _decisions_of_old_keys(self) -> None:
        self._decisions.clear()

    @property
    def authorization_servers(self) -> Sequence[str]:
        """The issuer, for the metadata of the resource."""
        return (self.issuer,)

    @property
    def resource(self) -> str | None:
        """The URL of the resource; None if the audience is no URL, or there are several."""
        return self.audience[0] if len(self.audience) == 1 and "://" in self.audience[0] else None

    async def __call__(self, token: str) -> VerifiedToken:
        """Verify a token. Raises ``InvalidToken`` or ``VerificationUnavailable``."""
        key = hash_of(token)
        known = self._decisions.get(key)
        if isinstance(known, VerifiedToken):
            return known
        verified = await self._verified(token)
        if self.cached:
            self._decisions.put(key, verified, self.cache_seconds)
        return verified

    async def _verified(self, token: str) -> VerifiedToken:
        try:
            jwt = SignedJWT.read(token, self.algorithms, most_bytes=self.most_bytes)
        except BadJWT as error:
            raise InvalidToken("the token is malformed", detail=f"the token is no JWT to accept: {error}") from None
        self._check_type(jwt.header.get("typ"))
        if jwt.claims.get("iss") != self.issuer:  # before its key is looked for
            raise InvalidToken(
                "the token is from another issuer", detail=f"its issuer is {jwt.claims.get('iss')!r:.200}"
            )
        await self._check_signature(jwt)
        return self._rules.verified(jwt.claims)

    async def _check_signature(self, jwt: SignedJWT) -> None:
        kid = jwt.header.get("kid")
        keys = await self._source.keys_for(kid, jwt.algorithm)
        if not keys:
            detail = f"the issuer has no key {kid!r:.100} for {jwt.algorithm}"
            raise InvalidToken("the token is signed by an unknown key", detail=detail)
        if not any(jwt.is_signed_by(key) for key in keys):
            newer = await self._source.keys_for(kid, jwt.algorithm, renew=True)
            if not any(jwt.is_signed_by(key) for key in newer if key not in keys):
                raise InvalidToken("the signature of the token is wrong")

    def _check_type(self, found: object) -> None:
        kind = found.lower() if isinstance(found, str) else found
        if kind in ACCESS_TOKEN_TYPES or (self.type == "any" and kind in PLAIN_TYPES):
            return
        raise InvalidToken("the token is no access token", detail=f"the type in its header is {found!r:.100}")
