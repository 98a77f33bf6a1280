"""Tokens that must not be accepted: each is refused with 401 and its reason, and none makes the server ask anybody."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.raw_http import calling, modern
from tests.support.recording_handler import serving
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    SigningKey,
    claims_now,
    ec_key,
    ed_key,
    encoded,
    jwks,
    keyed_token,
    rsa_key,
)
from trioxport.auth import InvalidToken
from trioxport.auth.verification import JWTVerifier
from trioxport.transports.http.server import HttpServer

BOUND: Final = 10.0
EVIL: Final = SigningKey(ec_key("evil").private, "ec", "ES256")
"""A key of an attacker, who gives it the id of one of the issuer's."""

Hostile = tuple[Callable[[], str], str]

TWO_ALGORITHMS: Final = b'{"alg":"none","kid":"ec","alg":"ES256"}'
MALFORMED: Final = "the token is malformed"
SIGNATURE: Final = "the signature of the token is wrong"
UNKNOWN: Final = "the token is signed by an unknown key"
AUDIENCE_WRONG: Final = "the token is for another audience"
ISSUER_WRONG: Final = "the token is from another issuer"
EXPIRED: Final = "the token has expired"
EARLY: Final = "the token is not valid yet"
TYPE: Final = "the token is no access token"
NO_PROOFS: Final = "the token is bound to a key, and this server checks no proofs"
NO_TIME: Final = "the claim exp of the token is no time"
BOUND_OTHERWISE: Final = "the token is bound to a key in a way that this server does not check"
PRINCIPAL: Final = "the token names no principal"


def good(**changes: object) -> str:
    return ec_key().token(claims_now(**changes))


def headed(**header: object) -> str:
    return ec_key().token(claims_now(), header)


def evil(**header: object) -> str:
    return EVIL.token(claims_now(sub="root"), header)


def parts() -> list[str]:
    return good().split(".")


def swapped(place: int, part: object) -> str:
    segments = parts()
    segments[place] = encoded(part)
    return ".".join(segments)


def with_text(place: int, text: str) -> str:
    segments = parts()
    segments[place] = text
    return ".".join(segments)


