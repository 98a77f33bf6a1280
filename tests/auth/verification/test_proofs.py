"""DPoP proofs at a server (RFC 9449, sections 4.3 and 7): accepted once, for one request, token and key."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final

import httpx
import pytest
import trio

from tests.support.raw_http import asking, calling, initialized, modern
from tests.support.recording_handler import Served, serving
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
from trioxport import AuthenticationError, UsageError, open_transport
from trioxport.auth.dpop import DPoPKey, token_hash
from trioxport.auth.verification import DPoP, JWTVerifier, proofs
from trioxport.auth.verification.proofs import normal_target
from trioxport.auth.verification.replays import UsedProofs
from trioxport.auth.verified import InvalidProof
from trioxport.transports.http.server import HttpServer, ProtectedResource
from trioxport.transports.websocket import WebSocket

BOUND: Final = 10.0
KEY: Final = DPoPKey()
OTHER: Final = DPoPKey()
CLIENT_KEY: Final = ec_key(None)
EVIL_KEY: Final = SigningKey(ec_key("evil").private, None, "ES256")


def thumbprint_of(key: SigningKey) -> str:
    from trioxport.auth.jose import PublicKey

    return PublicKey.of(key.jwk(), (key.algorithm,)).thumbprint


def bound_token(thumbprint: str = KEY.thumbprint, **claims: object) -> str:
    return ec_key().token(claims_now(cnf={"jkt": thumbprint}, **claims))


@asynccontextmanager
async def protected(**options: Any) -> AsyncGenerator[Served]:
    """A server that takes bound tokens; clients know it by the URL that they ask for."""
    verifier = JWTVerifier(ISSUER, [AUDIENCE, "other"], keys=jwks(ec_key()))
    async with serving(
        HttpServer(
            "http://127.0.0.1:0/mcp", websocket=True, verify=ProtectedResource(verifier, **{"dpop": DPoP(), **options})
        )
    ) as served:
        yield served


async def status_of(served: Served, token: str, proof: str | None, scheme: str = "DPoP") -> tuple[int, str]:
    """The status and the challenge of a call."""
    fields = {"authorization": f"{scheme} {token}"} | ({} if proof is None else {"dpop": proof})
    async with calling(served.url, modern("hello"), **fields) as reply:
        return reply.status, reply.headers.get("www-authenticate", "")


async def test_a_bound_token_is_accepted_with_the_proof_of_its_key() -> None:
    token = bound_token()
    with trio.fail_after(BOUND):
        async with protected() as served:
            proof = KEY.proof("POST", served.url, ath=token_hash(token))
            assert await status_of(served, token, proof) == (200, "")
            assert await status_of(served, token, KEY.proof("POST", served.url, ath=token_hash(token)), "dpop") == (
                200,
                "",
            )
            status, challenge = await status_of(served, token, proof)
            assert (status, "used already" in challenge) == (401, True)
    assert [info.principal for info in served.infos] == ["ada", "ada"]
    assert all(info.token is not None and info.token.key_thumbprint == KEY.thumbprint for info in served.infos)


Bad = Callable[[str, str], str]
"""Makes a proof for a URL and a token."""


def proof_of(key: SigningKey, url: str, token: str, header: dict[str, Any] | None = None, **claims: object) -> str:
    """A proof by hand; a claim or a member of the header that is None is left out."""
    whole = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": "id", "ath": token_hash(token), **claims}
    members = {"typ": "dpop+jwt", "kid": None, "jwk": key.jwk(), **(header or {})}
    return key.token({name: value for name, value in whole.items() if value is not None}, members)


def hand_made(header: dict[str, Any] | None = None, **claims: object) -> Bad:
    return lambda url, token: proof_of(CLIENT_KEY, url, token, header, **claims)


def private_jwk() -> dict[str, Any]:
    return CLIENT_KEY.jwk(d="AAAA")


BAD: Final[dict[str, tuple[Bad, str]]] = {
    "no JWT": (lambda url, token: "proof", "no JWT"),
    "two proofs": (lambda url, token: ", ".join([proof_of(CLIENT_KEY, url, token)] * 2), "no JWT"),
    "huge": (hand_made(more="x" * 7000), "no JWT"),
    "none": (
        lambda url, token: f"{encoded({'alg': 'none', 'typ': 'dpop+jwt', 'jwk': CLIENT_KEY.jwk()})}.{encoded({})}.",
        "no JWT",
    ),
    "HMAC": (
        lambda url, token: keyed_token(b"s", {}, {"alg": "HS256", "typ": "dpop+jwt", "jwk": {"kty": "oct", "k": "cw"}}),
        "no JWT",
    ),
    "crit": (hand_made({"crit": ["jwk"]}), "no JWT"),
    "type of an access token": (hand_made({"typ": "at+jwt"}), "type"),
    "no type": (hand_made({"typ": None}), "type"),
    "no key": (hand_made({"jwk": None}), "key"),
    "key that is a text": (hand_made({"jwk": "key"}), "key"),
    "key in kid": (hand_made({"jwk": None, "kid": "ec"}), "key"),
    "private key": (hand_made({"jwk": private_jwk()}), "key"),
    "symmetric key": (hand_made({"jwk": {"kty": "oct", "k": "AAAA"}}), "key"),
    "key off the curve": (hand_made({"jwk": {**CLIENT_KEY.jwk(), "x": encoded(b"\1" * 32)}}), "key"),
    "key without a coordinate": (hand_made({"jwk": {"kty": "EC", "crv": "P-256", "x": "AAAA"}}), "key"),
    "weak key": (lambda url, token: proof_of(rsa_key(None, 1024), url, token), "key"),
    "key of another algorithm": (hand_made({"jwk": ed_key().jwk()}), "key"),
    "key of another client": (lambda url, token: OTHER.proof("POST", url, ath=token_hash(token)), "another key"),
    "key of another in the header": (hand_made({"jwk": OTHER.public_jwk}), "another key"),
    "signature of another": (
        lambda url, token: proof_of(
            SigningKey(ec_key("evil").private, None, "ES256"), url, token, {"jwk": CLIENT_KEY.jwk()}
        ),
        "signature",
    ),
    "other method": (hand_made(htm="GET"), "method"),
    "method in lower case": (hand_made(htm="post"), "method"),
    "no method": (hand_made(htm=None), "method"),
    "other host": (hand_made(htu="http://evil.example/mcp"), "URL"),
    "other path": (lambda url, token: proof_of(CLIENT_KEY, url + "/more", token), "URL"),
    "other scheme": (lambda url, token: proof_of(CLIENT_KEY, url.replace("http", "https"), token), "URL"),
    "other port": (hand_made(htu="http://127.0.0.1:1/mcp"), "URL"),
    "user in the URL": (lambda url, token: proof_of(CLIENT_KEY, url.replace("//", "//me@"), token), "URL"),
    "URL that is none": (hand_made(htu="http://[::1"), "URL"),
    "no URL": (hand_made(htu=None), "URL"),
    "URL that is a list": (hand_made(htu=["a"]), "URL"),
    "hash of another token": (hand_made(ath=token_hash("other")), "token"),
    "no hash": (hand_made(ath=None), "token"),
    "hash that is a number": (hand_made(ath=1), "token"),
    "hash that is no Unicode": (hand_made(ath="\ud800"), "token"),
    "old": (hand_made(iat=int(time.time()) - 3600), "too long ago"),
    "from the future": (hand_made(iat=int(time.time()) + 3600), "too long ago"),
    "no time": (hand_made(iat=None), "when it was made"),
    "time that is a text": (hand_made(iat="now"), "when it was made"),
    "time without an end": (hand_made(iat=10**400), "when it was made"),
    "no id": (hand_made(jti=None), "no id"),
    "empty id": (hand_made(jti=""), "no id"),
    "id that is a number": (hand_made(jti=1), "no id"),
}


async def test_bad_proofs_are_refused() -> None:
    wrong: dict[str, str] = {}
    token = bound_token(thumbprint_of(CLIENT_KEY))
    weak = ec_key().token(claims_now(cnf={"jkt": "weak"}))
    with trio.fail_after(BOUND):
        async with protected() as served:
            for name, (make, reason) in BAD.items():
                used = weak if name == "weak key" else token
                status, challenge = await status_of(served, used, make(served.url, used))
                error = 'DPoP error="invalid_dpop_proof", error_description="'
                if (
                    status != 401
                    or not challenge.startswith(error)
                    or reason not in challenge
                    or "algs=" not in challenge
                ):
                    wrong[name] = f"{status} {challenge}"
            assert wrong == {}
            assert served.infos == []
            assert (await status_of(served, token, proof_of(CLIENT_KEY, served.url, token)))[0] == 200


async def test_a_token_is_accepted_under_its_own_scheme_only() -> None:
    token, plain = bound_token(), ec_key().token(claims_now())
    with trio.fail_after(BOUND):
        async with protected() as served:
            status, challenge = await status_of(served, token, None, "Bearer")
            assert status == 401 and challenge.startswith('DPoP error="invalid_token"')
            status, challenge = await status_of(served, token, KEY.proof("POST", served.url), "Bearer")
            assert status == 401 and challenge.startswith('DPoP error="invalid_token"')
            status, challenge = await status_of(served, plain, KEY.proof("POST", served.url, ath=token_hash(plain)))
            assert status == 401 and "not bound" in challenge
            assert (await status_of(served, plain, None, "Bearer"))[0] == 200
            status, challenge = await status_of(served, token, None)
            assert status == 401 and challenge.startswith('DPoP error="invalid_dpop_proof"')


async def test_a_server_without_the_check_refuses_bound_tokens() -> None:
    token = bound_token()
    with trio.fail_after(BOUND):
        async with protected(dpop=None) as served:
            for scheme in ("Bearer", "DPoP"):
                proof = KEY.proof("POST", served.url, ath=token_hash(token))
                status, challenge = await status_of(served, token, proof, scheme)
                assert status == 401 and challenge.startswith("Bearer")
        assert served.infos == []


async def test_a_server_may_demand_bound_tokens() -> None:
    token, plain = bound_token(), ec_key().token(claims_now())
    dpop = DPoP(required=True, algorithms=["ES256"])
    with trio.fail_after(BOUND):
        async with protected(dpop=dpop) as served:
            async with asking(served.url, "POST") as reply:
                assert reply.headers["www-authenticate"].startswith("DPoP resource_metadata=")
                assert 'algs="ES256"' in reply.headers["www-authenticate"]
            status, challenge = await status_of(served, plain, None, "Bearer")
            assert status == 401 and challenge.startswith('DPoP error="invalid_token"')
            assert (await status_of(served, token, KEY.proof("POST", served.url, ath=token_hash(token))))[0] == 200
            async with asking(served.url, "GET", path="/.well-known/oauth-protected-resource/mcp") as reply:
                metadata = await reply.json()
    assert metadata["dpop_signing_alg_values_supported"] == ["ES256"]
    assert metadata["dpop_bound_access_tokens_required"] is True


async def test_both_schemes_are_offered_where_both_are_accepted() -> None:
    with trio.fail_after(BOUND):
        async with protected() as served, httpx.AsyncClient() as client:
            response = await client.post(served.url)
    assert response.status_code == 401
    assert [each.partition(" ")[0] for each in response.headers.get_list("www-authenticate")] == ["DPoP", "Bearer"]


# Nonces.


async def test_the_nonce_of_the_server_is_demanded_and_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    token = bound_token(exp=time.time() + 100_000)
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall)
    with trio.fail_after(BOUND):
        async with protected(dpop=DPoP(nonce_seconds=100)) as served:

            async def ask(nonce: str | None) -> tuple[int, str, str | None]:
                proof = KEY.proof("POST", served.url, ath=token_hash(token), nonce=nonce)
                async with calling(served.url, modern("hello"), authorization=f"DPoP {token}", dpop=proof) as reply:
                    return reply.status, reply.headers.get("www-authenticate", ""), reply.headers.get("dpop-nonce")

            status, challenge, nonce = await ask(None)
            assert status == 401 and challenge.startswith('DPoP error="use_dpop_nonce"') and nonce
            assert (await ask(nonce))[0::2] == (200, None)
            assert (await ask(nonce[:-1] + "!"))[0] == 401
            wall += 100
            status, _, renewed = await ask(nonce)
            assert status == 200 and renewed not in (None, nonce)
            wall += 100
            assert (await ask(nonce))[0] == 401
            assert (await ask(renewed))[0] == 200


async def test_replicas_with_one_key_accept_each_others_nonces() -> None:
    one, other, stranger = (DPoP(nonce_seconds=100, nonce_key=key) for key in ("shared", "shared", "else"))
    assert one.nonce() == other.nonce() != stranger.nonce()
    assert DPoP().nonce() is None


# Replays.


def test_memory_is_bounded_and_no_replay_gets_through() -> None:
    used = UsedProofs(3, 60.0)
    assert all(used.use("key", f"id-{number}", 100.0 + number, 105.0) for number in range(3))
    assert not used.use("key", "id-0", 100.0, 105.0)
    assert used.use("other", "id-0", 103.0, 105.0)  # the oldest is forgotten
    assert len(used) == 3
    assert not used.use("key", "id-0", 100.0, 105.0)
    assert not used.use("key", "never seen", 100.0, 105.0)  # as old as what was forgotten
    assert used.use("key", "never seen", 104.0, 105.0)
    assert used.use("key", "later", 200.0, 200.0)
    assert len(used) == 1  # the others are too old to be accepted anyway


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://Example.COM/mcp", "https://example.com/mcp"),
        ("https://example.com:443/mcp?query=1#part", "https://example.com/mcp"),
        ("http://example.com:80", "http://example.com/"),
        ("wss://example.com/mcp", "https://example.com/mcp"),
        ("https://example.com/%7Eme/%2fa", "https://example.com/~me/%2Fa"),
        ("https://[::1]:8443/mcp", "https://[::1]:8443/mcp"),
    ],
)
def test_targets_that_are_the_same(one: str, other: str) -> None:
    assert normal_target(one) == normal_target(other) is not None


def test_texts_that_are_no_target() -> None:
    assert [normal_target(text) for text in ("", "/mcp", "ftp://a/b", "http://a:b/", "https://me@a/")] == [None] * 5


def test_the_keys_that_are_kept_ready_are_bounded_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MAX_KNOWN_KEYS", 2)
    dpop, url = DPoP(), "https://mcp.example.com/mcp"

    def check(key: DPoPKey, proof: str) -> None:
        dpop.check(proof, method="POST", url=url, token="token", thumbprint=key.thumbprint)

    for key in (KEY, OTHER, DPoPKey(), KEY, KEY):
        check(key, key.proof("POST", url, ath=token_hash("token")))
    private = ec_key("known").jwk(d="AAAA")
    known = thumbprint_of(ec_key("known"))
    for jwk, why in ((ec_key("known").jwk(), None), (private, "private key"), (KEY.public_jwk, "another key")):
        header = {"typ": "dpop+jwt", "kid": None, "jwk": jwk}
        claims = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": "one", "ath": token_hash("token")}
        proof = ec_key("known").token(claims, header)
        with nullcontext() if why is None else pytest.raises(InvalidProof, match=why):
            dpop.check(proof, method="POST", url=url, token="token", thumbprint=known)


# Sessions, WebSockets.


async def test_each_request_of_a_session_needs_a_proof_of_its_own() -> None:
    token = bound_token()
    with trio.fail_after(BOUND):
        async with protected() as served:
            proof = KEY.proof("POST", served.url, ath=token_hash(token))
            second = KEY.proof("POST", served.url, ath=token_hash(token))
            with pytest.raises(AssertionError):  # the notification has the proof of the first request
                await initialized(served.url, authorization=f"DPoP {token}", dpop=proof)
            async with calling(served.url, modern("x"), authorization=f"DPoP {token}", dpop=second) as reply:
                assert reply.status == 200


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_websocket_is_opened_with_a_proof_for_its_handshake(mounted: bool) -> None:
    token = bound_token()
    verifier = JWTVerifier(ISSUER, [AUDIENCE, "other"], keys=jwks(ec_key()))
    protection = ProtectedResource(verifier, dpop=DPoP(nonce_seconds=1000))
    nonce = protection.dpop.nonce() if protection.dpop else None
    target = (
        HttpServer("http://127.0.0.1:0/mcp", websocket=True, verify=protection)
        if mounted
        else WebSocket("ws://127.0.0.1:0/mcp", verify=protection)
    )
    with trio.fail_after(BOUND):
        async with serving(target) as served:
            url = served.url.replace("http", "ws", 1) if mounted else served.url
            for named in (url, url.replace("ws", "http", 1)):
                proof = KEY.proof("GET", named, ath=token_hash(token), nonce=nonce)
                fields = {"Authorization": f"DPoP {token}", "DPoP": proof}
                async with open_transport(WebSocket(url, headers=fields)):
                    pass
                with pytest.raises(AuthenticationError):
                    async with open_transport(WebSocket(url, headers=fields)):
                        pass
            with pytest.raises(AuthenticationError):
                async with open_transport(WebSocket(url, headers={"Authorization": f"Bearer {token}"})):
                    pass
        assert {info.principal for info in served.infos} == {"ada"}


async def test_unknown_algorithms_are_a_mistake() -> None:
    for algorithms in (["none"], ["HS256"], []):
        with pytest.raises(UsageError, match="algorithms"):
            DPoP(algorithms=algorithms)
