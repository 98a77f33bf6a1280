"""The check of DPoP proofs at a resource server (RFC 9449, sections 4.3 and 7)."""

from __future__ import annotations

import hmac
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from trioxport._diagnostics.validators import COUNT, FLAG, SECONDS, SECONDS_OR_0
from trioxport.auth.addresses import DEFAULT_PORTS
from trioxport.auth.dpop import DPOP_TYPE, token_hash
from trioxport.auth.jose import ALGORITHM_NAMES, BadJWT, BadKey, PublicKey, SignedJWT, public_key_of_header
from trioxport.auth.secret import Secret, secret
from trioxport.auth.verification.nonces import Nonces
from trioxport.auth.verification.replays import UsedProofs
from trioxport.auth.verified import InvalidProof

MAX_PROOF_BYTES: Final = 8 * 1024
MAX_KNOWN_KEYS: Final = 1000
"""Keys of clients that are kept ready."""
PROOF_ALGORITHMS: Final = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "Ed25519", "EdDSA")
"""The signatures of proofs that are accepted, by default."""

_HTTP_SCHEMES: Final = {"wss": "https", "ws": "http"}
"""The scheme of the HTTP request that opens a WebSocket."""
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")


@attrs.frozen
class _KnownKey:
    """A key that has signed a proof, as its client wrote it; to read it takes as long as to check the signature."""

    jwk: Mapping[str, Any]
    key: PublicKey


