"""The keys of an issuer: found by its metadata, kept, rotated, and used for a while when the issuer is down."""

from __future__ import annotations

import gc
import json
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import httpx
import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock

from tests.support.scripted_http import Reply, Server
from tests.support.scripted_http import serving as scripted
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, claims_now, ec_key, ed_key, jwks, rsa_key
from trioxport import UsageError
from trioxport.auth import InvalidToken, TLSOptions, VerificationUnavailable
from trioxport.auth.addresses import server_metadata_urls
from trioxport.auth.verification import JWTVerifier
from trioxport.auth.verification.keys import MAX_KEYS

BOUND: Final = 10.0
OAUTH: Final = "/.well-known/oauth-authorization-server"
OPENID: Final = "/.well-known/openid-configuration"


@attrs.define
class Issuer:
    """An authorization server: its documents by path, and its keys."""

    server: Server | None = None
    path: str = ""
    keys: list[SigningKey] = attrs.Factory(lambda: [ec_key()])
    documents: dict[str, Any] = attrs.Factory(dict[str, Any])
    status: int = 200
    fields: dict[str, str] = attrs.Factory(dict[str, str])
    hold: trio.Event | None = None

    @property
    def name(self) -> str:
        assert self.server is not None
        return self.server.url.removesuffix("/mcp") + self.path

    @property
    def asked(self) -> list[str]:
        assert self.server is not None
        return [asked.path for asked in self.server.asked]

    async def answer(self, reply: Reply) -> None:
        if self.hold is not None:
            await self.hold.wait()
        path = reply.asked.path
        if path == "/keys":
            await reply.json(jwks(*self.keys), self.status, **self.fields)
        elif path in self.documents:
            await reply.json(self.documents[path], 200, **self.fields)
        else:
            await reply.status(404)

    def verifier(self, **options: Any) -> JWTVerifier:
        return JWTVerifier(self.name, AUDIENCE, **options)

    def token(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **claims: object) -> str:
        return (key or self.keys[0]).token(claims_now(iss=self.name, **claims), header)


@asynccontextmanager
async def issuer(path: str = "", at: str = OAUTH) -> AsyncGenerator[Issuer]:
    """An issuer whose metadata is at the path ``at``."""
    found = Issuer(path=path)
    async with scripted(found.answer) as found.server:
        found.documents[at] = {"issuer": found.name, "jwks_uri": found.name.removesuffix(path) + "/keys"}
        yield found


# Discovery.


@pytest.mark.parametrize(
    ("path", "at", "asked"),
    [
        ("", OAUTH, [OAUTH]),
        ("", OPENID, [OAUTH, OPENID]),
        ("/tenant", OAUTH + "/tenant", [OAUTH + "/tenant"]),
        ("/tenant", OPENID + "/tenant", [OAUTH + "/tenant", OPENID + "/tenant"]),
        ("/tenant", "/tenant" + OPENID, [OAUTH + "/tenant", OPENID + "/tenant", "/tenant" + OPENID]),
    ],
)
async def test_metadata_is_looked_for_in_the_order_of_the_specification(path: str, at: str, asked: list[str]) -> None:
    with trio.fail_after(BOUND):
        async with issuer(path, at) as found:
            verify = found.verifier()
            token = await verify(found.token())
            assert (token.principal, token.client_id, token.scopes) == ("ada", "client-1", ("mcp", "files:read"))
            assert token.claims["iss"] == found.name
            assert await verify(found.token(sub="grace")) != token
            assert found.asked == [*asked, "/keys"]


