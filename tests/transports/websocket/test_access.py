"""The access policy of a WebSocket server: that of HTTP, whether it listens alone or is mounted at an endpoint."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import asking, modern, modern_fields
from tests.support.raw_websocket import raw_connection, request
from tests.support.recording_handler import serving as recording
from tests.transports.websocket.test_websocket import echo
from trioxport import (
    AuthenticationError,
    HTTPStatusError,
    PermissionDenied,
    RateLimited,
    Request,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.auth import Bearer, VerifiedToken
from trioxport.layers import Metrics, Rate
from trioxport.transports.http.server import HttpServer, ProtectedResource, TrustedProxies
from trioxport.transports.websocket import WebSocket

BOUND: Final = 10.0
ALONE: Final = "ws://127.0.0.1:0/mcp"
ENDPOINT: Final = "http://127.0.0.1:0/mcp"
SUCCESS: Final = {"http": 200, "websocket": 101, "mounted": 101}


async def upgrade(url: str, *lines: str, host: str | None = None, path: str = "/mcp") -> str:
    """The head of the response to an opening request."""
    async with raw_connection(url.replace("http", "ws")) as peer:
        asked = request(url, *lines, path=path, host="HOST").decode()
        await peer.stream.send_all(asked.replace("HOST", url.split("/")[2] if host is None else host).encode())
        return await peer.read_head()


def status_of(head: str) -> int:
    return int(head.split()[1])


async def status(server: str, options: dict[str, Any], host: str, origin: str | None) -> int:
    """The status of a request with this Host and Origin; ``{at}`` in them is the server's address and port."""
    is_http = server != "websocket"
    target = HttpServer(ENDPOINT, websocket=True, **options) if is_http else WebSocket(ALONE, **options)
    async with recording(target) as served:
        at = served.url.split("/")[2]
        host, origin = host.format(at=at), origin and origin.format(at=at)
        if server == "http":
            fields = {"host": host} if origin is None else {"host": host, "origin": origin}
            message = modern("hello")
            async with asking(served.url, "POST", modern_fields(message) | fields, message) as reply:
                return reply.status
        lines = [] if origin is None else [f"Origin: {origin}"]
        return status_of(await upgrade(served.url, *lines, host=host))


NAMED: Final = {"hosts": ["mcp.example"], "origins": ["https://app.example"]}


@pytest.mark.parametrize("server", ["http", "websocket", "mounted"])
@pytest.mark.parametrize(
    ("options", "host", "origin", "refusal"),
    [
        ({}, "{at}", None, None),
        ({}, "localhost", None, None),
        ({}, "localhost:1234", None, None),
        ({}, "LOCALHOST:8000", None, None),
        ({}, "[::1]:8000", None, None),
        ({}, "", None, 421),
        ({}, "evil.example:8000", "http://evil.example:8000", 421),  # a rebound name
        ({}, "localhost.evil.example", None, 421),
        ({}, "evil.example@localhost", None, 421),
        ({}, "localhost:port", None, 421),
        ({}, "{at}", "http://{at}", None),
        ({}, "localhost:8000", "http://localhost:8000", None),
        ({}, "{at}", "http://localhost:3000", 403),  # a page of another server on this machine
        ({}, "{at}", "https://{at}", 403),
        ({}, "{at}", "http://127.0.0.1", 403),
        ({}, "{at}", "https://evil.example", 403),
        ({}, "{at}", "null", 403),
        ({}, "{at}", "", 403),
        ({}, "{at}", "http://[", 403),
        (NAMED, "mcp.example", None, None),
        (NAMED, "mcp.example:8000", "http://mcp.example:8000", None),
        (NAMED, "mcp.example", "https://mcp.example", 403),
        (NAMED, "mcp.example", "https://app.example", None),
        (NAMED, "mcp.example", "http://app.example", 403),
        (NAMED, "mcp.example", "https://app.example:443", 403),
        (NAMED, "mcp.example", "https://app.example:8443", 403),
        (NAMED, "{at}", None, 421),
        (NAMED, "other.mcp.example", None, 421),
        ({"hosts": ["mcp.example:8443"]}, "mcp.example:8443", None, None),
        ({"hosts": ["mcp.example:8443"]}, "mcp.example", None, 421),
        ({"hosts": ["*"]}, "any.example", None, None),
        ({"hosts": ["*"]}, "any.example", "https://other.example", 403),
        ({"origins": ["*"]}, "localhost", "https://any.example", None),
        ({"origins": ["null"]}, "localhost", "null", None),
    ],
)
async def test_hosts_and_origins_mean_the_same_everywhere(
    server: str, options: dict[str, Any], host: str, origin: str | None, refusal: int | None
) -> None:
    with trio.fail_after(BOUND):
        assert await status(server, options, host, origin) == (refusal or SUCCESS[server])


