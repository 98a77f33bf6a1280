"""Tokens that the authorization server is asked about (RFC 7662)."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.raw_http import calling, modern
from tests.support.recording_handler import serving
from tests.support.scripted_http import Reply, Server
from tests.support.scripted_http import serving as scripted
from tests.support.tokens import AUDIENCE, ISSUER
from trioxport import UsageError
from trioxport.auth import InvalidToken, VerificationUnavailable
from trioxport.auth.verification import IntrospectionVerifier
from trioxport.layers import Metrics, Rate
from trioxport.transports.http.server import HttpServer

BOUND: Final = 10.0
ACTIVE: Final[dict[str, Any]] = {"active": True, "sub": "ada", "aud": AUDIENCE, "scope": "mcp", "client_id": "client-1"}


@attrs.define
class Authority:
    """An introspection endpoint: the answers by token."""

    answers: dict[str, Any]
    server: Server | None = None
    status: int = 200
    hold: trio.Event | None = None
    busy: int = 0
    most_busy: int = 0

    async def answer(self, reply: Reply) -> None:
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        if self.hold is not None:
            await self.hold.wait()
        self.busy -= 1
        [token] = parse_qs(reply.asked.body.decode())["token"]
        await reply.json(self.answers.get(token, {"active": False}), self.status)

    @property
    def count(self) -> int:
        assert self.server is not None
        return len(self.server.asked)

    def verifier(self, **options: Any) -> IntrospectionVerifier:
        assert self.server is not None
        return IntrospectionVerifier(self.server.url, "me", "s3cret", **{"audience": AUDIENCE, **options})


@asynccontextmanager
async def authority(**answers: Any) -> AsyncGenerator[Authority]:
    found = Authority({"good": ACTIVE, **answers})
    async with scripted(found.answer) as found.server:
        yield found


async def test_an_active_token_has_the_facts_of_the_answer() -> None:
    with trio.fail_after(BOUND):
        async with authority(good={**ACTIVE, "exp": int(time.time()) + 100, "cnf": {"jkt": "abc"}}) as found:
            token = await found.verifier()("good")
            assert (token.principal, token.client_id, token.scopes) == ("ada", "client-1", ("mcp",))
            assert token.key_thumbprint == "abc"
            assert token.expires_at is not None
            assert found.server is not None
            [asked] = found.server.asked
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/x-www-form-urlencoded")
    assert parse_qs(asked.body.decode()) == {"token": ["good"], "token_type_hint": ["access_token"]}
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()


async def test_credentials_are_encoded_or_sent_in_the_body() -> None:
    with trio.fail_after(BOUND):
        async with authority() as found:
            assert found.server is not None
            odd = IntrospectionVerifier(found.server.url, "me:you", "a b%", audience=AUDIENCE)
            await odd("good")
            await found.verifier(client_auth="body")("good")
            header, body = found.server.asked
    assert header.headers["authorization"] == "Basic " + base64.b64encode(b"me%3Ayou:a+b%25").decode()
    assert "authorization" not in body.headers
    assert parse_qs(body.body.decode())["client_secret"] == ["s3cret"]
    assert "s3cret" not in repr(found.verifier())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"active": False}, "not active"),
        ({"active": False, **{name: value for name, value in ACTIVE.items() if name != "active"}}, "not active"),
        ({**ACTIVE, "aud": "https://other.example"}, "another audience"),
        ({**ACTIVE, "aud": None}, "another audience"),
        ({**ACTIVE, "exp": 1}, "expired"),
        ({**ACTIVE, "nbf": 9_999_999_999}, "not valid yet"),
        ({**ACTIVE, "sub": None}, "no principal"),
        ({**ACTIVE, "iss": "https://other.example"}, "another issuer"),
    ],
)
async def test_tokens_that_are_not_for_this_server_are_invalid(answer: dict[str, Any], reason: str) -> None:
    with trio.fail_after(BOUND):
        async with authority(bad=answer) as found:
            verify = found.verifier(issuer=ISSUER)
            for _ in range(2):
                with pytest.raises(InvalidToken, match=reason):
                    await verify("bad")
            assert found.count == 1


async def test_a_client_that_acts_for_itself_is_the_principal() -> None:
    own = {"active": True, "client_id": "batch", "aud": AUDIENCE}
    with trio.fail_after(BOUND):
        async with authority(good=own) as found:
            assert (await found.verifier()("good")).principal == "batch"
            with pytest.raises(InvalidToken, match="no principal"):
                await found.verifier(principal="email")("good")


@pytest.mark.parametrize("options", [{"cached": 0}, {"cache_seconds": 0}])
async def test_an_answer_need_not_be_remembered(options: dict[str, Any]) -> None:
    with trio.fail_after(BOUND):
        async with authority() as found:
            verify = found.verifier(**options)
            for _ in range(3):
                assert (await verify("good")).principal
            assert found.count == 3


async def test_the_audience_is_left_unchecked_only_if_that_is_said() -> None:
    with trio.fail_after(BOUND):
        async with authority(good={"active": True, "sub": "ada"}) as found:
            assert (await found.verifier(audience=None)("good")).principal == "ada"
            with pytest.raises(TypeError):
                IntrospectionVerifier("https://a.example", "me", "s")  # type: ignore[call-arg]  # that is the test
            with pytest.raises(UsageError, match="https"):
                IntrospectionVerifier("http://a.example", "me", "s", audience=None)
            assert found.verifier().resource == AUDIENCE
            assert found.verifier().authorization_servers == ()
            assert found.verifier(issuer=ISSUER, audience=None).authorization_servers == (ISSUER,)
            assert found.verifier(issuer=ISSUER, audience=None).resource is None


async def test_answers_are_remembered_for_a_while(jumping_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with authority(short={**ACTIVE, "exp": int(time.time()) + 1000}) as found:
        verify = found.verifier(cache_seconds=60, negative_cache_seconds=10)
        for token, seconds in (("good", 60), ("bad", 10)):
            before = found.count
            for _ in range(3):
                if token == "good":
                    await verify(token)
                else:
                    with pytest.raises(InvalidToken):
                        await verify(token)
            assert found.count == before + 1
            await trio.sleep(seconds)
            if token == "good":
                await verify(token)
            else:
                with pytest.raises(InvalidToken):
                    await verify(token)
            assert found.count == before + 2
        await verify("short")
        wall = time.time() + 1100
        monkeypatch.setattr(time, "time", lambda: wall)
        with pytest.raises(InvalidToken, match="expired"):
            await verify("short")


async def test_only_so_many_answers_are_remembered() -> None:
    with trio.fail_after(BOUND):
        async with authority(**{f"t{number}": {**ACTIVE, "sub": f"u{number}"} for number in range(5)}) as found:
            verify = found.verifier(cached=2)
            for token in ("t0", "t1", "t2", "t2", "t1", "t0"):
                await verify(token)
            assert found.count == 4
            forgetful = found.verifier(cached=0)
            await forgetful("t0")
            await forgetful("t0")
            assert found.count == 6


async def test_one_request_serves_all_that_wait_for_a_token() -> None:
    with trio.fail_after(BOUND):
        async with authority() as found:
            verify = found.verifier()
            found.hold = trio.Event()
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(verify, "good")
                assert found.server is not None
                await found.server.until(lambda: found.count > 0)
                found.hold.set()
            assert found.count == 1


async def test_only_so_many_requests_are_sent_at_once() -> None:
    with trio.fail_after(BOUND):
        async with authority(**{f"t{number}": ACTIVE for number in range(10)}) as found:
            verify = found.verifier(concurrent=3)
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(verify, f"t{number}")
            assert found.count == 10
            assert found.most_busy <= 3


async def test_a_failure_reaches_all_that_wait_and_is_not_remembered() -> None:
    with trio.fail_after(BOUND):
        async with authority() as found:
            verify = found.verifier()
            found.hold, found.status = trio.Event(), 500
            failures: list[VerificationUnavailable] = []

            async def check() -> None:
                with pytest.raises(VerificationUnavailable, match="answers 500") as raised:
                    await verify("good")
                failures.append(raised.value)

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(check)
                assert found.server is not None
                await found.server.until(lambda: found.count > 0)
                found.hold.set()
            assert found.count == 1
            assert len({id(failure) for failure in failures}) == 10
            found.status = 200
            assert (await verify("good")).principal == "ada"


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (401, {"error": "invalid_client"}, "client_id and client_secret"),
        (403, {}, "client_id and client_secret"),
        (404, {}, "answers 404"),
        (200, {}, "without saying"),
        (200, {"active": "true"}, "without saying"),
        (200, ["active"], "without saying"),
        (302, {}, "answers 302"),
    ],
)
async def test_other_answers_tell_nothing_about_the_token(status: int, answer: Any, reason: str) -> None:
    with trio.fail_after(BOUND):
        async with authority(good=answer) as found:
            found.status = status
            with pytest.raises(VerificationUnavailable, match=reason) as raised:
                await found.verifier()("good")
            assert "s3cret" not in str(raised.value)


async def test_a_token_that_is_too_long_is_not_sent_on() -> None:
    with trio.fail_after(BOUND):
        async with authority() as found:
            with pytest.raises(InvalidToken, match="more than 16384 bytes"):
                await found.verifier()("x" * 20_000)
            assert found.count == 0


async def test_a_server_that_does_not_answer_costs_its_timeout_once(jumping_clock: MockClock) -> None:
    async with authority() as found:
        found.hold = trio.Event()
        verify = found.verifier(timeout=3, concurrent=1)
        start = trio.current_time()

        async def check(token: str) -> None:
            with pytest.raises(VerificationUnavailable):
                await verify(token)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(check, f"t{number}")
        assert trio.current_time() - start < 4


async def test_clients_are_told_to_come_back_when_tokens_cannot_be_verified() -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with authority() as found:
            found.status = 500
            config = HttpServer("http://127.0.0.1:0/mcp", verify=found.verifier(), rate=Rate(5, per=60))
            async with serving(config, layers=[metrics]) as served:
                async with calling(served.url, modern("hello"), authorization="Bearer good") as reply:
                    assert reply.status == 503
                    assert reply.headers["retry-after"] == "5"
                    assert "www-authenticate" not in reply.headers
                found.status = 200
                async with calling(served.url, modern("hello"), authorization="Bearer good") as reply:
                    assert reply.status == 200
    assert metrics.snapshot().refusals == {"503 Service Unavailable (token verification)": 1}