@attrs.frozen(eq=False)
class DPoP:
    """The check of DPoP proofs, to pass as ``ProtectedResource(dpop=...)``: it admits tokens that are bound to a key.

    One object serves any number of endpoints of a process, and remembers the used proofs of all of them.

    Args:
        required: Whether tokens that are not bound to a key are refused.
        algorithms: The signatures of proofs to accept.
        window: Seconds for which a proof is accepted after it was made.
        leeway: Seconds by which the client's clock may be ahead.
        remembered: The most used proofs that are remembered. Under more load the window becomes shorter.
        nonce_seconds: Seconds for which a nonce of this server is valid, at least; None asks for no nonces.
        nonce_key: A secret that several replicas share, so that they accept each other's nonces. Each replica remembers
            used proofs for itself.
    """

    required: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    algorithms: Sequence[str] = attrs.field(default=PROOF_ALGORITHMS, validator=ALGORITHM_NAMES, kw_only=True)
    window: float = attrs.field(default=60.0, validator=SECONDS, kw_only=True)
    leeway: float = attrs.field(default=5.0, validator=SECONDS_OR_0, kw_only=True)
    remembered: int = attrs.field(default=100_000, validator=COUNT, kw_only=True)
    nonce_seconds: float | None = attrs.field(default=None, validator=SECONDS.or_none(), kw_only=True)
    nonce_key: Secret | None = attrs.field(default=None, converter=attrs.converters.optional(secret), kw_only=True)
    _used: UsedProofs = attrs.field(init=False, repr=False)
    _nonces: Nonces | None = attrs.field(init=False, repr=False)
    _keys: dict[str, _KnownKey] = attrs.field(factory=dict[str, "_KnownKey"], init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_used", UsedProofs(self.remembered, self.window))
        nonces = None if self.nonce_seconds is None else Nonces(self.nonce_seconds, self.nonce_key)
        object.__setattr__(self, "_nonces", nonces)

    def nonce(self) -> str | None:
        """The nonce to give to clients now; None if none are asked for."""
        return None if self._nonces is None else self._nonces.current()

    def check(self, proof: str, *, method: str, url: str, token: str, thumbprint: str) -> str | None:
        """Check the proof of one request, which is then used up. Raises ``InvalidProof``.

        Args:
            proof: The header ``DPoP`` of the request.
            method: The method of the request.
            url: The URL of the request.
            token: The access token of the request.
            thumbprint: The thumbprint of the key that the token is bound to.

        Returns:
            The nonce in the proof, or None.
        """
        claims = self._claims(proof, thumbprint)
        if claims.get("htm") != method:
            raise InvalidProof("the proof is for another method")
        target = claims.get("htu")
        if not isinstance(target, str) or normal_target(target) != normal_target(url):
            raise InvalidProof("the proof is for another URL")
        ath = claims.get("ath")
        if not isinstance(ath, str) or not hmac.compare_digest(
            ath.encode(errors="surrogatepass"), token_hash(token).encode()
        ):
            raise InvalidProof("the proof is for another token")
        nonce = self._check_nonce(claims)
        self._use(claims, thumbprint)
        return nonce

    def _claims(self, proof: str, thumbprint: str) -> Mapping[str, Any]:
        """The claims of a proof that is signed by the key with ``thumbprint``."""
        try:
            jwt = SignedJWT.read(proof, self.algorithms, most_bytes=MAX_PROOF_BYTES)
            if jwt.header.get("typ") != DPOP_TYPE:
                raise InvalidProof(f"the type of the proof is not {DPOP_TYPE}")
            key = self._key_of(jwt, thumbprint)
        except BadJWT as error:
            raise InvalidProof(f"the proof is no JWT to accept: {error}") from None
        except BadKey as error:
            raise InvalidProof(f"the key of the proof is not accepted: {error}") from None
        if not hmac.compare_digest(key.thumbprint.encode(), thumbprint.encode()):
            raise InvalidProof("the token is bound to another key")
        if not jwt.is_signed_by(key):
            raise InvalidProof("the signature of the proof is wrong")
        self._keys[thumbprint] = _KnownKey(jwt.header["jwk"], key)
        if len(self._keys) > MAX_KNOWN_KEYS:
            del self._keys[next(iter(self._keys))]
        return jwt.claims

    def _key_of(self, jwt: SignedJWT, thumbprint: str) -> PublicKey:
        """The key in the header of a proof. Raises ``BadKey``."""
        jwk, known = jwt.header.get("jwk"), self._keys.get(thumbprint)
        if known is not None and known.jwk == jwk and jwt.algorithm in known.key.algorithms:
            return known.key
        return public_key_of_header(jwk, jwt.algorithm)

    def _check_nonce(self, claims: Mapping[str, Any]) -> str | None:
        nonce = claims.get("nonce")
        if self._nonces is not None and not (isinstance(nonce, str) and self._nonces.accepts(nonce)):
            raise InvalidProof("the proof needs the nonce of this server", "use_dpop_nonce")
        return nonce if isinstance(nonce, str) else None

    def _use(self, claims: Mapping[str, Any], thumbprint: str) -> None:
        now = time.time()
        issued_at, jti = claims.get("iat"), claims.get("jti")
        if not isinstance(issued_at, int | float) or isinstance(issued_at, bool) or not _is_finite(issued_at):
            raise InvalidProof("the proof does not say when it was made")
        if not now - self.window < issued_at <= now + self.leeway:
            raise InvalidProof("the proof was made too long ago, or in the future; check the clock of the client")
        if not isinstance(jti, str) or not jti:
            raise InvalidProof("the proof has no id")
        if not self._used.use(thumbprint, jti, float(issued_at), now):
            raise InvalidProof("the proof was used already")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def normal_target(url: str) -> str | None:
    """A URL as ``htu`` is compared, without query and fragment; None if it is none.

    RFC 9449, section 4.3; RFC 3986, sections 6.2.2 and 6.2.3. The handshake of a WebSocket is a request of HTTP.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = _HTTP_SCHEMES.get(parts.scheme, parts.scheme)
    if scheme not in DEFAULT_PORTS or not host or parts.username is not None:
        return None
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != DEFAULT_PORTS[scheme]:
        authority += f":{port}"
    return f"{scheme}://{authority}{_ESCAPE.sub(_normal_escape, parts.path) or '/'}"


def _normal_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()
