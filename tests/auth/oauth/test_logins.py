"""Logins as a client sees them: first requests, refreshes, step-ups, and servers that move or refuse."""

from __future__ import annotations

import logging
import time
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.authorization_server import ISSUER, REDIRECT, SERVER, Site, answer, connect, refuse
from trioxport import InteractionRequired, OAuthError, UsageError
from trioxport.auth.oauth import MemoryStore, OAuth, OAuthClient, OutOfBand
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse
from trioxport.auth.secret import Secret


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return connect(monkeypatch, Site())


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> MockClock:
    """The clock of the wall goes with that of Trio."""
    monkeypatch.setattr(time, "time", lambda: 1e9 + autojump_clock.current_time())
    return autojump_clock


def asked(page: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(page).query))


# The first request.


async def test_a_challenge_leads_to_a_login_and_the_person_is_asked_once(site: Site) -> None:
    auth = site.client()
    assert [await site.request(auth) for _ in range(3)] == [200, 200, 200]
    assert len(site.pages) == 1
    assert site.sent() == ["/register", "/token"]


async def test_a_server_that_asks_for_nothing_gets_no_token(site: Site) -> None:
    assert await site.client().attempt(SERVER).fields("POST", SERVER) == {}
    assert site.requests == []


async def test_the_resource_is_in_every_request_for_tokens(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    site.revoke_access()
    await site.request(auth)
    assert asked(site.pages[0])["resource"] == SERVER
    assert [(each["grant_type"], each["resource"]) for each in site.forms] == [
        ("authorization_code", SERVER),
        ("refresh_token", SERVER),
    ]


async def test_the_token_is_in_the_header_of_every_request_and_in_no_url(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    for _ in range(2):
        fields = await auth.attempt(SERVER).fields("POST", SERVER)
        assert fields["authorization"].startswith("Bearer access-1-")
    assert not any("access-" in each.url for each in site.requests)


async def test_a_token_goes_to_no_other_server(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    for other in ("https://other.test/mcp", "https://mcp.test/other"):
        assert await auth.attempt(other).fields("POST", other) == {}


async def test_a_login_can_be_made_before_the_first_request(site: Site) -> None:
    auth = site.client()
    login = await auth.login(SERVER)
    assert (login.server.issuer, login.client.client_id, login.resource) == (ISSUER, "client-1", SERVER)
    assert "access-" not in repr(login) and "refresh-" not in repr(login)
    assert await auth.login(SERVER) == login
    assert await site.request(auth) == 200
    assert len(site.pages) == 1


async def test_after_a_logout_the_person_is_asked_again_and_the_client_is_kept(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    await auth.logout(SERVER)
    await site.request(auth)
    assert len(site.pages) == 2
    assert site.counts["registrations"] == 1


async def test_two_programs_with_one_store_ask_once(site: Site) -> None:
    store = MemoryStore()
    await site.request(site.client(store=store))
    assert await site.request(site.client(store=store)) == 200
    assert len(site.pages) == 1


async def test_many_first_requests_ask_once(site: Site) -> None:
    auth, answers = site.client(), list[int]()

    async def call() -> None:
        answers.append(await site.request(auth))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(call)
    assert answers == [200] * 50
    assert len(site.pages) == 1


# Scopes.


@pytest.mark.parametrize(
    ("challenged", "supported", "own", "expected"),
    [
        ('Bearer scope="a b"', ["c"], (), "a b"),
        ("Bearer", ["c", "d"], (), "c d"),
        ("Bearer", None, (), None),
        ("Bearer", ["c"], ("e",), "e"),
        ('Bearer scope="a"', ["c"], ("e",), "a e"),
        ("Bearer", [], (), None),
    ],
)
async def test_the_scopes_are_those_of_the_challenge_or_else_those_of_the_metadata(
    site: Site, challenged: str, supported: list[str] | None, own: tuple[str, ...], expected: str | None
) -> None:
    site.challenge = challenged
    if supported is not None:
        site.resource_metadata["scopes_supported"] = supported
    await site.request(site.client(scopes=own))
    assert asked(site.pages[0]).get("scope") == expected


async def test_offline_access_is_asked_for_where_the_authorization_server_lists_it(site: Site) -> None:
    site.challenge = 'Bearer scope="a"'
    site.metadata["scopes_supported"] = ["a", "offline_access"]
    await site.request(site.client())
    assert asked(site.pages[0])["scope"] == "a offline_access"
    assert asked(site.pages[0])["prompt"] == "consent"
    assert list(site.registered["client-1"]["grant_types"]) == ["authorization_code", "refresh_token"]


async def test_a_step_up_asks_for_the_union_of_the_scopes(site: Site) -> None:
    site.challenge = 'Bearer scope="read"'
    site.needed = {"tools/call write": frozenset({"write"})}
    auth = site.client()
    assert await site.request(auth) == 200
    assert await site.request(auth, "tools/call write") == 200
    assert asked(site.pages[1])["scope"] == "read write"
    assert await site.request(auth, "tools/call write") == 200
    assert len(site.pages) == 2


async def test_a_step_up_that_does_not_help_is_not_repeated(clocked: MockClock, site: Site) -> None:
    site.needed, site.granted = {"tools/call write": frozenset({"write"})}, "read"
    auth = site.client()
    assert await site.request(auth, "tools/call write") == 403
    pages = len(site.pages)
    assert pages <= 3
    assert [await site.request(auth, "tools/call write") for _ in range(5)] == [403] * 5
    assert len(site.pages) <= pages + 1
    before = len(site.pages)
    await trio.sleep(1200)
    await site.request(auth, "tools/call write")
    assert len(site.pages) > before


async def test_the_memory_of_step_ups_is_bounded(site: Site) -> None:
    session = site.client().session(SERVER)
    assert all(session.may_upgrade(f"tools/call {number}", frozenset()) for number in range(1500))
    assert not session.may_upgrade("tools/call 1499", frozenset())
    assert session.may_upgrade("tools/call 0", frozenset())


async def test_a_403_of_another_cause_is_the_callers(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    attempt = auth.attempt(SERVER)
    await attempt.fields("POST", SERVER)
    for header in ('Bearer error="access_denied"', "Basic", "", 'DPoP error="insufficient_scope'):
        assert not await attempt.answered(403, SERVER, {"www-authenticate": header})
    assert not await attempt.answered(403, SERVER, {})


# Refreshes.


async def test_an_expired_token_is_refreshed_before_the_request(clocked: MockClock, site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    await trio.sleep(7200)
    assert await site.request(auth) == 200
    assert (site.counts["refresh_token"], len(site.pages)) == (1, 1)


async def test_the_scopes_are_in_a_refresh(site: Site) -> None:
    site.challenge = 'Bearer scope="a b"'
    auth = site.client()
    await site.request(auth)
    site.revoke_access()
    await site.request(auth)
    assert site.forms[-1]["scope"] == "a b"


async def test_a_token_is_refreshed_before_it_expires_and_holds_nothing_up(clocked: MockClock, site: Site) -> None:
    auth, may_answer = site.client(), trio.Event()

    async def slow(request: OAuthRequest) -> None:
        if b"refresh_token" in (request.content or b""):
            await may_answer.wait()

    site.answers["/token"] = slow
    await site.request(auth)
    await trio.sleep(3600 - 30)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(1):
            assert [await site.request(auth, "", nursery.start_soon) for _ in range(5)] == [200] * 5
            fields = await auth.attempt(SERVER).fields("POST", SERVER, nursery.start_soon)
        assert "access-1-" in fields["authorization"]
        may_answer.set()
    assert "access-2-" in (await auth.attempt(SERVER).fields("POST", SERVER))["authorization"]
    assert site.counts["refresh_token"] == 1


async def test_without_a_nursery_one_request_refreshes_early(clocked: MockClock, site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    await trio.sleep(3600 - 30)
    assert await site.request(auth) == 200
    assert site.counts["refresh_token"] == 1


async def test_a_short_lived_token_is_refreshed_at_half_its_life(clocked: MockClock, site: Site) -> None:
    site.lifetime = 10
    auth = site.client()
    await site.request(auth)
    await trio.sleep(4)
    await site.request(auth)
    assert site.counts["refresh_token"] == 0
    await trio.sleep(2)
    await site.request(auth)
    assert site.counts["refresh_token"] == 1


async def test_a_refused_early_refresh_leaves_the_valid_token_alone(
    clocked: MockClock, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    auth, refusals = site.client(store=MemoryStore()), 0

    async def refusing(request: OAuthRequest) -> OAuthResponse | None:
        nonlocal refusals
        if b"grant_type=refresh_token" not in (request.content or b""):
            return None
        refusals += 1
        return refuse("temporarily_unavailable", 503)

    site.answers["/token"] = refusing
    await site.request(auth)
    await trio.sleep(3600 - 50)
    with caplog.at_level(logging.WARNING, "trioxport.auth"):
        assert [await site.request(auth) for _ in range(5)] == [200] * 5
    assert refusals == 1
    assert "is not refreshed yet" in caplog.text and "access-" not in caplog.text and "refresh-" not in caplog.text
    await trio.sleep(12)
    assert await site.request(auth) == 200
    assert refusals == 2
    site.answers.clear()
    await trio.sleep(60)
    assert await site.request(auth) == 200
    assert len(site.pages) == 1


async def test_a_living_token_survives_the_refusal_of_its_refresh_token(clocked: MockClock, site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    site.refresh.clear()
    await trio.sleep(3600 - 30)
    assert [await site.request(auth) for _ in range(5)] == [200] * 5
    assert site.counts["refresh_token"] == 1
    await trio.sleep(60)
    assert await site.request(auth) == 200
    assert len(site.pages) == 2


@pytest.mark.parametrize("code", ["invalid_client", "invalid_request", "unauthorized_client", "invalid_scope"])
async def test_no_other_refusal_deletes_the_login(clocked: MockClock, site: Site, code: str) -> None:
    store = MemoryStore()
    auth = site.client(store=store)
    await site.request(auth)

    async def refusing(request: OAuthRequest) -> OAuthResponse | None:
        return refuse(code, error_description=f"about {dict(parse_qsl((request.content or b'').decode()))}")

    site.answers["/token"] = refusing
    await trio.sleep(7200)
    with pytest.raises(OAuthError, match=code) as caught:
        await site.request(auth)
    assert (caught.value.target, caught.value.issuer, caught.value.step) == (SERVER, ISSUER, "refresh")
    assert ("logout URL --client" in str(caught.value)) == (code == "invalid_client")
    assert "refresh-1" not in str(caught.value)
    site.answers.clear()
    assert await site.request(auth) == 200
    assert len(site.pages) == 1


async def test_an_invalid_grant_asks_the_person_again(clocked: MockClock, site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    site.refresh.clear()
    await trio.sleep(7200)
    assert await site.request(auth) == 200
    assert len(site.pages) == 2


async def test_an_invalid_grant_does_not_delete_the_tokens_of_another_process(clocked: MockClock, site: Site) -> None:
    """The other process refreshes behind the fence, as one with another library may."""
    store = MemoryStore()
    mine, theirs = site.client(store=store), site.client(store=store)
    await site.request(mine)
    await trio.sleep(7200)
    newer = attrs.evolve(await theirs.login(SERVER), expires_at=time.time() + 3600)

    stale = attrs.evolve(newer, access_token=None, refresh_token=newer.access_token)
    from trioxport.auth.oauth.logins import to_text

    await store.write(f"login:{SERVER}", to_text(stale))

    async def lost(_: OAuthRequest) -> OAuthResponse:
        await store.write(f"login:{SERVER}", to_text(newer))
        return refuse("invalid_grant")

    site.answers["/token"] = lost
    assert await site.request(mine) == 200
    assert len(site.pages) == 1


async def test_a_token_that_another_process_has_refreshed_is_adopted(clocked: MockClock, site: Site) -> None:
    store = MemoryStore()
    mine, theirs = site.client(store=store), site.client(store=store)
    assert [await site.request(each) for each in (mine, theirs)] == [200, 200]
    await trio.sleep(7200)
    assert [await site.request(each) for each in (mine, theirs)] == [200, 200]
    site.revoke_access()
    assert [await site.request(each) for each in (mine, theirs)] == [200, 200]
    assert (site.counts["refresh_token"], site.counts["reuses"]) == (2, 0)


async def test_a_refresh_token_that_is_not_rotated_stays(site: Site) -> None:
    site.rotates = False
    auth = site.client()
    for _ in range(3):
        assert await site.request(auth) == 200
        site.revoke_access()
    assert site.counts["refresh_token"] == 2


async def test_a_token_without_a_refresh_token_is_replaced_by_asking(clocked: MockClock, site: Site) -> None:
    site.gives_refresh_tokens = False
    auth = site.client()
    await site.request(auth)
    await trio.sleep(7200)
    assert await site.request(auth) == 200
    assert len(site.pages) == 2


async def test_an_early_refresh_is_not_tried_without_a_refresh_token(clocked: MockClock, site: Site) -> None:
    site.gives_refresh_tokens = False
    auth = site.client()
    await site.request(auth)
    await trio.sleep(3600 - 30)
    assert await site.request(auth) == 200
    assert site.counts["refresh_token"] == 0


async def test_a_server_that_refuses_fresh_tokens_asks_nobody_again_and_again(site: Site) -> None:
    site.gives_refresh_tokens = False
    auth = site.client()
    await auth.login(SERVER)
    site.revoke_access()
    with pytest.raises(OAuthError, match=r"refuses a token that was issued 0 s ago.*another audience") as caught:
        await site.request(auth)
    assert caught.value.section is None
    assert len(site.pages) == 1


async def test_a_server_that_refuses_everything_gets_a_bounded_number_of_requests(site: Site) -> None:
    auth = site.client()
    await auth.login(SERVER)
    site.refuses_all = True
    with pytest.raises(OAuthError, match="refuses a token"):
        await site.request(auth)
    assert site.counts["refresh_token"] == 1


async def test_a_login_that_another_process_has_ended_is_made_anew(clocked: MockClock, site: Site) -> None:
    store = MemoryStore()
    mine, theirs = site.client(store=store), site.client(store=store)
    await site.request(mine)
    await theirs.logout(SERVER)
    await trio.sleep(7200)
    assert await site.request(mine) == 200
    assert len(site.pages) == 2


async def test_a_refresh_token_that_another_process_has_lost_is_not_missed(clocked: MockClock, site: Site) -> None:
    store = MemoryStore()
    mine, theirs = site.client(store=store), site.client(store=store)
    assert [await site.request(each) for each in (mine, theirs)] == [200, 200]
    site.refresh.clear()
    await trio.sleep(3600 - 30)
    await site.request(theirs)
    await trio.sleep(60)
    assert await site.request(mine) == 200
    assert (site.counts["refresh_token"], len(site.pages)) == (1, 2)


async def test_an_expired_login_in_the_store_without_a_refresh_token(clocked: MockClock, site: Site) -> None:
    store, site.gives_refresh_tokens = MemoryStore(), False
    await site.request(site.client(store=store))
    await trio.sleep(7200)
    assert await site.request(site.client(store=store)) == 200
    assert len(site.pages) == 2


async def test_a_request_that_was_refused_with_an_old_token_is_sent_with_the_new_one(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    late, early = auth.attempt(SERVER), auth.attempt(SERVER)
    for each in (late, early):
        await each.fields("POST", SERVER)
    for each in (early, late):
        assert await each.answered(401, SERVER, {"www-authenticate": "Bearer"})
    assert site.counts["refresh_token"] == 1


async def test_a_request_is_repeated_a_bounded_number_of_times(site: Site) -> None:
    auth = site.client()
    attempt = auth.attempt(SERVER)
    challenge = {"www-authenticate": "Bearer"}
    assert await attempt.answered(401, SERVER, challenge)
    assert await attempt.answered(401, SERVER, challenge)
    assert not await attempt.answered(401, SERVER, challenge)


async def test_a_second_consent_that_waited_for_the_first_is_not_asked(site: Site) -> None:
    """Several programs ask at the same time: the others find the login of the first."""
    store = MemoryStore()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(site.request, site.client(store=store))
    assert len(site.pages) == 1


# Many requests at once.


async def test_a_thousand_requests_while_the_token_expires_refresh_once(clocked: MockClock, site: Site) -> None:
    auth, waits = site.client(), list[float]()

    async def slow(_: OAuthRequest) -> None:
        await trio.sleep(2)

    await site.request(auth)
    site.answers["/token"] = slow
    await trio.sleep(3600)

    async def call() -> None:
        began = trio.current_time()
        assert await site.request(auth) == 200
        waits.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(call)
    assert (len(waits), site.counts["refresh_token"]) == (1000, 1)
    assert max(waits) == pytest.approx(2)


async def test_a_thousand_requests_while_the_token_is_about_to_expire_do_not_wait(
    clocked: MockClock, site: Site
) -> None:
    auth, waits = site.client(), list[float]()

    async def slow(_: OAuthRequest) -> None:
        await trio.sleep(2)

    await site.request(auth)
    site.answers["/token"] = slow
    await trio.sleep(3590)

    async def call(delay: float) -> None:
        await trio.sleep(delay)
        began = trio.current_time()
        assert await site.request(auth, "", background.start_soon) == 200
        waits.append(trio.current_time() - began)

    async with trio.open_nursery() as background, trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(call, number / 50)
    assert (len(waits), site.counts["refresh_token"]) == (1000, 1)
    assert max(waits) == 0


async def test_a_cancelled_request_leaves_the_refresh_to_the_next(clocked: MockClock, site: Site) -> None:
    """The refresh itself is not torn apart: its result is stored, though the request is cancelled."""
    auth = site.client()
    await site.request(auth)
    began, may_answer = trio.Event(), trio.Event()

    async def slow(_: OAuthRequest) -> None:
        began.set()
        await may_answer.wait()

    site.answers["/token"] = slow
    await trio.sleep(3600)
    results = list[int]()

    async def call() -> None:
        results.append(await site.request(auth))

    async with trio.open_nursery() as first, trio.open_nursery() as second:
        first.start_soon(call)
        await began.wait()
        second.start_soon(call)
        await wait_all_tasks_blocked()
        first.cancel_scope.cancel()
        may_answer.set()
    assert site.counts["reuses"] == 0
    assert await site.request(auth) == 200
    assert (site.counts["refresh_token"], len(site.pages)) == (1, 1)


async def test_all_that_wait_get_the_failure(clocked: MockClock, site: Site) -> None:
    auth, failures = site.client(), list[OAuthError]()
    await site.request(auth)

    async def refusing(_: OAuthRequest) -> OAuthResponse:
        await trio.sleep(1)
        return refuse("invalid_client", 401)

    site.answers["/token"] = refusing
    await trio.sleep(3600)

    async def call() -> None:
        try:
            await site.request(auth)
        except OAuthError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(call)
    assert len(failures) == 20
    assert len(set(map(id, failures))) == 20
    assert {each.code for each in failures} == {"invalid_client"}


async def test_a_refresh_is_bounded_even_if_the_request_is_cancelled(clocked: MockClock, site: Site) -> None:
    auth = site.client()
    await site.request(auth)

    async def never(_: OAuthRequest) -> None:
        await trio.sleep_forever()

    site.answers["/token"] = never
    await trio.sleep(3600)
    began = trio.current_time()
    with pytest.raises(OAuthError, match="took too long"):
        await site.request(auth)
    assert trio.current_time() - began == pytest.approx(60)


# A person who is asked elsewhere.


async def test_without_a_person_the_error_names_the_page(site: Site) -> None:
    auth = OAuth(interaction=OutOfBand(REDIRECT))
    with pytest.raises(InteractionRequired, match="has to open a page") as caught:
        await site.request(auth)
    error = caught.value
    assert (error.target, error.issuer) == (SERVER, ISSUER)
    assert error.url is not None
    assert error.url.startswith(f"{ISSUER}/authorize?")
    assert not isinstance(error, OAuthError)
    login = await auth.complete(SERVER, await site.consent(error.url))
    assert login.is_alive()
    assert await site.request(auth) == 200


async def test_an_answer_that_nobody_waits_for_is_refused(site: Site) -> None:
    auth = OAuth(interaction=OutOfBand(REDIRECT))
    with pytest.raises(UsageError, match="waits for an answer"):
        await auth.complete(SERVER, f"{REDIRECT}?code=1")
    with pytest.raises(InteractionRequired) as caught:
        await site.request(auth)
    assert caught.value.url is not None
    redirected = await site.consent(caught.value.url)
    await auth.complete(SERVER, redirected)
    with pytest.raises(UsageError, match="waits for an answer"):
        await auth.complete(SERVER, redirected)


async def test_an_answer_of_another_leaves_the_request_waiting_for_its_own(site: Site) -> None:
    auth = OAuth(interaction=OutOfBand(REDIRECT))
    with pytest.raises(InteractionRequired) as caught:
        await site.request(auth)
    for forged in (f"{REDIRECT}?code=1&state=guessed", "http://[localhost"):
        with pytest.raises(OAuthError, match="cannot be trusted"):
            await auth.complete(SERVER, forged)
    assert (await auth.complete(SERVER, await site.consent(caught.value.url or ""))).is_alive()


async def test_requests_for_two_servers_wait_for_their_own_answers(site: Site) -> None:
    """2026-07-28: state, verifier and issuer are kept together for each request."""
    other = "https://mcp.test/other"

    async def about_other(_: OAuthRequest) -> OAuthResponse:
        return answer({**site.about_resource(), "resource": other})

    site.answers["/.well-known/oauth-protected-resource/other"] = about_other
    auth, pages = OAuth(interaction=OutOfBand(REDIRECT)), dict[str, str]()
    for server in (SERVER, other):
        with pytest.raises(InteractionRequired) as caught:
            await auth.login(server)
        assert caught.value.url is not None
        pages[server] = caught.value.url
    for server, page in pages.items():
        login = await auth.complete(server, await site.consent(page))
        assert login.resource == server
    assert len({asked(page)["code_challenge"] for page in pages.values()}) == 2


async def test_a_grant_completes_what_it_has_begun_only(site: Site) -> None:
    auth = OAuth(interaction=OutOfBand(REDIRECT))
    with pytest.raises(InteractionRequired):
        await auth.login(SERVER)
    context = auth.session(SERVER).authorizer._waiting
    assert context is not None
    context.pending = None
    with pytest.raises(UsageError, match="waits for an answer"):
        await auth.complete(SERVER, f"{REDIRECT}?code=1")


async def test_a_client_that_the_server_has_forgotten_is_registered_anew(site: Site) -> None:
    auth = site.client()
    await auth.login(SERVER)
    await auth.logout(SERVER)

    async def forgotten(request: OAuthRequest) -> OAuthResponse | None:
        return refuse("invalid_client", 401) if b"client_id=client-1" in (request.content or b"") else None

    site.answers["/token"] = forgotten
    with pytest.raises(OAuthError, match="registered anew with the next attempt"):
        await auth.login(SERVER)
    assert (await auth.login(SERVER)).client.client_id == "client-2"


async def test_a_client_that_was_registered_by_hand_is_not_forgotten(site: Site) -> None:
    async def refusing(_: OAuthRequest) -> OAuthResponse:
        return refuse("invalid_client", 401)

    site.answers["/token"] = refusing
    with pytest.raises(OAuthError, match="invalid_client") as caught:
        await site.client(client=OAuthClient("mine")).login(SERVER)
    assert "anew" not in str(caught.value)


async def test_a_store_that_fails_leaves_the_living_token(
    clocked: MockClock, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryStore):
        async def write(self, key: str, text: Secret | None) -> None:
            if self.is_broken:
                raise ZeroDivisionError
            await super().write(key, text)

        is_broken = False

    store = Broken()
    auth = site.client(store=store)
    await site.request(auth)
    store.is_broken = True
    await trio.sleep(3600 - 30)
    assert await site.request(auth) == 200
    assert "is not refreshed yet" in caplog.text


# The client at the authorization server.


async def test_a_client_that_is_registered_by_hand_is_used_first(site: Site) -> None:
    await site.request(site.client(client=OAuthClient("mine", issuer=ISSUER), client_document="https://me.test/c.json"))
    assert asked(site.pages[0])["client_id"] == "mine"
    assert site.counts["registrations"] == 0


async def test_a_document_is_used_where_the_authorization_server_reads_it(site: Site) -> None:
    site.metadata["client_id_metadata_document_supported"] = True
    await site.request(site.client(client_document="https://me.test/c.json"))
    assert asked(site.pages[0])["client_id"] == "https://me.test/c.json"
    assert site.counts["registrations"] == 0


async def test_else_the_client_is_registered_as_a_native_application(site: Site) -> None:
    await site.request(site.client(client_document="https://me.test/c.json", client_name="Mine"))
    members = site.registered["client-1"]
    assert members["application_type"] == "native"
    assert members["client_name"] == "Mine"
    assert members["redirect_uris"] == [REDIRECT]
    assert members["response_types"] == ["code"]
    assert members["token_endpoint_auth_method"] == "none"


async def test_else_the_application_is_asked(site: Site) -> None:
    site.metadata["registration_endpoint"] = None

    async def ask(issuer: str) -> OAuthClient:
        assert issuer == ISSUER
        return OAuthClient("asked-for")

    auth = site.client(ask_client=ask)
    await site.request(auth)
    assert asked(site.pages[0])["client_id"] == "asked-for"


async def test_else_the_error_says_what_to_do(site: Site) -> None:
    site.metadata["registration_endpoint"] = None
    with pytest.raises(OAuthError, match=r"registers no clients.*pass client=OAuthClient\("):
        await site.request(site.client())


async def test_an_expired_registration_is_made_anew(clocked: MockClock, site: Site) -> None:
    site.gives_refresh_tokens = False

    async def registering(request: OAuthRequest) -> OAuthResponse:
        site.counts["registrations"] += 1
        name, expiry = f"client-{site.counts['registrations']}", time.time() + 100
        members = {"client_id": name, "client_secret": "s", "client_secret_expires_at": expiry}
        return answer({**members, "token_endpoint_auth_method": "client_secret_basic"}, 201)

    site.answers["/register"] = registering
    auth = site.client()
    await site.request(auth)
    await trio.sleep(7200)
    await site.request(auth)
    assert [asked(page)["client_id"] for page in site.pages] == ["client-1", "client-2"]


# Another authorization server.


async def test_after_a_move_the_client_is_registered_at_the_new_authorization_server(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    site.issuer = "https://new.test"
    site.revoke_access()
    assert await site.request(auth) == 200
    urls = [each.url for each in site.requests if each.method == "POST"]
    assert urls[-2:] == ["https://new.test/register", "https://new.test/token"]
    assert not any("refresh-" in str(form) for form in site.forms)
    assert asked(site.pages[1])["client_id"] == "client-2"


async def test_after_a_move_a_client_that_was_registered_by_hand_is_not_used(site: Site) -> None:
    auth = site.client(client=OAuthClient("mine"))
    await site.request(auth)
    site.issuer = "https://new.test"
    site.revoke_access()
    with pytest.raises(OAuthError, match=r"the server has moved here.*Register the client") as caught:
        await site.request(auth)
    assert caught.value.issuer == "https://new.test"
    assert not any(each.url.startswith("https://new.test/token") for each in site.requests)


async def test_a_client_of_another_issuer_is_not_used(site: Site) -> None:
    with pytest.raises(OAuthError, match=r"the client is set up for https://elsewhere\.test"):
        await site.request(site.client(client=OAuthClient("mine", issuer="https://elsewhere.test")))
    assert site.pages == []
    moved = site.client(client=OAuthClient("mine", issuer="https://elsewhere.test"), issuer=ISSUER)
    with pytest.raises(OAuthError, match=r"the client is registered at https://elsewhere\.test"):
        await site.request(moved)


async def test_of_several_authorization_servers_the_known_one_is_used(site: Site) -> None:
    auth = site.client()
    await site.request(auth)
    site.resource_metadata["authorization_servers"] = ["https://new.test", ISSUER]
    site.revoke_access()
    assert await site.request(auth) == 200
    assert len(site.pages) == 1


# Options.


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scopes": "a b"}, r"Pass scopes=\['a', 'b'\]"),
        ({"issuer": "http://as.test"}, "not encrypted"),
        ({"client_document": "https://me.test"}, "https://HOST/PATH"),
        ({"client_document": "http://localhost/c"}, "https://HOST/PATH"),
        ({"client_document": "https://me.test/a/../c"}, "dot segments"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        OAuth(**options)  # type: ignore[arg-type]  # of wrong kinds


def test_a_grant_and_an_interaction_exclude_each_other() -> None:
    from trioxport.auth.oauth import Browser, ClientCredentials

    with pytest.raises(UsageError, match="Pass one of them"):
        OAuth(grant=ClientCredentials(OAuthClient("c", client_secret="s")), interaction=Browser())
    assert "s3cret" not in repr(OAuth(client=OAuthClient("c", client_secret="s3cret")))
