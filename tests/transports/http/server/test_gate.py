"""Whom the HTTP server lets in: hosts, origins, browsers, tokens, rates; and what it shows to anybody."""

from __future__ import annotations

import json
import ssl
from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    MODERN,
    asking,
    calling,
    initialized,
    modern,
    modern_fields,
    notification,
    request,
    talking,
)
from tests.support.recording_handler import serving
from trioxport import Connection, PermissionDenied, UsageError, open_transport, serve_transport
from trioxport.demo import serve_demo
from trioxport.layers import Rate
from trioxport.peer import open_peer
from trioxport.transports.http.server import HttpServer, ProtectedResource, Sessions

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (None, "127.0.0.1", 200),
        (None, "localhost:1234", 200),
        (None, "[::1]:80", 200),
        (None, "LOCALHOST", 200),
        (None, "evil.example", 421),
        (None, "localhost.evil.example", 421),
        (None, "127.0.0.1@evil.example", 421),
        (None, "", 421),
        (["mcp.example.com"], "mcp.example.com", 200),
        (["mcp.example.com"], "mcp.example.com:8443", 200),
        (["mcp.example.com"], "127.0.0.1", 421),
        (["mcp.example.com:8443"], "mcp.example.com:8443", 200),
        (["mcp.example.com:8443"], "mcp.example.com", 421),
        (["*"], "any.example", 200),
    ],
)
async def test_hosts(hosts: list[str] | None, host: str, status: int) -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, hosts=hosts)) as served,
            talking(served.url) as reply,
        ):
            message = modern("hello")
            await reply.ask("POST", "/mcp", modern_fields(message) | {"host": host}, message)
            assert reply.status == status
            if status != 200:
                assert "Host" in (await reply.json())["error"]["message"]
        assert len(served.received) == (status == 200)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ([], "{own}", 200),
        ([], "http://evil.example", 403),
        ([], "null", 403),
        ([], "http://localhost:1", 403),
        ([], "https://{host}", 403),
        ([], "http://127.0.0.1", 403),
        (["https://app.example"], "https://app.example", 200),
        (["https://app.example"], "https://app.example.evil.example", 403),
        (["*"], "http://any.example", 200),
    ],
)
async def test_origins(origins: list[str], origin: str, status: int) -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, origins=origins)) as served:
            own = served.url.removesuffix("/mcp")
            origin = origin.format(own=own, host=own.removeprefix("http://"))
            async with calling(served.url, modern("hello"), origin=origin) as reply:
                assert reply.status == status
                assert "access-control-allow-origin" not in reply.headers
            async with asking(served.url, "GET", {"origin": origin, "accept": "text/event-stream"}) as reply:
                assert reply.status == (403 if status == 403 else 400)


async def test_browsers_are_told_what_they_may_only_if_that_was_asked_for() -> None:
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,mcp-param-region, x-other",
    }
    config = HttpServer(ANYWHERE, origins=["https://app.example"], cors=True)
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            async with asking(served.url, "OPTIONS", preflight) as reply:
                assert reply.status == 204
                assert reply.headers["access-control-allow-origin"] == "https://app.example"
                allowed = reply.headers["access-control-allow-headers"].split(", ")
                assert {"mcp-session-id", "mcp-protocol-version", "mcp-param-region"} <= set(allowed)
                assert "x-other" not in allowed
            async with calling(served.url, modern("hello"), origin="https://app.example") as reply:
                assert reply.headers["access-control-allow-origin"] == "https://app.example"
                assert "mcp-session-id" in reply.headers["access-control-expose-headers"]
                assert reply.headers["vary"] == "origin"
            async with asking(served.url, "OPTIONS", preflight | {"origin": "https://evil.example"}) as reply:
                assert reply.status == 403
                assert "access-control-allow-origin" not in reply.headers
        async with (
            serving(HttpServer(ANYWHERE)) as served,
            asking(served.url, "OPTIONS", {"host": "localhost"}) as reply,
        ):
            assert reply.status == 405


async def verify(token: str) -> str | None:
    if token == "narrow":
        raise PermissionDenied("not for this")
    return {"good": "ada", "other": "grace"}.get(token)


PROTECTED: Final = ProtectedResource(verify, authorization_servers=["https://login.example"], scopes=["mcp"])