def twice(name: str, value: object) -> str:
    """A correctly signed token whose payload has a member twice."""
    payload = json.dumps(claims_now())[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"
    return ec_key().token(payload.encode())


def flipped() -> str:
    head, body, signature = parts()
    return f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def endless() -> str:
    return ec_key().token(json.dumps(claims_now(exp=1)).replace(": 1,", ": 1e999,").encode())


def loose_bits() -> str:
    """A token whose signature is spelled in another way: 64 bytes leave four bits of the last character unused."""
    token = good()
    return token[:-1] + chr(ord(token[-1]) + 1)


def der_signature() -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    head, body, _ = parts()
    private = ec_key().private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return f"{head}.{body}.{encoded(private.sign(f'{head}.{body}'.encode(), ec.ECDSA(hashes.SHA256())))}"


def unsecured(algorithm: str) -> str:
    return f"{encoded({'alg': algorithm, 'typ': 'at+jwt'})}.{encoded(claims_now())}."


def confused(secret: bytes, **header: object) -> str:
    return keyed_token(secret, claims_now(), {"alg": "HS256", "typ": "at+jwt", **header})


def now(seconds: float) -> float:
    return time.time() + seconds


HOSTILE: Final[dict[str, Hostile]] = {
    # Not a JWT.
    "no dots": (lambda: "opaque", MALFORMED),
    "one dot": (lambda: "a.b", MALFORMED),
    "four parts": (lambda: good() + ".more", MALFORMED),
    "encrypted": (lambda: ".".join([encoded({"alg": "dir", "enc": "A256GCM"}), "", "aaaa", "bbbb", "cccc"]), MALFORMED),
    "many dots": (lambda: "." * 10_000 + "a", MALFORMED),
    "empty header": (lambda: with_text(0, ""), MALFORMED),
    "empty payload": (lambda: with_text(1, ""), MALFORMED),
    "empty signature": (lambda: with_text(2, ""), MALFORMED),
    "header that is no JSON": (lambda: with_text(0, encoded(b"{alg")), MALFORMED),
    "payload that is no JSON": (lambda: ec_key().token(b"not json"), MALFORMED),
    "header that is a list": (lambda: swapped(0, ["alg", "ES256"]), MALFORMED),
    "payload that is a text": (lambda: ec_key().token("claims"), MALFORMED),
    "payload that is no UTF-8": (lambda: ec_key().token(b'{"sub": "\xff"}'), MALFORMED),
    "payload with NaN": (lambda: ec_key().token(b'{"exp": NaN}'), MALFORMED),
    "payload nested deeply": (lambda: ec_key().token(b"[" * 9_000), MALFORMED),
    "number of many digits": (lambda: ec_key().token(b'{"exp": ' + b"9" * 8_000 + b"}"), MALFORMED),
    "padding": (lambda: with_text(2, parts()[2] + "=="), MALFORMED),
    "standard base64": (lambda: with_text(2, "+/" + parts()[2][2:]), MALFORMED),
    "length that base64 does not have": (lambda: with_text(2, parts()[2] + "AAA"), MALFORMED),
    "loose bits": (loose_bits, MALFORMED),
    "huge": (lambda: good(padding="x" * 9_000), MALFORMED),
    "nested": (lambda: ec_key().token(good().encode(), {"cty": "JWT"}), MALFORMED),
    # Algorithms.
    "none": (lambda: unsecured("none"), MALFORMED),
    "None": (lambda: unsecured("None"), MALFORMED),
    "nOnE with a signature": (lambda: unsecured("nOnE") + "AAAA", MALFORMED),
    "no algorithm": (lambda: ec_key().token(claims_now(), {"alg": None}), MALFORMED),
    "algorithm that is a list": (lambda: swapped(0, {"alg": ["ES256"]}), MALFORMED),
    "algorithm that is null": (lambda: ec_key().token(claims_now(), raw_header=b'{"alg": null}'), MALFORMED),
    "HMAC with the PEM": (lambda: confused(rsa_key().pem(), kid="rsa"), MALFORMED),
    "HMAC with the PEM of the EC key": (lambda: confused(ec_key().pem(), kid="ec"), MALFORMED),
    "HMAC with the modulus": (lambda: confused(rsa_key().jwk()["n"].encode(), kid="rsa"), MALFORMED),
    "HMAC with the JWK": (lambda: confused(json.dumps(rsa_key().jwk()).encode(), kid="rsa"), MALFORMED),
    "HMAC with an empty secret": (lambda: confused(b"", kid="ec"), MALFORMED),
    "ES256K": (lambda: headed(alg="ES256K"), MALFORMED),
    "algorithm of another key": (lambda: headed(alg="RS256"), UNKNOWN),
    "RS256 under the id of the EC key": (lambda: rsa_key().token(claims_now(), {"kid": "ec"}), UNKNOWN),
    "hash of another size": (lambda: headed(alg="ES384"), UNKNOWN),
    "PS256 that is RS256": (lambda: rsa_key().token(claims_now(), {"alg": "PS256"}), SIGNATURE),
    # Signatures and keys.
    "changed signature": (flipped, SIGNATURE),
    "changed claims": (lambda: swapped(1, claims_now(sub="root")), SIGNATURE),
    "changed header": (lambda: swapped(0, {"alg": "ES256", "kid": "ec", "typ": "at+jwt", "x": 1}), SIGNATURE),
    "signature in DER": (der_signature, SIGNATURE),
    "signature of zeros": (lambda: with_text(2, encoded(b"\0" * 64)), SIGNATURE),
    "signature too short": (lambda: with_text(2, encoded(b"\1" * 8)), SIGNATURE),
    "key of another": (lambda: evil(), SIGNATURE),
    "key of another without an id": (lambda: evil(kid=None), SIGNATURE),
    "unknown key": (lambda: headed(kid="gone"), UNKNOWN),
    "id that is a path": (lambda: headed(kid="../../dev/null"), UNKNOWN),
    "id that is SQL": (lambda: headed(kid="' OR '1'='1"), UNKNOWN),
    "id that is a number": (lambda: evil(kid=1), SIGNATURE),
    "id that is an object": (lambda: evil(kid={"ec": True}), SIGNATURE),
    # Headers that name keys.
    "jwk": (lambda: evil(jwk=EVIL.jwk()), SIGNATURE),
    "jku": (lambda: evil(jku="{url}/keys"), SIGNATURE),
    "x5u": (lambda: evil(x5u="{url}/certificate"), SIGNATURE),
    "x5c": (lambda: evil(x5c=["MIIB"]), SIGNATURE),
    "issuer at the attacker's": (lambda: EVIL.token(claims_now(iss="{url}")), ISSUER_WRONG),
    "crit": (lambda: headed(crit=["exp"]), MALFORMED),
    "crit that is empty": (lambda: headed(crit=[]), MALFORMED),
    "crit of an extension": (lambda: headed(crit=["b64"], b64=False), MALFORMED),
    "payload that is not encoded": (lambda: headed(b64=False), MALFORMED),
    # Types.
    "proof": (lambda: headed(typ="dpop+jwt"), TYPE),
    "logout token": (lambda: headed(typ="logout+jwt"), TYPE),
    "security event": (lambda: headed(typ="secevent+jwt"), TYPE),
    "type that is a list": (lambda: headed(typ=["at+jwt"]), TYPE),
    # Claims.
    "other issuer": (lambda: good(iss="https://other.example.com"), ISSUER_WRONG),
    "issuer with a slash": (lambda: good(iss=ISSUER + "/"), ISSUER_WRONG),
    "issuer in capitals": (lambda: good(iss=ISSUER.upper()), ISSUER_WRONG),
    "no issuer": (lambda: good(iss=None), ISSUER_WRONG),
    "issuer in a list": (lambda: good(iss=[ISSUER]), ISSUER_WRONG),
    "other audience": (lambda: good(aud="https://other.example.com/mcp"), AUDIENCE_WRONG),
    "audience of a longer name": (lambda: good(aud=AUDIENCE + ".evil.example"), AUDIENCE_WRONG),
    "audience of a path above": (lambda: good(aud="https://mcp.example.com"), AUDIENCE_WRONG),
    "audience that is no URL": (lambda: good(aud="https://[::1"), AUDIENCE_WRONG),
    "no audience": (lambda: good(aud=None), AUDIENCE_WRONG),
    "empty audience": (lambda: good(aud=[]), AUDIENCE_WRONG),
    "audience that is an object": (lambda: good(aud={AUDIENCE: True}), AUDIENCE_WRONG),
    "audience within a list": (lambda: good(aud=[[AUDIENCE]]), AUDIENCE_WRONG),
    "expired": (lambda: good(exp=now(-60)), EXPIRED),
    "expired long ago": (lambda: good(exp=0), EXPIRED),
    "expired before time": (lambda: good(exp=-1e300), EXPIRED),
    "no expiry": (lambda: good(exp=None), "the token has no expiry"),
    "expiry as a text": (lambda: good(exp="9999999999"), NO_TIME),
    "expiry that is true": (lambda: good(exp=True), NO_TIME),
    "endless expiry": (endless, NO_TIME),
    "expiry too large for a float": (lambda: good(exp=10**400), NO_TIME),
    "expiry that is null": (lambda: ec_key().token({**claims_now(), "exp": None}), NO_TIME),
    "not yet": (lambda: good(nbf=now(120)), EARLY),
    "begin as a text": (lambda: good(nbf="0"), "the claim nbf of the token is no time"),
    "issued in the future": (lambda: good(iat=now(3600)), EARLY),
    "no subject": (lambda: good(sub=None), PRINCIPAL),
    "empty subject": (lambda: good(sub=""), PRINCIPAL),
    "subject that is a number": (lambda: good(sub=1), PRINCIPAL),
    "audience twice": (lambda: twice("aud", AUDIENCE), MALFORMED),
    "expiry twice": (lambda: twice("exp", 9_999_999_999), MALFORMED),
    "algorithm twice": (lambda: ec_key().token(claims_now(), raw_header=TWO_ALGORITHMS), MALFORMED),
    "bound to a certificate": (lambda: good(cnf={"x5t#S256": "abc"}), BOUND_OTHERWISE),
    "bound to two keys": (lambda: good(cnf={"jkt": "abc", "kid": "d"}), BOUND_OTHERWISE),
    "bound to a text": (lambda: good(cnf="jkt"), BOUND_OTHERWISE),
    "bound to a DPoP key": (lambda: good(cnf={"jkt": "abc"}), NO_PROOFS),
}  # fmt: skip


@attrs.frozen
class Trap:
    """A server of an attacker, which counts the connections to it."""

    listener: socket.socket

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def was_asked(self) -> bool:
        self.listener.setblocking(False)
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return False
        connection.close()
        return True


def verifier(**options: Any) -> JWTVerifier:
    return JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key(), rsa_key(), ed_key()), most_bytes=12_000, **options)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 60


