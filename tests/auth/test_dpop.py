"""The proofs of a client's key (RFC 9449), read by another library."""

from __future__ import annotations

import json
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey

from trioxport import UsageError
from trioxport.auth.dpop import DPoPKey, target_uri, token_hash

URL = "https://mcp.example.com/mcp"


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def test_a_proof_is_verified_by_another_library() -> None:
    key = DPoPKey.generate()
    ath = token_hash("token")
    decoded = jwt.decode(
        key.proof("POST", URL, ath=ath, nonce="n-1"), ECKey.import_key(key.public_jwk), algorithms=["ES256"]
    )
    assert decoded.header == {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.public_jwk}
    assert {name: decoded.claims[name] for name in ("htm", "htu", "ath", "nonce")} == {
        "htm": "POST",
        "htu": URL,
        "ath": ath,
        "nonce": "n-1",
    }
    assert abs(decoded.claims["iat"] - time.time()) < 5


def test_the_header_holds_no_private_key() -> None:
    assert set(DPoPKey().public_jwk) == {"kty", "crv", "x", "y"}


def test_each_proof_has_an_id_of_its_own() -> None:
    key = DPoPKey()
    public = ECKey.import_key(key.public_jwk)
    ids = {jwt.decode(key.proof("POST", URL), public, algorithms=["ES256"]).claims["jti"] for _ in range(50)}
    assert len(ids) == 50


def test_the_thumbprint_is_that_of_another_library() -> None:
    key = DPoPKey()
    assert key.thumbprint == ECKey.import_key(key.public_jwk).thumbprint()


def test_the_hash_of_a_token_is_that_of_the_rfc() -> None:
    """RFC 9449, section 7.1."""
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    assert token_hash(token) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def test_the_target_has_no_query_and_no_fragment() -> None:
    assert target_uri("https://MCP.Example.com:8443/mcp?a=b#c") == "https://mcp.example.com:8443/mcp"
    assert target_uri("https://mcp.example.com") == "https://mcp.example.com/"


def test_a_key_is_kept_as_pem() -> None:
    key = DPoPKey()
    assert DPoPKey(key.pem()).thumbprint == key.thumbprint
    assert "PRIVATE" not in json.dumps(repr(key.pem()))


@pytest.mark.parametrize(
    "pem",
    [
        "no key",
        pem_of(rsa.generate_private_key(65537, 2048)),
        pem_of(ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_another_kind_of_key_is_refused(pem: str) -> None:
    with pytest.raises(UsageError):
        DPoPKey(pem)
