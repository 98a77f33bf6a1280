"""Signed JWTs in the compact form (RFC 7515, RFC 7519): strict reading, public keys, and the check of a signature.

A token decides nothing about its own verification: the application allows algorithms, the keys come from elsewhere, and
members such as ``jku`` or ``x5u`` are never used. Needs the extra ``oauth``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import attrs

from trioxport._diagnostics.validators import OptionCheck, are_words
from trioxport.errors import UsageError

try:
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey
    from joserfc.jws import JWSRegistry
except ModuleNotFoundError as error:  # pragma: no cover  # the tests have it
    from trioxport._diagnostics.hints import install_hint

    raise UsageError(
        "verifying signed tokens needs a package that is not installed", hint=install_hint("oauth")
    ) from error

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"
)  # fmt: skip
"""The signatures that can be checked with a public key. HMAC and ``none`` are not among them."""
ALGORITHM_NAMES: Final = OptionCheck(
    f"a list of algorithms out of {', '.join(ALGORITHMS)}",
    are_words,
    lambda value: len(frozenset(value)) > 0 and frozenset(value) <= frozenset(ALGORITHMS),
)
"""The check of an option that allows algorithms."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
MAX_RSA_EXPONENT: Final = 2**32
"""The bounds of RSA keys: shorter ones are weak (RFC 7518, section 3.3), larger ones cost time to check."""
MAX_JWT_BYTES: Final = 16 * 1024
"""The most bytes of a token or proof that are read, by default."""

_PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")


class BadJWT(ValueError):
    """The text is no acceptable signed JWT; the message says why, and quotes nothing of it."""


class BadKey(ValueError):
    """The key cannot be used to check signatures; the message says why."""


@attrs.frozen
class PublicKey:
    """A key that checks signatures.

    Args:
        key: The key.
        algorithms: The allowed algorithms that can be checked with it.
        thumbprint: Its SHA-256 thumbprint (RFC 7638).
    """

    key: RSAKey | ECKey | OKPKey = attrs.field(repr=False)
    algorithms: frozenset[str]
    thumbprint: str

    @classmethod
    def of(cls, jwk: Mapping[str, object], algorithms: Sequence[str]) -> PublicKey:
        """The public key in a JWK. Raises ``BadKey`` for one that fits none of ``algorithms``, or is weak."""
        kind = jwk.get("kty")
        names = _PUBLIC_MEMBERS.get(kind) if isinstance(kind, str) else None
        if names is None:
            raise BadKey("it is no RSA, EC or OKP key")
        members = {name: jwk.get(name) for name in names}
        if not all(isinstance(value, str) for value in members.values()):
            raise BadKey(f"a member of {', '.join(names)} is missing")
        key = _imported(cast("str", kind), cast("dict[str, str]", members))
        fitting = frozenset(name for name in algorithms if jwk.get("alg") in (None, name) and _fits(key, name))
        if not fitting:
            raise BadKey("it fits none of the allowed algorithms")
        return cls(key, fitting, key.thumbprint())


def _imported(kind: str, members: dict[str, str]) -> RSAKey | ECKey | OKPKey:
    data: Any = {"kty": kind, **members}
    try:
        if kind == "EC":
            return ECKey.import_key(data)
        if kind == "OKP":
            return OKPKey.import_key(data)
        _check_rsa(members)
        return RSAKey.import_key(data)
    except BadKey:
        raise
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise BadKey(f"its members are no {kind} key ({type(error).__name__})") from None


def _check_rsa(members: Mapping[str, str]) -> None:
    """Raise ``BadKey`` for a key that is weak or slow, before any arithmetic with it."""
    modulus, exponent = (int.from_bytes(_decoded(members[name]), "big") for name in ("n", "e"))
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise BadKey(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if not 1 < exponent < MAX_RSA_EXPONENT or exponent % 2 == 0:
        raise BadKey("the exponent of the RSA key is out of bounds")


def _fits(key: RSAKey | ECKey | OKPKey, algorithm: str) -> bool:
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return True


def public_key_of_header(jwk: object, algorithm: str) -> PublicKey:
    """The key that a proof brings along. Raises ``BadKey`` if it is not public, or not for ``algorithm``."""
    if not isinstance(jwk, Mapping):
        raise BadKey("there is no jwk")
    members = cast("Mapping[str, object]", jwk)
    if not _PRIVATE_MEMBERS.isdisjoint(members):
        raise BadKey("it is a private key")
    return PublicKey.of(members, (algorithm,))


@attrs.frozen
class SignedJWT:
    """A JWT whose signature is not checked yet.

    Args:
        header: The protected header.
        claims: The claims.
        algorithm: The ``alg`` of the header.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any] = attrs.field(repr=False)
    algorithm: str
    _signed: bytes = attrs.field(repr=False)
    _signature: bytes = attrs.field(repr=False)

    @classmethod
    def read(cls, text: str, algorithms: Sequence[str], *, most_bytes: int = MAX_JWT_BYTES) -> SignedJWT:
        """The JWT in ``text``. Raises ``BadJWT`` if it is not one, or names no allowed algorithm."""
        if len(text) > most_bytes:
            raise BadJWT(f"it has more than {most_bytes} bytes")
        segments = text.split(".", 5)
        if len(segments) != 3:
            raise BadJWT("it is encrypted" if len(segments) == 5 else "it has not three parts")
        header = _object(segments[0], "header")
        algorithm = header.get("alg")
        if algorithm not in algorithms:
            raise BadJWT("its algorithm is not allowed")
        if "crit" in header:
            raise BadJWT("its header has extensions that are not understood here")
        if header.get("b64", True) is not True:
            raise BadJWT("its payload is not encoded")
        claims = _object(segments[1], "payload")
        return cls(header, claims, cast("str", algorithm), ".".join(segments[:2]).encode(), _decoded(segments[2]))

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether the signature is that of ``key``, by the algorithm of the header."""
        if self.algorithm not in key.algorithms:
            return False
        try:
            return JWSRegistry.algorithms[self.algorithm].verify(self._signed, self._signature, key.key)
        except (JoseError, ValueError):
            return False


def _object(segment: str, part: str) -> Mapping[str, Any]:
    try:
        found: object = json.loads(_decoded(segment), object_pairs_hook=_members, parse_constant=_refuse_constant)
    except BadJWT:
        raise
    except (ValueError, RecursionError):
        raise BadJWT(f"its {part} is no JSON") from None
    if not isinstance(found, dict):
        raise BadJWT(f"its {part} is no JSON object")
    return cast("dict[str, Any]", found)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: two readers might see different values (RFC 7519, section 4)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJWT("a member stands twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise BadJWT(f"{name} is no JSON")


def _decoded(segment: str) -> bytes:
    """The bytes of a segment in the one spelling that RFC 7515 allows. Raises ``BadJWT``."""
    if not _SEGMENT.fullmatch(segment):
        raise BadJWT("a part is not encoded in base64url")
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise BadJWT("a part is not encoded in base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise BadJWT("a part is not encoded in base64url")
    return data