def test_an_issuer_with_a_slash_at_its_end_has_its_metadata_at_the_same_place() -> None:
    assert server_metadata_urls("https://a.example/") == ["https://a.example" + OAUTH, "https://a.example" + OPENID]


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"issuer": "https://other.example", "jwks_uri": "{issuer}/keys"},
        {"issuer": "{issuer}/", "jwks_uri": "{issuer}/keys"},
        {"issuer": ["{issuer}"], "jwks_uri": "{issuer}/keys"},
        {"issuer": "{issuer}"},
        {"issuer": "{issuer}", "jwks_uri": 1},
        {"issuer": "{issuer}", "jwks_uri": "http://keys.example/keys"},
        {"issuer": "{issuer}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{issuer}", "jwks_uri": "http://me@127.0.0.1/keys"},
        {"issuer": "{issuer}", "jwks_uri": "http://[::1"},
    ],
)
async def test_metadata_that_cannot_be_used_is_not(document: object) -> None:
    with trio.fail_after(BOUND):
        async with issuer() as found:
            found.documents[OAUTH] = json.loads(json.dumps(document).replace("{issuer}", found.name))
            with pytest.raises(VerificationUnavailable, match="metadata of the issuer"):
                await found.verifier()(found.token())
            assert "/keys" not in found.asked


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"issuer": "http://login.example"}, "issuer has to be an https URL"),
        ({"issuer": "login.example"}, "issuer has to be an https URL"),
        ({"jwks_uri": "http://login.example/keys"}, "jwks_uri has to be an https URL"),
        ({"jwks_uri": "https://login.example/keys", "keys": jwks(ec_key())}, "by keys or by jwks_uri"),
        ({"keys": {"keys": []}}, "no public key"),
        ({"keys": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}}, "no public key"),
        ({"keys": jwks(ec_key()), "algorithms": ["RS256"]}, "no public key"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none", "ES256"]}, "algorithms"),
        ({"audience": []}, "needs an audience"),
        ({"audience": ""}, "not empty"),
    ],
)
def test_mistakes_are_found_at_once(arguments: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        JWTVerifier(**{"issuer": ISSUER, "audience": AUDIENCE, **arguments})


async def test_given_keys_are_used_without_a_look_at_the_network() -> None:
    private = ec_key("one").jwk(d="AAAA")
    odd: list[Any] = [
        None,
        "key",
        {"kty": "RSA"},
        {"kty": []},
        ec_key("two").jwk(use="enc"),
        rsa_key("weak", 1024).jwk(),
    ]
    verify = JWTVerifier(ISSUER, AUDIENCE, keys={"keys": [*odd, private, ed_key().jwk(alg="EdDSA")]})
    assert (await verify(ec_key("one").token(claims_now()))).principal == "ada"
    assert (await verify(ed_key().token(claims_now(), {"alg": "EdDSA"}))).principal == "ada"
    for key in (ec_key("two"), rsa_key("weak", 1024), ed_key()):
        with pytest.raises(InvalidToken, match="unknown key"):
            await verify(key.token(claims_now()))


async def test_a_key_without_an_id_and_a_token_without_one_fit_any() -> None:
    nameless = SigningKey(ec_key("nameless").private, None, "ES256")
    verify = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(rsa_key(), ec_key(), nameless))
    for token in (
        nameless.token(claims_now()),
        nameless.token(claims_now(), {"kid": "any"}),
        ec_key().token(claims_now(), {"kid": None}),
        rsa_key().token(claims_now(), {"kid": None}),
    ):
        assert (await verify(token)).principal == "ada"


async def test_claims_may_have_other_names() -> None:
    scp: dict[str, Any] = {"scope": None, "scp": ["a", "b", 1]}
    verify = JWTVerifier(ISSUER, ["api://one", "https://MCP.example.com/"], keys=jwks(ec_key()), principal="oid")
    token = await verify(
        ec_key().token(claims_now(oid="o-1", aud=["x", "HTTPS://mcp.example.com"], client_id=None, azp="z", **scp))
    )
    assert (token.principal, token.client_id, token.scopes) == ("o-1", "z", ("a", "b"))
    assert (await verify(ec_key().token(claims_now(oid="o", aud="api://one", scope=None)))).scopes == ()
    scp["scp"] = "c d"
    assert (await verify(ec_key().token(claims_now(oid="o", aud="api://one", **scp)))).scopes == ("c", "d")
    assert verify.resource is None
    assert JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key())).resource == AUDIENCE
    assert JWTVerifier(ISSUER, "api://one", keys=jwks(ec_key())).authorization_servers == (ISSUER,)


# Rotation.


async def test_an_unknown_key_has_them_fetched_again_but_not_for_every_token(jumping_clock: MockClock) -> None:
    with trio.fail_after(1000):
        async with issuer() as found:
            verify = found.verifier(jwks_uri=found.name + "/keys", key_interval=30)
            await verify(found.token())
            found.keys = [ed_key("new"), ec_key()]
            with pytest.raises(InvalidToken, match="unknown key"):
                await verify(found.token(ed_key("new")))  # too early for another fetch
            assert found.asked == ["/keys"]
            await trio.sleep(30)
            assert (await verify(found.token(ed_key("new")))).principal == "ada"
            for number in range(20):
                with pytest.raises(InvalidToken, match="unknown key"):
                    await verify(found.token(header={"kid": f"guess-{number}"}))
            assert found.asked == ["/keys"] * 2


