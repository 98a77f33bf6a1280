"""Operating an HTTP server: proxies in front, guessed tokens, logs, counters, renewed certificates, large bodies."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme
from http_served import serving
from raw_http import Conversation, asking, calling, initialized, modern, modern_fields, talking

from trioxport import Limits, UsageError, open_transport, serve_transport
from trioxport.auth import TLSOptions, tls
from trioxport.demo import serve_demo
from trioxport.layers import Metrics, Rate
from trioxport.transports.http.server import Bounds, HttpServer, ProtectedResource, TrustedProxies
from trioxport.transports.http.server._rates import Rates
from trioxport.transports.stream import Tls
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
    rates = Rates(Rate(1, per=60))

    async def check() -> None:
        await trio.sleep(5)

    with trio.move_on_after(1) as cut:
        await rates.guard("203.0.113.1", check)
    assert cut.cancelled_caught
    with trio.fail_after(6):
        await rates.guard("203.0.113.1", check)


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


# Logs and counters.


async def test_a_server_says_where_it_serves_and_when_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    with trio.fail_after(BOUND):
        for target in (ANYWHERE, "tcp://127.0.0.1:0", "ws://127.0.0.1:0/"):
            async with trio.open_nursery() as nursery:
                [address] = await nursery.start(serve_transport, serve_demo, target)
                assert f"serving {address}" in caplog.text
                assert "stopped serving" not in caplog.text
                nursery.cancel_scope.cancel()
            assert f"{target}: stopped serving" in caplog.text
            caplog.clear()


async def test_the_access_log_has_a_line_for_each_request_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport.access")
    config = HttpServer(ANYWHERE, access_log=True, verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            async with calling(f"{served.url}?token=s3cret", modern("hello"), Authorization="Bearer good") as reply:
                body = await reply.body()
            async with calling(served.url, modern("hello"), Authorization="Bearer s3cret"):
                pass
            client = await initialized(served.url, authorization="Bearer good")
    answered, refused, opened, *_ = [each for each in caplog.records if each.name == "trioxport.access"]
    seen = vars(answered)
    assert (seen["http_method"], seen["http_path"], seen["http_status"]) == ("POST", "/mcp", 200)
    assert (seen["mcp_principal"], seen["mcp_method"], seen["http_bytes"]) == ("ada", "hello", len(body))
    assert seen["http_seconds"] >= 0
    assert str(seen["http_peer"]).startswith("127.0.0.1:")
    assert (vars(refused)["http_status"], vars(refused)["mcp_principal"]) == (401, None)
    assert vars(opened)["mcp_method"] == "initialize"
    assert client is not None
    assert "s3cret" not in caplog.text
    assert '"POST /mcp" 200' in answered.getMessage()


async def test_without_access_log_nothing_is_logged_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport.access")
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("hello")):
            pass
    assert not [each for each in caplog.records if each.name == "trioxport.access"]


async def test_control_characters_of_a_client_do_not_reach_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, access_log=True)) as served,
            asking(served.url, "GET", path="/a%1b%5b31m%0ab") as reply,
        ):
            assert reply.status == 404
    assert "\x1b" not in caplog.text
    assert r"\x1b[31m\x0ab" in caplog.text


async def test_refusals_are_counted_by_reason_and_logged_without_flooding(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioxport")
    metrics = Metrics()
    config = HttpServer(ANYWHERE, verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config, layers=[metrics]) as served:
            for _ in range(25):
                async with calling(served.url, modern("hello"), Authorization="Bearer bad"):
                    pass
            async with calling(served.url, modern("hello"), host="evil.example"):
                pass
            async with calling(served.url, modern("hello"), Origin="https://evil.example"):
                pass
            async with talking(served.url) as reply:
                await reply.stream.send_all(b"GARBAGE\r\n\r\n")
                await reply.head()
            assert served.received == []
    assert metrics.snapshot().refusals == {
        "401 Unauthorized": 25,
        "421 Misdirected Request": 1,
        "403 Forbidden (Origin)": 1,
        "400 Bad Request": 1,
    }
    lines = [each.getMessage() for each in caplog.records]
    assert len([line for line in lines if "401" in line]) == 2
    assert any("(10 so far)" in line for line in lines)
    assert any("the Host is 'evil.example'; add it to hosts=" in line for line in lines)
    assert any("the Origin is 'https://evil.example'; add it to origins=" in line for line in lines)


async def test_failed_tls_handshakes_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics, ca = Metrics(), trustme.CA()
    files = certificate(ca, tmp_path)
    with trio.fail_after(BOUND):
        for target in (
            HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=files)),
            Tls("127.0.0.1", 0, cert=files),
            WebSocket("wss://127.0.0.1:0/", tls=TLSOptions(cert=files)),
        ):
            async with serving(target, layers=[metrics]) as served:  # type: ignore[arg-type]
                port = int(served.url.rpartition(":")[2].partition("/")[0])
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                async with stream:
                    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                    await drained(stream)
                while not metrics.snapshot().refusals.get("TLSError"):
                    await trio.lowlevel.checkpoint()
            assert metrics._totals.refusals.pop("TLSError") == 1


async def drained(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        return


async def test_a_mounted_websocket_counts_its_refusals() -> None:
    metrics = Metrics()
    config = HttpServer(ANYWHERE, websocket=True, verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config, layers=[metrics]) as served:
            with pytest.raises(Exception, match="401"):
                async with open_transport(served.url.replace("http", "ws")):
                    pass
    assert metrics.snapshot().refusals["401 Unauthorized"] == 1


# Renewed certificates.


def certificate(ca: trustme.CA, folder: Path, name: str = "127.0.0.1") -> str:
    """The path of a file with a certificate for ``name`` and its key, made anew."""
    new = folder / "new.pem"
    ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(new)
    new.replace(folder / "server.pem")
    return str(folder / "server.pem")


@pytest.mark.parametrize("binding", ["https", "tls", "wss"])
async def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(
    binding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "RENEWAL_CHECK_SECONDS", 0.0)
    first, second = trustme.CA(), trustme.CA()
    file = certificate(first, tmp_path)
    target: Any = {
        "https": HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=file)),
        "tls": Tls("127.0.0.1", 0, cert=file),
        "wss": WebSocket("wss://127.0.0.1:0/", tls=TLSOptions(cert=file)),
    }[binding]
    with trio.fail_after(BOUND):
        async with serving(target) as served:
            port = int(served.url.rpartition(":")[2].partition("/")[0])
            assert await trusted_by(first, port)
            certificate(second, tmp_path)
            assert await trusted_by(second, port)
            assert not await trusted_by(first, port)
            await trio.Path(file).write_text("broken")
            assert await trusted_by(second, port)
            assert await trusted_by(second, port)
    assert caplog.text.count("the renewed certificate is not used") == 1


async def trusted_by(ca: trustme.CA, port: int) -> bool:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1", https_compatible=True
    )
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        return False
    else:
        return True
    finally:
        await trio.aclose_forcefully(stream)


# Bodies.


@asynccontextmanager
async def half_sent(url: str, size: int) -> AsyncGenerator[Conversation]:
    """A connection on which ``size`` bytes of a request's body arrived, and one more is due."""
    async with talking(url) as slow:
        fields = "".join(f"{name}: {value}\r\n" for name, value in modern_fields(modern("hello")).items())
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Content-Length: {size + 1}\r\n\r\n"
        await slow.stream.send_all(head.encode() + b" " * size)
        await trio.testing.wait_all_tasks_blocked(0.05)
        yield slow


async def test_unfinished_bodies_are_bounded_together() -> None:
    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=200_000))
    large = modern("hello", ballast="x" * 170_000)
    with trio.fail_after(BOUND):
        async with serving(config, limits=Limits(max_message_size=300_000)) as served:
            async with half_sent(served.url, 200_000), calling(served.url, large) as reply:
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with calling(served.url, large) as reply:
                assert reply.status == 200


async def test_large_unfinished_bodies_keep_no_small_request_out() -> None:
    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=100_000))
    with trio.fail_after(BOUND):
        async with (
            serving(config, limits=Limits(max_message_size=300_000)) as served,
            half_sent(served.url, 99_990),
            half_sent(served.url, 10 + 2 * 64 * 1024),
            calling(served.url, modern("hello", ballast="x" * 60_000)) as reply,
        ):
            assert reply.status == 200


async def test_a_body_that_is_alone_may_be_as_large_as_a_message() -> None:
    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=100_000))
    with trio.fail_after(BOUND):
        async with (
            serving(config, limits=Limits(max_message_size=500_000)) as served,
            calling(served.url, modern("hello", ballast="x" * 400_000)) as reply,
        ):
            assert reply.status == 200