@pytest.mark.parametrize(
    ("authorization", "status", "error"),
    [
        ("", 401, None),
        ("Basic good", 401, None),
        ("Bearer", 401, None),
        ("Bearer good good", 400, "invalid_request"),
        ("Bearer bad", 401, "invalid_token"),
        ("Bearer narrow", 403, "insufficient_scope"),
        ("bearer  good", 200, None),
    ],
)
async def test_tokens(authorization: str, status: int, error: str | None) -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=PROTECTED)) as served,
            calling(served.url, modern("hello"), authorization=authorization) as reply,
        ):
            assert reply.status == status
            if status != 200:
                challenge = reply.headers["www-authenticate"]
                origin = served.url.removesuffix("/mcp")
                assert f'resource_metadata="{origin}/.well-known/oauth-protected-resource/mcp"' in challenge
                assert 'scope="mcp"' in challenge
                assert (f'error="{error}"' in challenge) == (error is not None)
        assert [info.principal for info in served.infos] == (["ada"] if status == 200 else [])


async def test_the_metadata_of_the_resource_is_there_for_anybody() -> None:
    path = "/.well-known/oauth-protected-resource/mcp"
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=PROTECTED)) as served:
            async with asking(served.url, "GET", path=path) as reply:
                assert await reply.json() == {
                    "resource": served.url,
                    "authorization_servers": ["https://login.example"],
                    "bearer_methods_supported": ["header"],
                    "scopes_supported": ["mcp"],
                }
            async with asking(served.url, "GET", {"host": "evil.example"}, path=path) as reply:
                assert reply.status == 421


async def test_a_session_is_its_principals_alone() -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=PROTECTED)) as served:
            client = await initialized(served.url, authorization="Bearer good")
            client.fields["authorization"] = "Bearer other"
            assert await client.tell(notification("note")) == 404
            assert await client.delete() == 404
            async with client.get() as reply:
                assert reply.status == 404
            client.fields["authorization"] = "Bearer good"
            assert await client.tell(notification("note")) == 202
        assert [info.principal for info in served.infos] == ["ada"]


async def test_a_verifier_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(token: str) -> str | None:
        raise LookupError("the verifier's own")

    config = HttpServer(ANYWHERE, verify=ProtectedResource(fail))
    with trio.fail_after(BOUND):
        async with serving(config) as served, calling(served.url, modern("hello"), authorization="Bearer x") as reply:
            assert (reply.status, await reply.body()) == (500, b"")
        assert served.received == []
    assert "the verifier's own" in caplog.text


async def test_rates_are_each_clients_own(jumping_clock: trio.abc.Clock) -> None:
    config = HttpServer(ANYWHERE, verify=PROTECTED, rate=Rate(1, per=10, burst=2))
    async with serving(config) as served:
        statuses = []
        for token in ("good", "good", "good", "other"):
            async with calling(served.url, modern("hello"), authorization=f"Bearer {token}") as reply:
                statuses.append(reply.status)
                if reply.status == 429:
                    assert 0 < int(reply.headers["retry-after"]) <= 10
        assert statuses == [200, 200, 429, 200]
        await trio.sleep(10)
        async with calling(served.url, modern("hello"), authorization="Bearer good") as reply:
            assert reply.status == 200


async def test_health_and_other_paths() -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, health="/health", verify=PROTECTED)) as served:
            async with asking(served.url, "GET", path="/health") as reply:
                assert (reply.status, json.loads(await reply.body())) == (200, {"status": "ok"})
            async with asking(served.url, "GET", {"authorization": "Bearer good"}, path="/other") as reply:
                assert reply.status == 404
            async with asking(served.url, "GET", path="/mcp/../etc/passwd") as reply:
                assert reply.status == 401
        async with serving() as served, asking(served.url, "GET", path="/health") as reply:
            assert reply.status == 404


async def test_a_path_with_a_slash_or_a_query_is_the_same() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            for path in ("/mcp/", "/mcp?key=value", "/%6dcp", "http://127.0.0.1/mcp"):
                async with asking(served.url, "POST", modern_fields(modern("hello")), modern("hello"), path) as reply:
                    assert reply.status == 200