async def test_a_key_that_was_replaced_under_its_name_is_fetched_again(jumping_clock: MockClock) -> None:
    with trio.fail_after(1000):
        async with issuer() as found:
            verify = found.verifier(jwks_uri=found.name + "/keys")
            await verify(found.token())
            found.keys = [SigningKey(ec_key("replacement").private, "ec", "ES256")]
            await trio.sleep(30)
            assert (await verify(found.token())).principal == "ada"


async def test_a_removed_key_counts_no_more_even_for_remembered_tokens(jumping_clock: MockClock) -> None:
    with trio.fail_after(10_000):
        async with issuer() as found:
            verify = found.verifier(jwks_uri=found.name + "/keys", key_lifetime=100, cache_seconds=10_000)
            token = found.token()
            await verify(token)
            found.keys = [ed_key("new")]
            await trio.sleep(50)
            await verify(token)  # remembered
            await verify(found.token(ed_key("new")))  # the unknown key: another fetch
            with pytest.raises(InvalidToken, match="unknown key"):
                await verify(token)


async def test_one_fetch_serves_all_that_wait() -> None:
    with trio.fail_after(BOUND):
        async with issuer() as found:
            verify = found.verifier()
            found.hold = trio.Event()
            principals: list[str] = []

            async def check(number: int) -> None:
                principals.append((await verify(found.token(sub=f"user-{number}"))).principal)

            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(check, number)
                assert found.server is not None
                await found.server.until(lambda: bool(found.asked))
                found.hold.set()
            assert len(set(principals)) == 100
            assert found.asked == [OAUTH, "/keys"]


async def test_a_cancelled_fetch_is_taken_over() -> None:
    with trio.fail_after(BOUND):
        async with issuer() as found:
            verify = found.verifier()
            found.hold = trio.Event()
            principals: list[str] = []

            async def check(scope: trio.CancelScope) -> None:
                with scope:
                    principals.append((await verify(found.token())).principal)

            first = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(check, first)
                assert found.server is not None
                await found.server.until(lambda: bool(found.asked))
                nursery.start_soon(check, trio.CancelScope())
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
                found.hold.set()
            assert principals == ["ada"]