async def test_the_token_that_the_hostile_ones_are_made_of_is_good() -> None:
    async with serving(HttpServer("http://127.0.0.1:0/mcp", verify=verifier())) as served:
        for key in (ec_key(), rsa_key(), ed_key()):
            async with calling(served.url, modern("hello"), authorization=f"Bearer {key.token(claims_now())}") as reply:
                assert reply.status == 200
    assert {info.principal for info in served.infos} == {"ada"}


async def test_hostile_tokens_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    wrong: dict[str, str] = {}
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(BOUND):
        trap = Trap(listener)
        async with serving(HttpServer("http://127.0.0.1:0/mcp", verify=verifier())) as served:
            for name, (make, reason) in HOSTILE.items():
                token = make().replace("{url}", trap.url)
                async with calling(served.url, modern("hello"), authorization=f"Bearer {token}") as reply:
                    challenge = reply.headers.get("www-authenticate", "")
                    said = f'Bearer error="invalid_token", error_description="{reason}"'
                    if reply.status != 401 or not challenge.startswith(said):
                        wrong[name] = f"{reply.status} {challenge}"
                if len(token) > 20:
                    assert token not in caplog.text
        assert wrong == {}
        assert served.infos == []
        assert not trap.was_asked()


@pytest.mark.parametrize("name", [name for name, (_, reason) in HOSTILE.items() if "bound" not in name])
async def test_a_hostile_token_raises_its_reason(name: str) -> None:
    make, reason = HOSTILE[name]
    verify = verifier()
    for _ in range(2):  # the second time as the first
        with pytest.raises(InvalidToken) as raised:
            await verify(make())
        assert raised.value.reason == reason


async def test_only_access_tokens_pass_where_the_type_is_demanded() -> None:
    strict = verifier(type="at+jwt")
    for kind in ("at+jwt", "application/at+jwt", "AT+JWT"):
        assert (await strict(headed(typ=kind))).principal == "ada"
    for other in ("JWT", None, "jwt"):
        assert (await verifier()(headed(typ=other))).principal == "ada"
        with pytest.raises(InvalidToken, match="no access token"):
            await strict(headed(typ=other))
