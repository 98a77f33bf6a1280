"""The grants without a browser, and tokens that are bound to a key."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.auth.oauth.test_authorization import KEYS, pem
from tests.support.authorization_server import ISSUER, SERVER, Site, answer, basic, claims_of, connect, refuse
from trioxport import InteractionRequired, OAuthError, UsageError
from trioxport.auth.dpop import token_hash
from trioxport.auth.oauth import (
    ClientCredentials,
    DeviceAuthorization,
    DeviceCode,
    EnterpriseManaged,
    MemoryStore,
    OAuthClient,
    WorkloadIdentity,
)
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse
from trioxport.auth.oauth.token_requests import DPoPState

IDP = "https://idp.test/token"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return connect(monkeypatch, Site(challenge='Bearer scope="a"'))


def always(text: str) -> Callable[[], Any]:
    async def provide() -> str:
        return text

    return provide


# Client credentials.


async def test_client_credentials_with_a_secret(site: Site) -> None:
    site.gives_refresh_tokens = False
    auth = site.client(grant=ClientCredentials(OAuthClient("me", client_secret="s3cret")))
    for _ in range(2):
        assert await site.request(auth) == 200
        site.revoke_access()
    assert site.forms == [{"grant_type": "client_credentials", "resource": SERVER, "scope": "a", "client_id": "me"}] * 2
    assert basic(site.requests[-1]) == ("me", "s3cret")
    assert site.pages == []


async def test_expired_client_credentials_are_renewed(
    site: Site, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + autojump_clock.current_time())
    site.gives_refresh_tokens = False
    auth = site.client(grant=ClientCredentials(OAuthClient("me", client_secret="s3cret")))
    await site.request(auth)
    await trio.sleep(7200)
    assert await site.request(auth) == 200
    assert site.counts["client_credentials"] == 2


async def test_client_credentials_with_a_key(site: Site) -> None:
    client = OAuthClient("me", private_key=pem(KEYS["ES256"][0]))
    assert await site.request(site.client(grant=ClientCredentials(client))) == 200
    assert claims_of(site.forms[0]["client_assertion"])["aud"] == ISSUER


async def test_client_credentials_that_are_refused_are_not_sent_again_and_again(site: Site) -> None:
    async def refusing(_: OAuthRequest) -> OAuthResponse:
        site.counts["refused"] += 1
        return refuse("invalid_client", 401)

    site.answers["/token"] = refusing
    auth = site.client(grant=ClientCredentials(OAuthClient("me", client_secret="s3cret")))
    with pytest.raises(OAuthError, match="invalid_client") as caught:
        await site.request(auth)
    assert not isinstance(caught.value, InteractionRequired)
    assert site.counts["refused"] == 1


# Workload identity.


async def test_a_workload_shows_the_token_of_its_platform(site: Site) -> None:
    auth = site.client(grant=WorkloadIdentity(OAuthClient("me"), always("platform.jwt")))
    assert await site.request(auth) == 200
    assert site.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": "platform.jwt",
            "resource": SERVER,
            "scope": "a",
            "client_id": "me",
        }
    ]


async def test_a_refused_workload_tries_once_and_nothing_else(site: Site) -> None:
    async def refusing(request: OAuthRequest) -> OAuthResponse:
        return refuse("invalid_grant", error_description="platform.jwt is unknown")

    site.answers["/token"] = refusing
    auth = site.client(grant=WorkloadIdentity(OAuthClient("me"), always("platform.jwt")))
    with pytest.raises(OAuthError, match=r"invalid_grant: \*\*\* is unknown"):
        await site.request(auth)
    assert site.sent() == ["/token"]
    assert site.pages == []


# Enterprise-managed authorization.


def enterprise(**options: Any) -> EnterpriseManaged:
    known: dict[str, Any] = {
        "client": OAuthClient("me", client_secret="s3cret"),
        "token_endpoint": IDP,
        "idp_client": OAuthClient("me-at-idp"),
        "subject_token": always("id.token"),
    }
    return EnterpriseManaged(**{**known, **options})


async def test_both_legs_of_enterprise_managed_authorization(site: Site) -> None:
    asked = list[dict[str, str]]()

    async def exchange(request: OAuthRequest) -> OAuthResponse:
        asked.append(dict(parse_qsl((request.content or b"").decode())))
        kind = "urn:ietf:params:oauth:token-type:id-jag"
        return answer({"access_token": "id.jag", "issued_token_type": kind, "token_type": "N_A"})

    site.answers[IDP] = exchange
    assert await site.request(site.client(grant=enterprise())) == 200
    assert asked == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "audience": ISSUER,
            "resource": SERVER,
            "scope": "a",
            "subject_token": "id.token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "client_id": "me-at-idp",
        }
    ]
    assert site.forms[0]["assertion"] == "id.jag"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (refuse("access_denied", error_description="id.token?"), r"access_denied: \*\*\*\?.*RFC 8693"),
        (answer({"access_token": "x", "issued_token_type": "other"}), "holds no ID-JAG"),
        (answer({}), "holds no ID-JAG"),
    ],
)
async def test_a_refusal_of_the_identity_provider(site: Site, response: OAuthResponse, reason: str) -> None:
    async def exchange(_: OAuthRequest) -> OAuthResponse:
        return response

    site.answers[IDP] = exchange
    with pytest.raises(OAuthError, match=reason):
        await site.request(site.client(grant=enterprise()))
    assert site.forms == []


def test_the_identity_provider_needs_tls() -> None:
    with pytest.raises(UsageError, match="identity provider cannot be used"):
        enterprise(token_endpoint="http://idp.test/token")


# Device authorization.


def code(**members: object) -> dict[str, object]:
    known = {
        "device_code": "d3vice",
        "user_code": "WDJB-MJHT",
        "verification_uri": f"{ISSUER}/device",
        "verification_uri_complete": f"{ISSUER}/device?code=WDJB-MJHT",
        "expires_in": 600,
        "interval": 5,
    }
    return {**known, **members}


def device(site: Site, members: dict[str, object], *refusals: str) -> tuple[Any, list[DeviceCode], list[float]]:
    """Credentials by device authorization, whose polls are refused with ``refusals`` first."""
    shown, polls, left = list[DeviceCode](), list[float](), list(refusals)
    site.metadata["device_authorization_endpoint"] = f"{ISSUER}/device"

    async def begin(_: OAuthRequest) -> OAuthResponse:
        return answer(members)

    async def poll(request: OAuthRequest) -> OAuthResponse | None:
        assert b"d3vice" in (request.content or b"")
        polls.append(trio.current_time())
        return refuse(left.pop(0)) if left else None

    async def show(given: DeviceCode) -> None:
        shown.append(given)

    site.answers |= {"/device": begin, "/token": poll}
    return site.client(grant=DeviceAuthorization(show)), shown, polls


async def test_a_person_enters_a_code_on_another_device(site: Site, autojump_clock: MockClock) -> None:
    auth, shown, polls = device(site, code(), "authorization_pending", "slow_down", "authorization_pending")
    assert await site.request(auth) == 200
    assert (shown[0].user_code, shown[0].verification_uri) == ("WDJB-MJHT", f"{ISSUER}/device")
    assert "d3vice" not in repr(shown[0])
    assert polls == pytest.approx([5, 10, 20, 30])
    assert site.forms[-1]["resource"] == SERVER
    assert "device_code" in site.registered["client-1"]["grant_types"][0]
    assert (site.registered["client-1"]["redirect_uris"], site.registered["client-1"]["response_types"]) == ([], [])


async def test_a_server_that_is_down_is_asked_more_seldom(site: Site, autojump_clock: MockClock) -> None:
    auth, _, polls = device(site, code())
    inner = site.answers["/token"]

    async def down(request: OAuthRequest) -> OAuthResponse | None:
        if len(polls) < 1:
            await inner(request)
            return OAuthResponse(503)
        return await inner(request)

    site.answers["/token"] = down
    assert await site.request(auth) == 200
    assert polls == pytest.approx([5, 15])


async def test_a_code_that_nobody_enters_needs_a_person(site: Site, autojump_clock: MockClock) -> None:
    auth, *_ = device(site, code(expires_in=12), *["authorization_pending"] * 9)
    with pytest.raises(InteractionRequired, match="not entered within 12 s") as caught:
        await site.request(auth)
    assert caught.value.url == f"{ISSUER}/device"
    auth, *_ = device(site, code(), "expired_token")
    with pytest.raises(InteractionRequired, match="expired before"):
        await site.request(auth)


async def test_numbers_that_no_clock_can_count_are_cut(site: Site, autojump_clock: MockClock) -> None:
    auth, shown, polls = device(site, code(expires_in=10**400, interval=-(10**400)))
    assert await site.request(auth) == 200
    assert (shown[0].expires_in, polls) == (1800.0, [1.0])


async def test_a_person_who_refuses_ends_it(site: Site, autojump_clock: MockClock) -> None:
    auth, *_ = device(site, code(interval="x", verification_uri_complete=None), "access_denied")
    with pytest.raises(OAuthError, match="access_denied"):
        await site.request(auth)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (code(device_code=""), "lacks device_code"),
        (code(user_code=1), "lacks device_code, user_code"),
        (code(verification_uri="javascript:x"), "names the page javascript:"),
        (code(verification_uri_complete="http://as.test/x"), "not encrypted"),
        (code(user_code="A\x1b[2J"), "cannot be shown"),
        (code(user_code="A" * 65), "cannot be shown"),
    ],
)
async def test_a_broken_answer_of_the_device_endpoint(site: Site, members: dict[str, object], reason: str) -> None:
    auth, *_ = device(site, members)
    with pytest.raises(OAuthError, match=f"{reason}.*RFC 8628"):
        await site.request(auth)


async def test_a_server_without_device_authorization(site: Site) -> None:
    auth, *_ = device(site, code())
    site.metadata.clear()
    with pytest.raises(OAuthError, match="lacks device_authorization_endpoint"):
        await site.request(auth)


async def test_a_refusal_of_the_device_endpoint(site: Site) -> None:
    auth, *_ = device(site, code())

    async def refusing(_: OAuthRequest) -> OAuthResponse:
        return refuse("invalid_scope")

    site.answers["/device"] = refusing
    with pytest.raises(OAuthError, match=r"device authorization.*invalid_scope") as caught:
        await site.request(auth)
    assert caught.value.issuer == ISSUER


# Tokens that are bound to a key.


async def test_tokens_are_bound_where_both_servers_offer_it(site: Site) -> None:
    """RFC 9449, sections 5 and 7.1."""
    site.dpop, site.nonce = True, "n1"
    store = MemoryStore()
    auth = site.client(store=store)
    assert await site.request(auth) == 200
    attempt = auth.attempt(SERVER)
    fields = [await attempt.fields("POST", f"{SERVER}?x=1") for _ in range(2)]
    claims = [claims_of(each["dpop"]) for each in fields]
    token = fields[0]["authorization"].removeprefix("DPoP ")
    assert [(each["htm"], each["htu"], each["ath"]) for each in claims] == [("POST", SERVER, token_hash(token))] * 2
    assert claims[0]["jti"] != claims[1]["jti"]
    site.revoke_access()
    assert await site.request(auth) == 200
    assert site.counts["refresh_token"] == 1
    assert await site.request(site.client(store=store)) == 200
    assert len({each.jkt for each in site.access.values()}) == 1


async def test_the_resource_server_may_want_a_nonce(site: Site) -> None:
    """RFC 9449, section 9."""
    site.dpop = True
    auth = site.client()
    await site.request(auth)
    attempt = auth.attempt(SERVER)
    wants = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": "r1"}
    await attempt.fields("POST", SERVER)
    assert await attempt.answered(401, SERVER, wants)
    assert claims_of((await attempt.fields("POST", SERVER))["dpop"])["nonce"] == "r1"
    assert not await attempt.answered(200, SERVER, {"dpop-nonce": "r2"})
    assert claims_of((await auth.attempt(SERVER).fields("GET", SERVER))["dpop"])["nonce"] == "r2"
    assert len(site.pages) == 1


async def test_the_keys_of_logins_that_failed_are_forgotten(site: Site) -> None:
    async def refusing(_: OAuthRequest) -> OAuthResponse:
        return refuse("temporarily_unavailable", 503)

    site.dpop = True
    site.answers["/token"] = refusing
    auth = site.client(grant=ClientCredentials(OAuthClient("me", client_secret="s3cret")), dpop=True)
    for _ in range(10):
        with pytest.raises(OAuthError, match="temporarily_unavailable"):
            await site.request(auth)
    gc.collect()
    assert sum(type(each) is DPoPState for each in gc.get_objects()) <= 3


async def test_binding_can_be_switched_off_and_insisted_on(site: Site) -> None:
    site.dpop = True
    assert await site.request(site.client(dpop=False)) == 200
    assert all("dpop" not in each.headers for each in site.requests)
    site.dpop = False
    auth = site.client(dpop=True)

    async def unbound(_: OAuthRequest) -> OAuthResponse:
        return answer({"access_token": "t", "token_type": "Bearer"})

    site.answers["/token"] = unbound
    with pytest.raises(OAuthError, match=r"did not bind the token.*RFC 9449, section 5"):
        await site.request(auth)


async def test_without_its_library_tokens_are_not_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.dpop = True
    monkeypatch.setattr("trioxport.auth.oauth.authorizer.find_spec", lambda _: None)
    assert await site.request(site.client()) == 200
    assert all("dpop" not in each.headers for each in site.requests)


async def test_the_key_of_a_login_outlives_its_access_token(site: Site) -> None:
    site.dpop = True
    site.needed = {"x": frozenset({"b"})}
    auth = site.client()
    await site.request(auth)
    assert await site.request(auth, "x") == 200
    assert len({each.jkt for each in site.access.values()}) == 1
    assert attrs.asdict(next(iter(site.access.values())))["jkt"]
