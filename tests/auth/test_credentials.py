"""Secrets, keys and tokens without a transport: their texts, and the calls of a provider."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioxport import AuthenticationError, TransportError, UsageError
from trioxport.auth import ApiKey, Bearer, Secret, Token


class Provider:
    """Makes ``token-1``, ``token-2`` and so on, as soon as it may."""

    def __init__(self, expires_in: float | None = None) -> None:
        self.expires_in = expires_in
        self.calls = 0
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.failure: Exception | None = None

    async def __call__(self) -> Token:
        self.calls += 1
        number = self.calls
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return Token(f"token-{number}", self.expires_in)


async def shown(bearer: Bearer) -> str:
    return (await bearer.headers())["authorization"]


# Secrets.


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{:>40}".format, "{!r}".format, ascii])
def test_a_secret_is_not_shown(show: Callable[[Secret], str]) -> None:
    assert show(Secret("hunter2")).strip() == "***"
    assert show(Secret("hunter2")) == show(Secret("x"))


def test_a_secret_is_not_shown_where_it_is_held(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("any").info("%s %r", Secret("hunter2"), [Secret("hunter2")])
    held = (ApiKey("X-Key", "hunter2"), Bearer("hunter2"), Token("hunter2", 3), {"a": Secret("hunter2")})
    assert "hunter2" not in caplog.text + repr(held)


def test_a_secret_is_neither_pickled_nor_written_as_json() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps([Secret("hunter2")])
    with pytest.raises(TypeError):
        json.dumps(Secret("hunter2"))
    assert not hasattr(Secret("x"), "__dict__")


def test_secrets_are_values() -> None:
    assert Secret("ä") == Secret("ä") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("\ud800")}) == 2
    secret = Secret("a")
    assert copy.deepcopy([secret])[0] is copy.copy(secret) is secret
    assert secret.reveal() == "a"


# What can be a header.


async def test_an_api_key_is_a_header_of_its_own_name() -> None:
    key = ApiKey("X-Api-Key", Secret("k 1"))
    assert await key.headers() == {"x-api-key": "k 1"}
    assert not await key.refused(await key.headers())


@pytest.mark.parametrize("value", ["", "hunter2\r\nx: y", "hünter2", " hunter2", "hunter2\n"])
async def test_a_value_that_is_invalid_in_a_header_is_refused_and_not_quoted(value: str) -> None:
    async def provider() -> str:
        return value

    for make in (lambda: ApiKey("x", value), lambda: Bearer(value)):
        with pytest.raises(UsageError) as caught:
            make()
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(UsageError, match="the token is empty, or has characters"):
        await Bearer(provider).headers()
    with pytest.raises(UsageError, match="no name of a header"):
        ApiKey("x:", "k")


# Tokens.


async def test_a_fixed_token_is_not_replaced() -> None:
    for token in ("abc", Secret("abc")):
        bearer = Bearer(token)
        assert await bearer.headers() == {"authorization": "Bearer abc"}
        assert not await bearer.refused(await bearer.headers())


@pytest.mark.parametrize("made", ["abc", Secret("abc"), Token("abc")])
async def test_a_token_without_an_end_is_asked_for_once(made: str | Secret | Token, mock_clock: MockClock) -> None:
    calls = 0

    async def provider() -> str | Secret | Token:
        nonlocal calls
        calls += 1
        return made

    bearer = Bearer(provider)
    for _ in range(3):
        assert await shown(bearer) == "Bearer abc"
        mock_clock.jump(1e6)
    assert calls == 1


async def test_a_token_is_replaced_before_it_runs_out(mock_clock: MockClock) -> None:
    provider = Provider(expires_in=100)
    bearer = Bearer(provider, margin=10)
    assert await shown(bearer) == "Bearer token-1"
    mock_clock.jump(89.9)
    assert await shown(bearer) == "Bearer token-1"
    mock_clock.jump(0.2)
    assert await shown(bearer) == "Bearer token-2"


async def test_a_token_lasts_from_when_it_was_asked_for(autojump_clock: MockClock) -> None:
    calls = 0

    async def slow() -> Token:
        nonlocal calls
        calls += 1
        await trio.sleep(20)
        return Token(f"token-{calls}", 100)

    bearer = Bearer(slow, margin=10)
    assert await shown(bearer) == "Bearer token-1"
    await trio.sleep(69)
    assert await shown(bearer) == "Bearer token-1"
    await trio.sleep(2)
    assert await shown(bearer) == "Bearer token-2"


async def test_a_token_that_lasts_less_than_the_margin_is_used_for_half_its_life(mock_clock: MockClock) -> None:
    provider = Provider(expires_in=10)
    bearer = Bearer(provider, margin=30)
    await shown(bearer)
    mock_clock.jump(4.9)
    assert await shown(bearer) == "Bearer token-1"
    mock_clock.jump(0.2)
    assert await shown(bearer) == "Bearer token-2"


@pytest.mark.parametrize("expires_in", [0, -5])
async def test_a_token_that_has_run_out_already_is_used_once(expires_in: float) -> None:
    provider = Provider(expires_in)
    assert await shown(Bearer(provider)) == "Bearer token-1"
    assert provider.calls == 1


async def test_all_wait_for_one_refresh() -> None:
    provider = Provider()
    provider.may_answer = trio.Event()
    bearer = Bearer(provider)
    seen: list[str] = []

    async def ask() -> None:
        seen.append(await shown(bearer))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        provider.may_answer.set()
    assert seen == ["Bearer token-1"] * 20
    assert provider.calls == 1


async def test_all_get_the_failure_of_one_refresh_and_the_next_request_tries_again() -> None:
    provider = Provider()
    provider.may_answer = trio.Event()
    provider.failure = OSError("hunter2")
    bearer = Bearer(provider)
    failures: list[AuthenticationError] = []

    async def ask() -> None:
        with pytest.raises(AuthenticationError) as caught:
            await shown(bearer)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        provider.may_answer.set()
    assert provider.calls == 1
    assert len({id(failure) for failure in failures}) == 5
    for failure in failures:
        assert failure.reason == "the token provider failed with OSError"
        assert failure.__cause__ is provider.failure
        assert failure.outcome == "not_sent"
    provider.failure = None
    assert await shown(bearer) == "Bearer token-2"


async def test_a_refresh_survives_the_cancellation_of_its_first_request() -> None:
    provider = Provider()
    provider.may_answer = trio.Event()
    bearer = Bearer(provider)
    seen: list[str] = []

    async def ask() -> None:
        seen.append(await shown(bearer))

    first = trio.CancelScope()

    async def begin() -> None:
        with first:
            await ask()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        await wait_all_tasks_blocked()
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        provider.may_answer.set()
    assert seen == ["Bearer token-2"] * 5


async def test_many_refusals_of_one_token_make_one_refresh() -> None:
    provider = Provider()
    bearer = Bearer(provider)
    old = await bearer.headers()
    seen: list[str] = []

    async def refused() -> None:
        assert await bearer.refused(old)
        seen.append(await shown(bearer))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(refused)
    await refused()  # a latecomer, who finds that it was replaced
    assert seen == ["Bearer token-2"] * 51
    assert provider.calls == 2


async def test_a_provider_that_takes_too_long(autojump_clock: MockClock) -> None:
    provider = Provider()
    provider.may_answer = trio.Event()
    with pytest.raises(AuthenticationError, match="took more than 7 s") as caught:
        await Bearer(provider, timeout=7).headers()
    assert trio.current_time() == pytest.approx(7, abs=0.5)
    assert caught.value.retryable


async def test_a_provider_that_fails_as_transports_do() -> None:
    provider = Provider()
    provider.failure = TransportError("the token server is down", retryable=True)
    with pytest.raises(AuthenticationError, match="failed: the token server is down") as caught:
        await Bearer(provider).headers()
    assert caught.value.retryable


async def test_a_provider_that_returns_no_token() -> None:
    async def provider() -> str:
        return None  # type: ignore[return-value]  # the mistake under test

    with pytest.raises(AuthenticationError, match="a NoneType, which is no token"):
        await Bearer(provider).headers()


@pytest.mark.parametrize("times", [{"margin": -1.0}, {"timeout": 0.0}])
def test_times_that_are_none(times: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Bearer("abc", **times)
