"""Proofs of possession (RFC 9449): the key of a client, and the proofs that it signs for its requests.

A proof is a JWT with the method and the URL of one request, signed with ES256 by a key that the client alone has. Needs
the extra ``oauth``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import Any, Final, Self
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from trioxport.auth.secret import Secret, secret
from trioxport.errors import UsageError

DPOP_ALGORITHM: Final = "ES256"
DPOP_TYPE: Final = "dpop+jwt"
"""The ``typ`` in the header of a proof (RFC 9449, section 4.2)."""

_COORDINATE_BYTES: Final = 32
_SIGNATURE: Final = ec.ECDSA(hashes.SHA256())


def base64url(data: bytes) -> str:
    """``data`` in the URL-safe alphabet without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def token_hash(token: str) -> str:
    """The claim ``ath`` of an access token (RFC 9449, section 4.2)."""
    return base64url(hashlib.sha256(token.encode("ascii")).digest())


def target_uri(url: str) -> str:
    """The claim ``htu`` of a request: its URL without query and fragment, with scheme and host in lower case."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path or '/'}"


def _thumbprint(jwk: dict[str, Any]) -> str:
    """The SHA-256 thumbprint of a public EC key as a JWK (RFC 7638, section 3.2), the claim ``jkt``."""
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return base64url(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


class DPoPKey:
    """A P-256 key of a client, and the proofs that it signs.

    Args:
        pem: The private key in PEM, as :meth:`pem` returns it; a new one by default.

    Raises:
        UsageError: ``pem`` holds no private key on the curve P-256.
    """

    def __init__(self, pem: str | Secret | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1()) if pem is None else _loaded(secret(pem))
        numbers = self._key.public_key().public_numbers()
        x, y = (base64url(number.to_bytes(_COORDINATE_BYTES, "big")) for number in (numbers.x, numbers.y))
        self.public_jwk: dict[str, Any] = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        self.thumbprint: str = _thumbprint(self.public_jwk)
        self._header = _encoded({"typ": DPOP_TYPE, "alg": DPOP_ALGORITHM, "jwk": self.public_jwk})

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls()

    def pem(self) -> Secret:
        """The private key in PEM (PKCS #8), not encrypted, to keep it in a store."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Secret(self._key.private_bytes(*form).decode("ascii"))

    def proof(self, method: str, uri: str, *, ath: str | None = None, nonce: str | None = None) -> str:
        """A proof for one request (RFC 9449, section 4.2). Each call makes another ``jti``.

        Args:
            method: The HTTP method of the request.
            uri: Its URL as :func:`target_uri` returns it.
            ath: The hash of the access token that is sent with it, as :func:`token_hash` returns it.
            nonce: The last nonce of the server that gets it.
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": uri,
            "iat": int(time.time()),
        }
        if ath is not None:
            claims["ath"] = ath
        if nonce is not None:
            claims["nonce"] = nonce
        signed = f"{self._header}.{_encoded(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode("ascii"), _SIGNATURE))
        raw = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
        return f"{signed}.{base64url(raw)}"


def _encoded(claims: dict[str, Any]) -> str:
    return base64url(json.dumps(claims, separators=(",", ":")).encode())


def _loaded(pem: Secret) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.reveal().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError("the key for DPoP is no private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError("the key for DPoP is not on the curve P-256")
    return key
