"""Signed JWTs and public keys: those that are refused before, or at, the check of a signature."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tokens import claims_now, ec_key, ed_key, number, rsa_key
from trioxport.auth.jose import ALGORITHMS, BadKey, PublicKey, SignedJWT


@pytest.mark.parametrize("exponent", [1, 2, 65536, 2**32 + 1])
def test_an_rsa_key_with_a_weak_or_slow_exponent_is_refused(exponent: int) -> None:
    with pytest.raises(BadKey, match="exponent"):
        PublicKey.of({**rsa_key().jwk(), "e": number(exponent)}, ["RS256"])


@pytest.mark.parametrize("signature", ["AA", "A" * 86, "A" * 400])
@pytest.mark.parametrize("key", [ec_key(), ed_key(), rsa_key()], ids=lambda key: key.algorithm)
def test_a_signature_of_any_other_length_is_wrong_and_raises_nothing(key: Any, signature: str) -> None:
    head, payload, _ = key.token(claims_now()).split(".")
    jwt = SignedJWT.read(f"{head}.{payload}.{signature}", ALGORITHMS)
    assert not jwt.is_signed_by(PublicKey.of(key.jwk(), ALGORITHMS))


def test_a_key_checks_signatures_of_its_own_algorithms_only() -> None:
    jwt = SignedJWT.read(rsa_key().token(claims_now()), ALGORITHMS)
    assert jwt.is_signed_by(PublicKey.of(rsa_key().jwk(), ["RS256"]))
    assert not jwt.is_signed_by(PublicKey.of(rsa_key().jwk(), ["PS256"]))
    assert not jwt.is_signed_by(PublicKey.of(ec_key().jwk(), ALGORITHMS))