async def test_old_keys_are_used_while_the_issuer_is_down_and_not_for_ever(
    jumping_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(100_000):
        async with issuer() as found:
            verify = found.verifier(jwks_uri=found.name + "/keys", key_lifetime=100, stale_keys=1000, cached=0)
            await verify(found.token())
            found.status = 500
            await trio.sleep(500)
            await verify(found.token())
            assert "the old ones stay in use" in caplog.text
            with pytest.raises(VerificationUnavailable) as raised:  # nobody knows whether there is such a key by now
                await verify(found.token(ed_key("new")))
            assert raised.value.retry_after is not None and raised.value.retry_after > 0
            await trio.sleep(700)
            with pytest.raises(VerificationUnavailable, match="500"):
                await verify(found.token())
            with pytest.raises(VerificationUnavailable, match="500"):
                await verify(found.token())  # without another request
            asked = len(found.asked)
            found.status = 200
            await trio.sleep(5)
            await verify(found.token())
            assert len(found.asked) == asked + 1


async def test_others_do_not_wait_while_known_keys_are_renewed(jumping_clock: MockClock) -> None:
    with trio.fail_after(100_000):
        async with issuer() as found:
            verify = found.verifier(jwks_uri=found.name + "/keys", key_lifetime=100, cached=0, timeout=50)
            await verify(found.token())
            await trio.sleep(100)
            found.hold = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(verify, found.token())
                assert found.server is not None
                await found.server.until(lambda: len(found.asked) == 2)
                with trio.fail_after(1):
                    await verify(found.token())
                found.hold.set()


# Bounds of a fetch.


@pytest.mark.parametrize(
    ("status", "fields", "wait"),
    [
        (503, {"retry_after": "7"}, 7),
        (429, {"retry_after": "9999"}, 300),
        (503, {"retry_after": "soon"}, 5),
        (503, {}, 5),
    ],
)
async def test_the_issuer_says_when_to_ask_again(status: int, fields: dict[str, str], wait: float) -> None:
    with trio.fail_after(BOUND):
        async with issuer() as found:
            found.status, found.fields = status, fields
            with pytest.raises(VerificationUnavailable) as raised:
                await found.verifier(jwks_uri=found.name + "/keys")(found.token())
            assert raised.value.retry_after == wait


async def test_an_issuer_that_answers_too_much_too_late_or_elsewhere_is_not_used(jumping_clock: MockClock) -> None:
    async def answer(reply: Reply) -> None:
        match reply.asked.path:
            case "/redirect":
                await reply.status(302, location="/keys")
            case "/nowhere":
                await reply.status(302, location="//xn--/")
            case "/huge":
                await reply.status(200, b" " * 600_000)
            case "/text":
                await reply.status(200, b"keys")
            case "/deep":
                await reply.status(200, b"[" * 100_000)
            case "/list":
                await reply.json([])
            case "/reset":
                reply.reset()
            case _:
                await reply.gone()

    reasons = {
        "redirect": "302",
        "nowhere": "does not answer",
        "huge": "more than 524288 bytes",
        "text": "no key",
        "deep": "no key",
        "list": "no key",
        "reset": "does not answer",
        "slow": "did not answer within 5 s",
    }
    async with scripted(answer) as server:
        for path, reason in reasons.items():
            verify = JWTVerifier(ISSUER, AUDIENCE, jwks_uri=server.url.replace("mcp", path))
            with pytest.raises(VerificationUnavailable, match=reason):
                await verify(ec_key().token(claims_now()))
        assert "/keys" not in [asked.path for asked in server.asked]


async def test_a_set_with_many_keys_costs_no_more() -> None:
    keys = [SigningKey(ec_key().private, f"k{number}", "ES256") for number in range(MAX_KEYS + 1)]
    verify = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(*keys))
    await verify(keys[0].token(claims_now()))
    with pytest.raises(InvalidToken, match="unknown key"):
        await verify(keys[-1].token(claims_now()))


async def test_the_certificate_of_the_issuer_is_checked(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def answer(reply: Reply) -> None:
        await reply.json(jwks(ec_key()))

    with trio.fail_after(BOUND):
        async with scripted(answer, context) as server:
            with pytest.raises(VerificationUnavailable, match="ConnectError"):
                await JWTVerifier(ISSUER, AUDIENCE, jwks_uri=server.url)(ec_key().token(claims_now()))
            trusting = JWTVerifier(ISSUER, AUDIENCE, jwks_uri=server.url, tls=TLSOptions(ca=str(tmp_path / "ca.pem")))
            assert (await trusting(ec_key().token(claims_now()))).principal == "ada"


async def test_the_applications_own_client_is_used_and_stays_open() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "https://keys.example/keys"
        return httpx.Response(200, json=jwks(ec_key()))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        verify = JWTVerifier(ISSUER, AUDIENCE, jwks_uri="https://keys.example/keys", client=client)
        await verify(ec_key().token(claims_now()))
        assert not client.is_closed


# Remembered tokens.


async def test_a_token_is_remembered_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key()), leeway=0)
    token = ec_key().token(claims_now())
    first = await verify(token)
    assert await verify(token) is first
    wall = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: wall)
    with pytest.raises(InvalidToken, match="expired"):
        await verify(token)


async def test_a_token_is_remembered_for_a_while_only_and_only_so_many(autojump_clock: MockClock) -> None:
    verify = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key()), cached=2, cache_seconds=60)
    tokens = [ec_key().token(claims_now(sub=f"user-{number}")) for number in range(3)]
    found = [await verify(token) for token in tokens]
    assert await verify(tokens[2]) is found[2]
    assert await verify(tokens[1]) is found[1]
    assert await verify(tokens[0]) is not found[0]
    await trio.sleep(60)
    assert await verify(tokens[1]) is not found[1]
    forgetful = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key()), cached=0)
    assert await forgetful(tokens[0]) is not await forgetful(tokens[0])


async def test_no_token_stays_in_memory() -> None:
    verify = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key()))
    token = ec_key().token(claims_now(jti="to be forgotten"))
    await verify(token)
    signature = token.rpartition(".")[2]
    held = [each for each in gc.get_objects() if isinstance(each, dict) and any(signature in str(key) for key in each)]
    assert held == []
