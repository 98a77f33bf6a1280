"""Which client asks an HTTP server: the address behind proxies, and how often it may show a token that is not good."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import calling, modern
from tests.support.recording_handler import serving
from trioxport import Request, UsageError, open_transport
from trioxport.layers import Rate
from trioxport.transports._access.rates import Rates
from trioxport.transports._access.request import AccessRefused
from trioxport.transports.http.server import HttpServer, ProtectedResource, TrustedProxies
from trioxport.transports.websocket import WebSocket

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"


async def ada(token: str) -> str | None:
    return "ada" if token == "good" else None


# Clients behind proxies.


@pytest.mark.parametrize(
    ("fields", "client", "scheme"),
    [
        ({}, "10.0.0.1:4000", None),
        ({"x-forwarded-for": "203.0.113.9"}, "203.0.113.9", None),
        ({"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}, "203.0.113.9", "https"),
        ({"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "gopher"}, "203.0.113.9", None),
        ({"x-forwarded-for": "6.6.6.6, 203.0.113.9, 10.1.1.1"}, "203.0.113.9", None),
        ({"x-forwarded-for": "10.9.9.9, 10.1.1.1"}, "10.9.9.9", None),
        ({"x-forwarded-for": "203.0.113.9:1234"}, "203.0.113.9:1234", None),
        ({"x-forwarded-for": "[2001:db8::1]:1234"}, "[2001:db8::1]:1234", None),
        ({"x-forwarded-for": "2001:db8::1"}, "[2001:db8::1]", None),
        ({"x-forwarded-for": "::ffff:203.0.113.9"}, "203.0.113.9", None),
        ({"x-forwarded-for": "unknown"}, "10.0.0.1:4000", None),
        ({"x-forwarded-for": "6.6.6.6, garbage"}, "10.0.0.1:4000", None),
        ({"x-forwarded-for": "fe80::1%any text"}, "10.0.0.1:4000", None),
        ({"x-forwarded-for": ""}, "10.0.0.1:4000", None),
        ({"forwarded": "for=6.6.6.6"}, "10.0.0.1:4000", None),
    ],
)
def test_x_forwarded_for(fields: dict[str, str], client: str, scheme: str | None) -> None:
    assert TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1:4000", fields) == (client, scheme)


@pytest.mark.parametrize(
    ("value", "client", "scheme"),
    [
        ("for=203.0.113.9", "203.0.113.9", None),
        ('For="[2001:db8::1]:4711";proto=https', "[2001:db8::1]:4711", "https"),
        ('for="6.6.6.6, for=6.6.6.7", for=203.0.113.9;by=10.0.0.1;host=x', "203.0.113.9", None),
        ("for=6.6.6.6, for=_hidden", "10.0.0.1:4000", None),
        ("for=unknown", "10.0.0.1:4000", None),
        ("for=203.0.113.9;proto=http, for=10.1.1.1;proto=https", "203.0.113.9", "http"),
        ("for=203.0.113.9:1234 ; proto=https", "203.0.113.9:1234", "https"),
        ("=;,,;=", "10.0.0.1:4000", None),
        ("for=6.6.6.6;for=6.6.6.7", "10.0.0.1:4000", None),
        ('for=6.6.6.6;x=", for="203.0.113.9:1234";proto=http', "10.0.0.1:4000", None),  # a client's open quote, and
        ('for=6.6.6.6;x=", for=203.0.113.9;by="[::1]"', "10.0.0.1:4000", None),  # what a proxy added behind it
        ('for=6.6.6.6;x=", for=203.0.113.9', "10.0.0.1:4000", None),
    ],
)
def test_forwarded(value: str, client: str, scheme: str | None) -> None:
    proxies = TrustedProxies(["10.0.0.0/8"], header="forwarded")
    assert proxies.client("10.0.0.1:4000", {"forwarded": value, "x-forwarded-for": "6.6.6.6"}) == (client, scheme)


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
@pytest.mark.parametrize("peer", ["10.0.0.1:4000", "192.0.2.1:4000"])
@pytest.mark.parametrize("piece", ["a", " ", ",", '"', "=", "1,", "for=1.2.3.4;"])
def test_a_header_costs_no_more_than_its_length(header: Any, peer: str, piece: str) -> None:
    proxies = TrustedProxies(["10.0.0.0/8"], header=header)
    value = piece * (16_000 // len(piece))
    began = time.perf_counter()
    for _ in range(5):
        assert proxies.client(peer, {header: value})[0] == peer
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("peer", ["192.0.2.1:4000", "[2001:db8::1]:4000", None, "a socket"])
def test_a_peer_that_is_no_trusted_proxy_is_the_client(peer: str | None) -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert proxies.client(peer, {"x-forwarded-for": "203.0.113.9"}) == (peer, None)


def test_networks_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="a trusted proxy is no network"):
        HttpServer(ANYWHERE, trusted_proxies=["proxy.example"])
    with pytest.raises(TypeError, match="not a text"):
        TrustedProxies("10.0.0.0/8")


@pytest.mark.parametrize("trusted", [(), ["127.0.0.1"]])
async def test_rates_and_info_go_by_the_client_behind_a_trusted_proxy(trusted: Any) -> None:
    config = HttpServer(ANYWHERE, rate=Rate(1, per=60), trusted_proxies=trusted)
    statuses: list[int] = []
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            for client in ("203.0.113.1", "203.0.113.2"):
                async with calling(served.url, modern("hello"), **{"X-Forwarded-For": client}) as reply:
                    statuses.append(reply.status)
    seen = [info.peer for info in served.infos]
    if trusted:
        assert (statuses, seen) == ([200, 200], ["203.0.113.1", "203.0.113.2"])
    else:
        assert statuses == [200, 429]
        assert str(seen[0]).startswith("127.0.0.1:")


async def test_a_websocket_at_the_endpoint_goes_by_the_client_behind_a_trusted_proxy() -> None:
    config = HttpServer(ANYWHERE, websocket=True, trusted_proxies=["127.0.0.1"])
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            target = WebSocket(served.url.replace("http", "ws"), headers={"X-Forwarded-For": "203.0.113.1"})
            async with open_transport(target) as (tx, rx):
                await tx.send(Request(1, "hello"))
                await rx.receive()
    assert served.infos[0].peer == "203.0.113.1"


@pytest.mark.parametrize(
    ("scheme", "host", "status"),
    [("https", "mcp.example.com", 200), ("http", "mcp.example.com", 403), ("https", "evil.example", 421)],
)
async def test_the_servers_own_origin_and_host_are_those_that_the_client_sees(
    scheme: str, host: str, status: int
) -> None:
    config = HttpServer(ANYWHERE, hosts=["mcp.example.com"], trusted_proxies=["127.0.0.1"])
    forwarded = {"X-Forwarded-For": "203.0.113.1", "X-Forwarded-Proto": scheme, "X-Forwarded-Host": "mcp.example.com"}
    fields = {**forwarded, "host": host, "origin": "https://mcp.example.com"}
    with trio.fail_after(BOUND):
        async with serving(config) as served, calling(served.url, modern("hello"), **fields) as reply:
            assert reply.status == status


# Guessed tokens.


async def test_guessed_tokens_are_charged_to_the_address_and_not_even_looked_at() -> None:
    looked: list[str] = []

    async def verify(token: str) -> str | None:
        looked.append(token)
        return await ada(token)

    config = HttpServer(ANYWHERE, rate=Rate(3, per=60), verify=ProtectedResource(verify))
    statuses: list[int] = []
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            for number in range(10):
                async with calling(served.url, modern("hello"), Authorization=f"Bearer guess-{number}") as reply:
                    statuses.append(reply.status)
            assert reply.headers["retry-after"] == "20"
    assert statuses == [401] * 3 + [429] * 7
    assert len(looked) == 3


@pytest.mark.parametrize("token", ["guess", "good"])
async def test_as_many_tokens_are_looked_at_once_as_the_address_has_requests_left(token: str) -> None:
    looked = running = most = 0
    go = trio.Event()
    statuses: list[int] = []

    async def verify(token: str) -> str | None:
        nonlocal looked, running, most
        looked, running = looked + 1, running + 1
        most = max(most, running)
        await go.wait()
        await trio.lowlevel.checkpoint()
        running -= 1
        return f"{token}-{looked}" if token == "good" else None

    config = HttpServer(ANYWHERE, rate=Rate(3, per=60), verify=ProtectedResource(verify))

    async def ask() -> None:
        async with calling(served.url, modern("hello"), Authorization=f"Bearer {token}") as reply:
            statuses.append(reply.status)

    with trio.fail_after(BOUND):
        async with serving(config) as served, trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.2)
            assert running == 3
            go.set()
    assert most == 3
    if token == "good":
        assert (looked, statuses) == (12, [200] * 12)
    else:
        assert (looked, sorted(statuses)) == (3, [401] * 3 + [429] * 9)


async def test_a_check_that_is_cancelled_makes_room_for_the_next(autojump_clock: trio.testing.MockClock) -> None:
    rates = Rates(Rate(2, per=60))

    async def check() -> None:
        await trio.sleep(5)

    with trio.move_on_after(1) as cut:
        await rates.guard("203.0.113.1", check)
    assert cut.cancelled_caught
    with trio.fail_after(6):
        await rates.guard("203.0.113.1", check)


async def test_checks_that_are_cancelled_are_charged_to_the_address(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rates = Rates(Rate(2, per=60))
    for _ in range(2):
        with trio.move_on_after(0.01) as cut:
            await rates.guard("203.0.113.1", trio.sleep_forever)
        assert cut.cancelled_caught
    with pytest.raises(AccessRefused, match="Too many requests"):
        await rates.guard("203.0.113.1", trio.lowlevel.checkpoint)


async def test_a_client_may_ask_without_a_token_first_and_learn_where_to_get_one() -> None:
    config = HttpServer(ANYWHERE, rate=Rate(1, per=60), verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            async with calling(served.url, modern("hello")) as reply:
                assert reply.status == 401
            async with calling(served.url, modern("hello"), Authorization="Bearer good") as reply:
                assert reply.status == 200


async def test_good_tokens_are_not_charged_to_the_address() -> None:
    config = HttpServer(ANYWHERE, rate=Rate(3, per=60), verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            statuses: list[int] = []
            for token in ("good", "good", "bad", "bad", "good"):
                async with calling(served.url, modern("hello"), Authorization=f"Bearer {token}") as reply:
                    statuses.append(reply.status)
    assert statuses == [200, 200, 401, 401, 200]
