"""Signed tokens made by hand, valid ones and others: nothing here checks what it writes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import attrs
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER: Final = "https://login.example.com"
AUDIENCE: Final = "https://mcp.example.com/mcp"

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}


def encoded(part: object) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    data = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    return encoded(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@attrs.frozen
class SigningKey:
    """A key of an issuer, or of a client."""

    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    kid: str | None
    algorithm: str

    def jwk(self, **more: object) -> dict[str, Any]:
        """The public key."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            members: dict[str, Any] = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif isinstance(public, ec.EllipticCurvePublicKey):
            size = (public.curve.key_size + 7) // 8
            point = public.public_numbers()
            members = {"kty": "EC", "crv": f"P-{public.curve.key_size}", "x": number(point.x, size)}
            members["y"] = number(point.y, size)
        else:
            raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            members = {"kty": "OKP", "crv": "Ed25519", "x": encoded(raw)}
        return {**members, **({} if self.kid is None else {"kid": self.kid}), **more}

    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def signature(self, data: bytes, algorithm: str) -> bytes:
        private = self.private
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return private.sign(data)
        hashing = _HASHES[algorithm[2:]]
        if isinstance(private, ec.EllipticCurvePrivateKey):
            size = (private.curve.key_size + 7) // 8
            r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashing)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if algorithm.startswith("PS"):
            return private.sign(data, padding.PSS(padding.MGF1(hashing), hashing.digest_size), hashing)
        return private.sign(data, padding.PKCS1v15(), hashing)

    def token(self, claims: object, header: Mapping[str, Any] | None = None, *, raw_header: bytes | None = None) -> str:
        """A token with the claims; ``header`` adds to the usual header, and takes away where a value is None."""
        whole = {"alg": self.algorithm, "kid": self.kid, "typ": "at+jwt", **(header or {})}
        whole = {name: value for name, value in whole.items() if value is not None}
        signed = f"{encoded(raw_header or whole)}.{encoded(claims)}"
        return f"{signed}.{encoded(self.signature(signed.encode(), self.algorithm))}"


def keyed_token(secret: bytes, claims: object, header: Mapping[str, Any]) -> str:
    """A token under HMAC."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


@cache
def rsa_key(kid: str | None = "rsa", bits: int = 2048) -> SigningKey:
    return SigningKey(rsa.generate_private_key(65537, bits), kid, "RS256")


@cache
def ec_key(kid: str | None = "ec") -> SigningKey:
    return SigningKey(ec.generate_private_key(ec.SECP256R1()), kid, "ES256")


@cache
def ed_key(kid: str | None = "ed") -> SigningKey:
    return SigningKey(ed25519.Ed25519PrivateKey.generate(), kid, "Ed25519")


def claims_now(**changes: object) -> dict[str, Any]:
    """The claims of a valid token; a change to None leaves a claim out."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "client_id": "client-1",
        "scope": "mcp files:read",
        "iat": now,
        "exp": now + 300,
        "jti": "one",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def jwks(*keys: SigningKey) -> dict[str, Any]:
    return {"keys": [key.jwk() for key in keys]}
