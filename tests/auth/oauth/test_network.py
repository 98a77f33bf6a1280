"""The guard against server-side request forgery, and requests to authorization servers over the network."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from tests.support.scripted_http import Asked, Reply, serving
from trioxport import OAuthError, UsageError
from trioxport.auth import TLSOptions
from trioxport.auth.oauth import NetworkPolicy
from trioxport.auth.oauth.network import AddressGuard, area_of
from trioxport.auth.oauth.sender import GuardedSender
from trioxport.auth.oauth.steps import OAuthRequest, Purpose, get, post_form

Names = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Addresses by names; a name that is asked for again has the next ones."""
    known: Names = {}
    asked: dict[str, int] = {}

    inner = trio.socket.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if host == "127.0.0.1":
            return await inner(host, port, *_, **__)
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        number = asked[host] = asked.get(host, -1) + 1
        found = known[host][min(number, len(known[host]) - 1)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found.split()]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    return known


# Addresses.


@pytest.mark.parametrize(
    ("address", "area"),
    [
        ("8.8.8.8", "public"),
        ("2606:4700::1", "public"),
        ("127.0.0.1", "loopback"),
        ("127.8.9.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("64:ff9b::a00:1", "private"),
        ("0.0.0.0", "reserved"),
        ("::", "reserved"),
        ("224.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_the_area_of_an_address(address: str, area: str) -> None:
    assert area_of(ipaddress.ip_address(address)) == area


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "10.1.2.3", "0.0.0.0", "fd00::1"])
async def test_a_public_server_reaches_no_private_address(address: str, names: Names) -> None:
    names["mcp.test"] = ["8.8.8.8"]
    names["as.test"] = [address]
    guard = AddressGuard("https://mcp.test/mcp", NetworkPolicy())
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(OAuthError, match=r"is refused: its address is .*RFC 9728, section 7\.7.*allowed_hosts"):
        await guard.check_url(f"https://{literal}/token")
    with pytest.raises(OAuthError, match=r"as\.test is refused"):
        await guard.addresses("as.test", 443)
    lenient = AddressGuard("https://mcp.test", NetworkPolicy(allowed_hosts=["as.test", "localhost"]))
    assert await lenient.addresses("as.test", 443)
    await lenient.check_url("http://localhost:1/token")


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f.1", "127.1", "017700000001"])
async def test_an_odd_spelling_of_loopback_is_checked_as_it_resolves(spelling: str, names: Names) -> None:
    names |= {"mcp.test": ["8.8.8.8"], spelling: ["127.0.0.1"]}
    with pytest.raises(OAuthError, match="its address is loopback"):
        await AddressGuard("https://mcp.test/mcp", NetworkPolicy()).addresses(spelling, 443)


async def test_one_private_address_among_public_ones_is_enough(names: Names) -> None:
    names |= {"mcp.test": ["8.8.8.8 10.0.0.1"], "as.test": ["8.8.8.8 10.0.0.1"]}
    with pytest.raises(OAuthError, match="its address is private"):
        await AddressGuard("https://mcp.test/mcp", NetworkPolicy()).addresses("as.test", 443)


async def test_a_server_in_an_area_has_its_authorization_server_there(names: Names) -> None:
    names |= {"mcp.test": ["10.0.0.1"], "as.test": ["10.0.0.2"], "lo.test": ["127.0.0.1"]}
    guard = AddressGuard("https://mcp.test/mcp", NetworkPolicy())
    assert [str(each) for each in await guard.addresses("as.test", 443)] == ["10.0.0.2"]
    with pytest.raises(OAuthError, match="its address is loopback"):
        await guard.addresses("lo.test", 443)
    with pytest.raises(OAuthError, match="not encrypted, and the server is not on this machine"):
        await guard.check_url("http://localhost/token")
    await AddressGuard("http://localhost:1/mcp", NetworkPolicy()).check_url("http://127.0.0.1:2/token")


@pytest.mark.parametrize("url", ["javascript:x", "http://as.test/", "https://u:p@as.test/", "https://as.test/#x"])
async def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(OAuthError, match="is refused"):
        await AddressGuard("https://mcp.test/mcp", NetworkPolicy()).check_url(url)


async def test_a_name_without_an_address(names: Names) -> None:
    with pytest.raises(OAuthError, match=r"as\.test has no address") as caught:
        await AddressGuard("http://localhost/mcp", NetworkPolicy()).addresses("as.test", 443)
    assert caught.value.retryable


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_size": 0}, {"max_redirects": -1}, {"timeout": float("nan")}])
def test_a_policy_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="are positive"):
        NetworkPolicy(**options)


def test_the_password_of_a_proxy_is_not_shown() -> None:
    assert "hunter2" not in repr(NetworkPolicy(proxy="http://u:hunter2@proxy:1"))


# Requests.


@asynccontextmanager
async def answering(script: Callable[[Reply], Awaitable[None]], **options: Any) -> AsyncGenerator[tuple[str, Any]]:
    """A sender for a server on loopback, and the URL of that server."""
    async with serving(script) as found:
        base = found.url.removesuffix("/mcp")
        yield base, GuardedSender(f"{base}/mcp", NetworkPolicy(**options)).send


async def test_a_response_is_read_whole() -> None:
    asked = list[Asked]()

    async def script(reply: Reply) -> None:
        asked.append(reply.asked)
        await reply.json({"a": 1}, 201, x_one="1")

    async with answering(script) as (url, send):
        response = await send(post_form(f"{url}/token?x=1", {"a": "b c"}, {"x-two": "2"}))
    assert (response.status, response.headers["x-one"], response.body) == (201, "1", b'{"a": 1}')
    assert (asked[0].method, asked[0].path, asked[0].body) == ("POST", "/token?x=1", b"a=b+c")
    assert asked[0].headers["host"] == url.removeprefix("http://")
    assert asked[0].headers["user-agent"].startswith("trioxport/")


async def test_a_redirect_is_followed_for_metadata_only_and_checked() -> None:
    async def script(reply: Reply) -> None:
        match reply.asked.path:
            case "/one":
                await reply.status(302, location="/two")
            case "/two":
                await reply.json({})
            case "/private":
                await reply.status(307, location="https://10.0.0.1/x")
            case "/link-local":
                await reply.status(307, location="http://169.254.169.254/latest/meta-data")
            case "/script":
                await reply.status(301, location="javascript:alert(1)")
            case "/broken":
                await reply.status(301, location="https://[as.test/")
            case _:
                await reply.status(302, location="/loop")

    async with answering(script) as (url, send):
        assert (await send(get(f"{url}/one"))).status == 200
        for path, reason in {
            "/private": "its address is private",
            "/link-local": "not encrypted",
            "/script": "scheme is 'javascript'",
            "/broken": "redirects to what is no URL",
            "/loop": "redirects too often",
        }.items():
            with pytest.raises(OAuthError, match=reason):
                await send(get(f"{url}{path}"))
        purposes: tuple[Purpose, ...] = ("token", "registration")
        for purpose in purposes:
            request = OAuthRequest("POST", f"{url}/one", purpose, {}, b"code=1")
            with pytest.raises(OAuthError, match=f"redirects, which no {purpose} request follows"):
                await send(request)


async def test_a_response_without_end_is_cut_off() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        for _ in range(200):
            await reply.chunk(b"x" * 10_000)

    async with answering(script, max_size=100_000) as (url, send):
        with pytest.raises(OAuthError, match="answers with more than 100000 bytes"):
            await send(get(f"{url}/huge"))


async def test_a_slow_server_is_left() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        while True:
            await reply.chunk(b" ")
            await trio.sleep(0.02)

    async with answering(script, timeout=0.15) as (url, send):
        with pytest.raises(OAuthError, match=r"did not answer within 0\.15 s") as caught:
            await send(get(f"{url}/slow"))
    assert caught.value.retryable


async def test_a_connection_goes_to_the_address_that_was_checked(names: Names) -> None:
    """DNS rebinding: the name has another address when it is asked again."""

    async def script(reply: Reply) -> None:
        await reply.json({})

    async with answering(script) as (url, _):
        port = url.rpartition(":")[2]
        names |= {"mcp.test": ["127.0.0.1"], "as.test": ["127.0.0.1", "169.254.169.254"]}
        policy = NetworkPolicy(allowed_hosts=[])
        guarded = GuardedSender("http://localhost:1/mcp", policy)
        with pytest.raises(OAuthError, match="not encrypted"):
            await guarded.send(get(f"http://as.test:{port}/x"))
        from trioxport.auth.oauth.sender import _PinnedBackend

        backend = _PinnedBackend(AddressGuard("http://localhost:1/mcp", policy))
        stream = await backend.connect_tcp("as.test", int(port))
        assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
        await stream.aclose()
        with pytest.raises(OAuthError, match="its address is link-local"):
            await backend.connect_tcp("as.test", int(port))


async def test_a_name_that_changes_between_two_requests_is_checked_again(names: Names) -> None:
    names |= {"mcp.test": ["8.8.8.8"], "as.test": ["8.8.4.4", "10.0.0.1"]}
    guard = AddressGuard("https://mcp.test/mcp", NetworkPolicy())
    await guard.addresses("as.test", 443)
    with pytest.raises(OAuthError, match="its address is private"):
        await guard.addresses("as.test", 443)


async def test_a_server_that_is_not_there() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    send = GuardedSender("http://localhost/mcp", NetworkPolicy()).send
    with pytest.raises(OAuthError, match=rf"http://127\.0\.0\.1:{port}/x cannot be reached: ConnectError") as caught:
        await send(get(f"http://127.0.0.1:{port}/x"))
    assert caught.value.retryable


async def test_a_broken_response_is_an_error() -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(b"nonsense\r\n\r\n")
        await reply.gone()

    async with answering(script) as (url, send):
        with pytest.raises(OAuthError, match="cannot be reached: RemoteProtocolError"):
            await send(get(f"{url}/x"))


async def test_a_certificate_is_checked(tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def script(reply: Reply) -> None:
        await reply.json({})

    async with serving(script, context) as found:
        url = f"https://localhost:{found.port}"
        with pytest.raises(OAuthError, match=r"the certificate of https://localhost.* is not valid: "):
            await GuardedSender("http://localhost/mcp", NetworkPolicy()).send(get(url))
        policy = NetworkPolicy(tls=TLSOptions(ca=str(tmp_path / "ca.pem")))
        assert (await GuardedSender("http://localhost/mcp", policy).send(get(url))).status == 200


async def test_a_proxy_gets_the_requests() -> None:
    asked = list[Asked]()

    async def script(reply: Reply) -> None:
        asked.append(reply.asked)
        await reply.json({})

    async with serving(script) as found:
        base = found.url.removesuffix("/mcp")
        send = GuardedSender("http://localhost/mcp", NetworkPolicy(proxy=base)).send
        assert (await send(get("http://localhost:1/x"))).status == 200
    assert asked[0].path == "http://localhost:1/x"
