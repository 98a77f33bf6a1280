"""Scopes at a server: which a message needs, where its token lacks one, and when a token expires.

Specification 2026-07-28, basic/authorization, section Scope Challenge Handling.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import pytest
import trio

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    asking,
    calling,
    initialized,
    modern,
    modern_fields,
    notification,
    request,
)
from tests.support.recording_handler import serving
from trioxport import ConnectionLost, ErrorResponse, Notification, Request, Response, UsageError, open_transport
from trioxport.auth import Bearer, InvalidToken, VerificationUnavailable, VerifiedToken
from trioxport.layers import Metrics
from trioxport.layers.metrics import MAX_CLIENTS
from trioxport.transports.http.server import HttpServer, ProtectedResource, Sessions
from trioxport.transports.websocket import WebSocket

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
REQUIRED: Final = {
    "tools/call": ["tools"],
    "tools/call:delete_file": ["files:delete", "tools"],
    "resources/read": ["files:read"],
    "resources/read:file:///secret": ["admin"],
    "notifications/secret": ["admin"],
}
HIERARCHY: Final = {"files": ["files:read", "files:delete"], "files:delete": ["files"]}  # a circle ends too


async def verify(token: str) -> VerifiedToken | str:
    """The token lists its scopes; ``plain`` is one of which nothing but the principal is known."""
    return "ada" if token == "plain" else VerifiedToken("ada", scopes=token.replace("~", ":").split("+"))


def protected(**options: Any) -> ProtectedResource:
    return ProtectedResource(
        verify,
        **{"scopes": ["mcp"], "required_scopes": REQUIRED, "scope_hierarchy": HIERARCHY, **options},
    )


def call(tool: str) -> dict[str, Any]:
    return modern("tools/call", name=tool, arguments={})


@pytest.mark.parametrize(
    ("token", "message", "missing"),
    [
        ("mcp", modern("hello"), None),
        ("other", modern("hello"), "mcp"),
        ("plain", modern("hello"), None),
        ("plain", call("list"), "mcp tools"),
        ("mcp", call("list"), "mcp tools"),
        ("mcp+tools", call("list"), None),
        ("mcp+tools", call("delete_file"), "mcp tools files:delete"),
        ("mcp+tools+files~delete", call("delete_file"), None),
        ("mcp+tools+files", call("delete_file"), None),
        ("mcp+tools", modern("tools/list"), None),
    ],
)
async def test_a_message_needs_the_scopes_of_its_method_and_name(
    token: str, message: Mapping[str, Any], missing: str | None
) -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=protected()), layers=[metrics]) as served,
            calling(served.url, message, authorization=f"Bearer {token}") as reply,
        ):
            if missing is None:
                assert reply.status == 200
            else:
                challenge = reply.headers["www-authenticate"]
                assert reply.status == 403
                assert challenge.startswith('Bearer error="insufficient_scope"')
                assert f'scope="{missing}"' in challenge
        assert len(served.received) == (missing is None)
    assert metrics.snapshot().refusals == ({} if missing is None else {"403 Forbidden (scope)": 1})


async def test_a_function_may_tell_the_scopes_of_a_message() -> None:
    def required(message: Request | Notification) -> Sequence[str]:
        return [message.method.replace("/", ":")]

    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=protected(required_scopes=required))) as served:
            for token, status in (("mcp+tools~list", 200), ("mcp", 403)):
                async with calling(served.url, modern("tools/list"), authorization=f"Bearer {token}") as reply:
                    assert reply.status == status


async def test_in_a_session_the_token_of_each_request_counts() -> None:
    listed = request("resources/read", 2, uri="file:///secret")
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=protected())) as served:
            client = await initialized(served.url, authorization="Bearer mcp")
            async with client.post(listed) as reply:
                assert reply.status == 403
                assert (await reply.json())["id"] == 2
                assert 'scope="mcp files:read admin"' in reply.headers["www-authenticate"]
            assert await client.tell(notification("notifications/secret")) == 403
            assert served.infos[0].token == VerifiedToken("ada", scopes=["mcp"])
            client.fields["authorization"] = "Bearer mcp+files~read+admin"
            async with client.post(listed) as reply:
                assert reply.status == 200
            assert served.infos[0].token == VerifiedToken("ada", scopes=["mcp", "files:read", "admin"])
        assert [message.method for message in served.received] == [
            "initialize",
            "notifications/initialized",
            "resources/read",
        ]


async def test_one_message_of_a_batch_without_its_scope_refuses_all() -> None:
    batch = [request("hello", 1), request("tools/call", 2, name="list")]
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=protected())) as served:
            client = await initialized(served.url, "2025-03-26", authorization="Bearer mcp")
            assert await client.tell(batch) == 403
            client.fields["authorization"] = "Bearer mcp+tools"
            assert await client.tell(batch) == 200
        assert [message.method for message in served.received][2:] == ["hello", "tools/call"]


async def test_http_sse_asks_for_the_same_scopes() -> None:
    config = HttpServer(ANYWHERE, sse="/sse", sessions=Sessions(), verify=protected())
    fields = {"authorization": "Bearer mcp"}
    with trio.fail_after(BOUND):
        async with (
            serving(config) as served,
            asking(served.url, "GET", {"accept": "text/event-stream", **fields}, path="/sse") as stream,
        ):
            endpoint = await stream.raw_event()
            assert endpoint is not None
            path = endpoint.data.decode()
            for message, status in (
                (request("initialize", 0, **{**INITIALIZE, "protocolVersion": "2024-11-05"}), 202),
                (request("tools/call", 1, name="list"), 403),
            ):
                async with asking(served.url, "POST", {**JSON_OR_EVENTS, **fields}, message, path) as reply:
                    assert reply.status == status
    assert [message.method for message in served.received] == ["initialize"]


@pytest.mark.parametrize("mounted", [True, False])
async def test_on_a_websocket_a_request_without_its_scope_is_answered_with_an_error(mounted: bool) -> None:
    target = (
        HttpServer(ANYWHERE, websocket=True, verify=protected())
        if mounted
        else WebSocket("ws://127.0.0.1:0/mcp", verify=protected())
    )
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with (
            serving(target, layers=[metrics]) as served,
            open_transport(WebSocket(served.url.replace("http", "ws", 1), auth=Bearer("mcp"))) as (tx, rx),
        ):
            await tx.send(Notification("notifications/secret"))
            await tx.send(Request(1, "tools/call", {"name": "list"}))
            answer = await rx.receive()
            await tx.send(Request(2, "hello"))
            following = await rx.receive()
    assert isinstance(answer, ErrorResponse) and answer.id == 1
    assert answer.data == {"error": "insufficient_scope", "scope": "mcp tools"}
    assert isinstance(following, Response) and following.id == 2
    assert [message.method for message in served.received] == ["hello"]
    assert metrics.snapshot().refusals == {"403 Forbidden (scope)": 2}


# Refusals and unavailability.


async def test_the_reason_of_a_refusal_reaches_the_client_and_its_detail_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(token: str) -> str:
        raise InvalidToken("the token was revoked", detail="the token of grace, revoked on Monday")

    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=refuse)) as served,
            calling(served.url, modern("hello"), authorization="Bearer secret-token") as reply,
        ):
            assert reply.status == 401
            challenge = reply.headers["www-authenticate"]
            assert challenge == 'Bearer error="invalid_token", error_description="the token was revoked"'
            assert "grace" not in (await reply.body()).decode()
    assert "revoked on Monday" in caplog.text
    assert "secret-token" not in caplog.text


async def test_a_verifier_that_cannot_tell_asks_clients_to_come_back(caplog: pytest.LogCaptureFixture) -> None:
    async def verify_later(token: str) -> str:
        raise VerificationUnavailable("https://login.example.com does not answer", retry_after=7.2)

    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=verify_later), layers=[metrics]) as served,
            calling(served.url, modern("hello"), authorization="Bearer good") as reply,
        ):
            assert (reply.status, reply.headers["retry-after"]) == (503, "8")
            assert "www-authenticate" not in reply.headers
            assert "login.example.com" not in (await reply.body()).decode()
    assert "login.example.com does not answer" in caplog.text
    assert metrics.snapshot().refusals == {"503 Service Unavailable (token verification)": 1}


async def test_a_token_in_the_query_is_none() -> None:
    message = modern("hello")
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=verify)) as served,
            asking(served.url, "POST", modern_fields(message), message, "/mcp?access_token=mcp") as reply,
        ):
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")


async def test_messages_are_counted_by_the_client_of_their_token() -> None:
    async def verify_client(token: str) -> VerifiedToken | str:
        return "ada" if token == "plain" else VerifiedToken("ada", client_id=token)

    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=verify_client), layers=[metrics]) as served:
            for token in ("editor", "plain", "editor", *(f"client-{number}" for number in range(MAX_CLIENTS + 1))):
                async with calling(served.url, modern("hello"), authorization=f"Bearer {token}") as reply:
                    assert reply.status == 200
    clients = metrics.snapshot().clients
    assert len(clients) == MAX_CLIENTS + 1
    assert (clients["editor"], clients["client-0"], clients["_OTHER"]) == (2, 1, 2)


# The end of a token.


async def briefly(token: str) -> VerifiedToken:
    """A token that lives for a moment more."""
    return VerifiedToken("ada", expires_at=time.time() + 0.2)


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_websocket_ends_with_its_token(mounted: bool) -> None:
    target = (
        HttpServer(ANYWHERE, websocket=True, verify=briefly)
        if mounted
        else WebSocket("ws://127.0.0.1:0/mcp", verify=briefly)
    )
    with trio.fail_after(BOUND):
        async with serving(target) as served:
            url = served.url.replace("http", "ws", 1)
            with pytest.raises(ConnectionLost, match="the token has expired"):
                async with open_transport(WebSocket(url, auth=Bearer("good"), ping_interval=None)) as (_, rx):
                    await rx.receive()
            await served.until(lambda: served.over)


async def test_the_streams_of_a_token_end_with_it() -> None:
    config = HttpServer(ANYWHERE, sse="/sse", sessions=Sessions(), verify=briefly)
    events = {"accept": "text/event-stream", "authorization": "Bearer good"}
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            client = await initialized(served.url, authorization="Bearer good")
            async with client.get() as standalone, asking(served.url, "GET", events, path="/sse") as stream:
                assert await standalone.event() is None
                endpoint = await stream.raw_event()
                assert endpoint is not None and endpoint.event == "endpoint"
                assert await stream.event() is None
            async with calling(served.url, modern("subscriptions/listen"), authorization="Bearer good"):
                await served.until(lambda: "subscriptions/listen" in served.cancelled)
            async with client.get() as again:  # a session outlives a token
                assert again.status == 200


# Metadata and mistakes.


@attrs.frozen
class Issued:
    """A verifier that knows where its tokens come from."""

    resource: str | None
    authorization_servers: Sequence[str] = ("https://login.example.com",)

    async def __call__(self, token: str) -> str | None:
        return None


@pytest.mark.parametrize("audience", ["https://mcp.example.com/v1/mcp", None])
async def test_metadata_comes_from_the_verifier(audience: str | None) -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, verify=Issued(audience))) as served:
            resource = audience or served.url
            origin, _, path = resource.partition("//")[2].partition("/")
            well_known = f"/.well-known/oauth-protected-resource/{path}"
            async with asking(served.url, "POST") as reply:
                scheme = resource.partition(":")[0]
                named = f'resource_metadata="{scheme}://{origin}{well_known}"'
                assert reply.headers["www-authenticate"] == f"Bearer {named}"
            async with asking(served.url, "GET", path=well_known) as reply:
                metadata = await reply.json()
    assert metadata == {
        "resource": resource,
        "authorization_servers": ["https://login.example.com"],
        "bearer_methods_supported": ["header"],
    }


async def test_what_the_application_says_comes_before_the_verifier() -> None:
    protection = ProtectedResource(
        Issued("https://mcp.example.com/a"),
        authorization_servers=["https://other.example.com"],
        resource="https://mcp.example.com/b",
        metadata={"resource_name": "Files"},
    )
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=protection)) as served,
            asking(served.url, "GET", path="/.well-known/oauth-protected-resource/b") as reply,
        ):
            metadata = await reply.json()
    assert metadata["authorization_servers"] == ["https://other.example.com"]
    assert (metadata["resource"], metadata["resource_name"]) == ("https://mcp.example.com/b", "Files")


async def test_without_an_issuer_there_is_no_metadata() -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, verify=verify)) as served,
            asking(served.url, "GET", path="/.well-known/oauth-protected-resource/mcp") as reply,
        ):
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"resource": "mcp.example.com"}, "the URL of this server"),
        ({"resource": "https://mcp.example.com/mcp#part"}, "without a fragment"),
        ({"scopes": ["mcp", "offline_access"]}, "offline_access is no scope of a resource"),
        ({"metadata": {"resource": "x", "scopes_supported": []}}, "metadata has resource, scopes_supported"),
    ],
)
def test_mistakes_are_told_at_once(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        ProtectedResource(verify, **options)


async def test_answers_of_a_client_need_no_scopes_of_their_own() -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(WebSocket("ws://127.0.0.1:0/mcp", verify=protected())) as served,
            open_transport(WebSocket(served.url, auth=Bearer("mcp"))) as (tx, rx),
        ):
            await tx.send(Request(1, "ask"))
            asked = await rx.receive()
            assert isinstance(asked, Request)
            await tx.send(Response(asked.id, {"roots": []}))
            await served.until(lambda: len(served.received) == 2)
    assert isinstance(served.received[1], Response)