async def nobody(connection: Connection) -> None:
    raise AssertionError("it was served")


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("http://0.0.0.0:0/mcp", {}, "hosts="),
        ("http://[::]:0/mcp", {}, "hosts="),
        ("https://127.0.0.1:0/mcp", {}, "tls"),
        ("http://127.0.0.1:0/mcp", {"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "tls"),
        ("http://127.0.0.1/mcp", {}, "port"),
        ("http://127.0.0.1:0/mcp?origins=*", {}, "PORT"),
        ("http://user:secret@127.0.0.1:0/mcp", {}, "PORT"),
        ("http://127.0.0.1:0/mcp", {"sse": "/sse", "sessions": None}, "SSE"),
    ],
)
async def test_what_cannot_be_served_safely_is_refused(url: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        await serve_transport(nobody, HttpServer(url, **options), allow_plaintext=True)
    assert "secret" not in str(caught.value)


async def test_beyond_loopback_plaintext_has_to_be_allowed() -> None:
    with pytest.raises(UsageError, match="allow_plaintext"):
        await serve_transport(nobody, HttpServer("http://0.0.0.0:0/mcp", hosts=["*"]))


# HTTP+SSE.

SSE: Final = HttpServer(ANYWHERE, sse="/sse", sessions=Sessions())


async def test_http_sse_is_one_stream_and_posts_beside_it() -> None:
    with trio.fail_after(BOUND):
        async with serving(SSE) as served:
            async with asking(served.url, "GET", {"accept": "text/event-stream"}, path="/sse") as stream:
                endpoint = await stream.raw_event()
                assert endpoint is not None and endpoint.event == "endpoint"
                path = endpoint.data.decode()
                assert path.startswith("/sse/messages?session_id=")

                async def post(message: object, status: int = 202, to: str = path) -> None:
                    async with asking(served.url, "POST", JSON_OR_EVENTS, message, to) as reply:
                        assert reply.status == status

                await post(request("initialize", 0, **{**INITIALIZE, "protocolVersion": "2024-11-05"}))
                assert (await stream.event())["result"]["protocolVersion"] == "2024-11-05"
                await post(request("notify", 1, count=2))
                assert [(await stream.event()).get("method") for _ in range(3)] == ["note", "note", None]
                await post(b"{", 400)
                await post(notification("note"), 404, "/sse/messages?session_id=x")
                async with asking(served.url, "POST", JSON_OR_EVENTS, {}, "/sse") as reply:
                    assert reply.status == 405
                [info] = served.infos
                assert (info.era, info.protocol_version) == ("legacy", "2024-11-05")
            await served.until(lambda: served.over)
            await post(notification("note"), 404)


async def test_the_sessions_of_the_two_legacy_bindings_are_apart() -> None:
    with trio.fail_after(BOUND):
        async with serving(SSE) as served:
            client = await initialized(served.url)
            path = f"/sse/messages?session_id={client.fields['mcp-session-id']}"
            async with asking(served.url, "POST", JSON_OR_EVENTS, notification("note"), path) as reply:
                assert reply.status == 404
            async with asking(served.url, "GET", {"accept": "text/event-stream"}, path="/sse") as stream:
                endpoint = await stream.raw_event()
                assert endpoint is not None
                client.fields["mcp-session-id"] = endpoint.data.decode().partition("=")[2]
                assert await client.tell(notification("note")) == 404


async def test_http_sse_is_served_only_where_it_was_asked_for() -> None:
    with trio.fail_after(BOUND):
        stream = {"accept": "text/event-stream"}
        async with serving() as served, asking(served.url, "GET", stream, path="/sse") as reply:
            assert reply.status == 404
        async with serving(SSE) as served, calling(served.url, modern("hello")) as reply:
            assert (reply.status, served.infos[0].protocol_version) == (200, MODERN)


@pytest.mark.parametrize("scheme", ["sse+http", "http"])
async def test_a_url_is_enough_to_serve_http_sse_and_our_own_client_speaks_it(scheme: str) -> None:
    steps: list[float] = []
    sleep = {"name": "sleep", "arguments": {"seconds": 0.02, "steps": 2}}
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [url] = await nursery.start(serve_transport, serve_demo, "sse+http://127.0.0.1:0/sse")
            target = url.replace("http", scheme, 1)
            async with open_transport(target) as connection, open_peer(connection) as peer:
                agreed = await peer.negotiate(client_info={"name": "test", "version": "1"}, era="legacy")
                assert agreed.era == "legacy"
                await peer.request("tools/call", sleep, on_progress=lambda step, *_: steps.append(step))
                assert steps == [1, 2]
            nursery.cancel_scope.cancel()