@pytest.mark.parametrize("url", ["ws://0.0.0.0:0/mcp", "ws://[::]:0/mcp"])
async def test_a_server_for_all_addresses_has_to_know_its_names(url: str) -> None:
    with pytest.raises(UsageError, match="hosts="):
        await serve_transport(echo, url, allow_plaintext=True)


async def test_the_host_of_another_address_is_the_only_name() -> None:
    assert await status("websocket", {"hosts": ["192.0.2.1"]}, "192.0.2.1:80", None) == 101
    assert await status("websocket", {"hosts": ["192.0.2.1"]}, "192.0.2.2", None) == 421


async def test_networks_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="a trusted proxy is no network"):
        WebSocket(ALONE, trusted_proxies=["proxy.example"])


# Tokens.


async def verify(token: str) -> str | VerifiedToken | None:
    if token == "narrow":
        raise PermissionDenied("not for this")
    if token == "claims":
        return VerifiedToken("grace", scopes=["mcp"])
    return "ada" if token == "good" else None


PROTECTED: Final = ProtectedResource(verify, scopes=["mcp"])


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ({}, AuthenticationError),
        ({"auth": Bearer("bad")}, AuthenticationError),
        ({"auth": Bearer("narrow")}, PermissionDenied),
        ({"subprotocols": ["mcp", "mcp.auth.bad"]}, AuthenticationError),
    ],
)
async def test_a_token_that_is_not_good_opens_nothing(target: dict[str, Any], kind: type[Exception]) -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with recording(WebSocket(ALONE, verify=PROTECTED), layers=[metrics]) as served:
            with pytest.raises(kind):
                async with open_transport(WebSocket(served.url, **target)):
                    pass
        assert served.infos == []
    assert sum(metrics.snapshot().refusals.values()) == 1


@pytest.mark.parametrize(
    ("target", "principal"),
    [
        ({"auth": Bearer("good")}, "ada"),
        ({"auth": Bearer("claims")}, "grace"),
        ({"subprotocols": ["mcp", "mcp.auth.good"]}, "ada"),
        ({"auth": Bearer("good"), "subprotocols": ["mcp", "mcp.auth.bad"]}, "ada"),
    ],
)
async def test_a_good_token_names_the_principal_and_is_not_shown(target: dict[str, Any], principal: str) -> None:
    with trio.fail_after(BOUND):
        async with (
            recording(WebSocket(ALONE, verify=PROTECTED)) as served,
            open_transport(WebSocket(served.url, **target)) as (tx, rx),
        ):
            await tx.send(Request(1, "hello"))
            await rx.receive()
    [info] = served.infos
    assert info.principal == principal
    assert info.token == (VerifiedToken("grace", scopes=["mcp"]) if principal == "grace" else None)
    assert "authorization" not in info.headers


@pytest.mark.parametrize(
    ("resource", "metadata"),
    [
        (None, ""),
        (
            "https://mcp.example/mcp",
            'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp", ',
        ),
    ],
)
async def test_the_challenge_names_metadata_only_where_there_is_some(resource: str | None, metadata: str) -> None:
    target = WebSocket(ALONE, verify=ProtectedResource(verify, scopes=["mcp"], resource=resource))
    with trio.fail_after(BOUND):
        async with recording(target) as served:
            head = await upgrade(served.url, "Authorization: Bearer bad")
    assert status_of(head) == 401
    assert f'www-authenticate: Bearer error="invalid_token", {metadata}scope="mcp"\r\n' in head


async def test_the_policy_comes_before_the_path() -> None:
    with trio.fail_after(BOUND):
        async with recording(WebSocket(ALONE, verify=PROTECTED)) as served:
            assert status_of(await upgrade(served.url, path="/other")) == 401
            assert status_of(await upgrade(served.url, "Authorization: Bearer good", path="/other")) == 404


async def test_a_verifier_that_fails_admits_no_client() -> None:
    async def fail(token: str) -> str | None:
        raise LookupError("the verifier's own")

    with trio.fail_after(BOUND):
        async with recording(WebSocket(ALONE, verify=ProtectedResource(fail))) as served:
            with pytest.raises(HTTPStatusError, match="500"):
                async with open_transport(WebSocket(served.url, auth=Bearer("x"))):
                    pass
        assert served.infos == []


# Rates and proxies.


async def test_rates_are_each_clients_own() -> None:
    target = WebSocket(ALONE, verify=PROTECTED, rate=Rate(2, per=60))
    with trio.fail_after(BOUND):
        async with recording(target) as served:
            statuses = []
            for token in ("good", "good", "good", "claims"):
                head = await upgrade(served.url, f"Authorization: Bearer {token}")
                statuses.append(status_of(head))
                assert ("retry-after: 30\r\n" in head) == (statuses[-1] == 429)
            with pytest.raises(RateLimited) as raised:
                async with open_transport(WebSocket(served.url, auth=Bearer("good"))):
                    pass
            assert raised.value.retry_after == 30
    assert statuses == [101, 101, 429, 101]


async def test_guessed_tokens_are_charged_to_the_address() -> None:
    guesses: list[str] = []

    async def look(token: str) -> str | None:
        guesses.append(token)
        return None

    target = WebSocket(ALONE, verify=ProtectedResource(look), rate=Rate(3, per=60))
    with trio.fail_after(BOUND):
        async with recording(target) as served:
            statuses = [
                status_of(await upgrade(served.url, f"Sec-WebSocket-Protocol: mcp, mcp.auth.guess-{number}"))
                for number in range(6)
            ]
    assert statuses == [401] * 3 + [429] * 3
    assert guesses == ["guess-0", "guess-1", "guess-2"]


@pytest.mark.parametrize("trusted", [(), ["127.0.0.1"], TrustedProxies(["127.0.0.1"], header="forwarded")])
async def test_the_client_behind_a_trusted_proxy_is_the_one_that_counts(trusted: Any) -> None:
    target = WebSocket(ALONE, rate=Rate(1, per=60), trusted_proxies=trusted)
    with trio.fail_after(BOUND):
        async with recording(target) as served:
            statuses = [
                status_of(await upgrade(served.url, f"X-Forwarded-For: {client}", f"Forwarded: for={client}"))
                for client in ("203.0.113.1", "203.0.113.2")
            ]
            await served.until(lambda: len(served.infos) == statuses.count(101))
    peers = [info.peer for info in served.infos]
    if trusted:
        assert (statuses, peers) == ([101, 101], ["203.0.113.1", "203.0.113.2"])
    else:
        assert statuses == [101, 429]
        assert str(peers[0]).startswith("127.0.0.1:")


async def test_the_scheme_of_a_trusted_proxy_is_that_of_the_own_origin(caplog: pytest.LogCaptureFixture) -> None:
    target = WebSocket(ALONE, hosts=["mcp.example"], trusted_proxies=["127.0.0.1"])
    forwarded = ("X-Forwarded-For: 203.0.113.1", "X-Forwarded-Proto: https")
    with trio.fail_after(BOUND):
        async with recording(target) as served:
            for scheme, expected in (("https", 101), ("http", 403)):
                head = await upgrade(served.url, *forwarded, f"Origin: {scheme}://mcp.example", host="mcp.example")
                assert status_of(head) == expected
            while not caplog.records:  # the client may know earlier
                await trio.lowlevel.checkpoint()
    assert "refused 203.0.113.1: 403 Forbidden (Origin)" in caplog.text
