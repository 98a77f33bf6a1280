"""Servers of the official SDK, and of FastMCP, keep what they ask for: authentication, routes, time to finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider, StaticTokenVerifier
from mcp import Client, MCPError
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from trioxport import Target, UsageError, open_transport
from trioxport.auth import Bearer, VerifiedToken
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.peer import open_peer
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, MemoryEvents, ProtectedResource
from trioxport.transports.stream import Tcp
from trioxport.transports.websocket import WebSocket

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the legacy era

HTTP = "http://127.0.0.1:0/mcp"
RESOURCE = "https://mcp.example.com/mcp"
ISSUER = "https://issuer.example.com"
MODES = ["auto", "legacy"]


class Tokens:
    """A token verifier of the SDK's kind."""

    async def verify_token(self, token: str) -> AccessToken | None:
        known: dict[str, dict[str, Any]] = {
            "ada": {"scopes": ["read", "write"], "subject": "ada", "claims": {"iss": ISSUER, "tenant": "one"}},
            "eve": {"scopes": ["write"]},
            "old": {"scopes": ["read"], "expires_at": int(time.time()) - 60},
            "elsewhere": {"scopes": ["read"], "resource": "https://other.example.com/mcp"},
        }
        if token not in known:
            return None
        facts = {"token": token, "client_id": "client-1", "resource": RESOURCE, **known[token]}
        return AccessToken(**facts)


def protected_server() -> MCPServer:
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(ISSUER),
        resource_server_url=AnyHttpUrl(RESOURCE),
        required_scopes=["read"],
        validate_token_resource=True,
    )
    server = MCPServer("protected", token_verifier=Tokens(), auth=auth)
    server.tool()(whoami)
    return server


async def whoami() -> dict[str, Any]:
    token = get_access_token()
    return {} if token is None else token.model_dump(exclude={"expires_at"})


def protected_fastmcp() -> FastMCP[Any]:
    tokens = StaticTokenVerifier(
        {"ada": {"client_id": "client-1", "scopes": ["read"]}, "eve": {"client_id": "client-2", "scopes": []}},
        required_scopes=["read"],
    )
    issuers = [AnyHttpUrl(ISSUER)]
    auth = RemoteAuthProvider(tokens, authorization_servers=issuers, base_url="https://mcp.example.com")
    server: FastMCP[Any] = FastMCP("protected", auth=auth)
    server.tool(whoami)
    return server


SERVERS: list[Callable[[], Any]] = [protected_server, protected_fastmcp]


async def served(nursery: trio.Nursery, server: Any, target: Target = HTTP, **options: Any) -> str:
    [address] = await nursery.start(partial(serve_sdk, server, target, **options))
    assert isinstance(address, str)
    return address


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_good_token_gets_in_and_its_facts_reach_the_handler(
    server: Callable[[], Any], mode: str, nursery: trio.Nursery
) -> None:
    address = await served(nursery, server())
    async with Client(sdk_transport(Http(address, auth=Bearer("ada"))), mode=mode) as client:
        seen = (await client.call_tool("whoami", {})).structured_content
    assert seen is not None
    assert (seen["token"], seen["client_id"]) == ("ada", "client-1")
    assert "read" in seen["scopes"]


async def test_claims_and_subject_reach_the_handler_and_the_connection(nursery: trio.Nursery) -> None:
    address = await served(nursery, protected_server())
    async with Client(sdk_transport(Http(address, auth=Bearer("ada")))) as client:
        seen = (await client.call_tool("whoami", {})).structured_content
    assert seen is not None
    assert (seen["subject"], seen["claims"]["tenant"]) == ("ada", "one")


@pytest.mark.parametrize(
    ("server", "token", "status", "error"),
    [
        (protected_server, None, 401, None),
        (protected_server, "wrong", 401, "invalid_token"),
        (protected_server, "eve", 403, "insufficient_scope"),
        (protected_fastmcp, None, 401, None),
        (protected_fastmcp, "wrong", 401, "invalid_token"),
        (protected_fastmcp, "eve", 401, "invalid_token"),  # its verifier itself refuses a token without the scopes
    ],
)
async def test_a_token_that_is_not_good_is_refused_with_a_challenge(
    server: Callable[[], Any], token: str | None, status: int, error: str | None, nursery: trio.Nursery
) -> None:
    address = await served(nursery, server())
    answer, challenge = await post(address, token)
    assert answer == status
    assert 'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"' in challenge
    assert 'scope="read"' in challenge
    assert ("error=" not in challenge) if error is None else (f'error="{error}"' in challenge)


@pytest.mark.parametrize("token", ["old", "elsewhere"])
async def test_a_token_that_is_over_or_for_another_resource_is_refused(token: str, nursery: trio.Nursery) -> None:
    address = await served(nursery, protected_server())
    assert (await post(address, token))[0] == 401


async def post(address: str, token: str | None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(address, json={}, headers=headers)
    return answer.status_code, answer.headers.get("www-authenticate", "")


@pytest.mark.parametrize("server", SERVERS)
async def test_clients_are_told_where_to_get_a_token(server: Callable[[], Any], nursery: trio.Nursery) -> None:
    address = await served(nursery, server())
    async with httpx.AsyncClient() as http:
        path = "/.well-known/oauth-protected-resource/mcp"
        metadata = (await http.get(address.replace("/mcp", path))).json()
    assert metadata["resource"] == RESOURCE
    assert [url.rstrip("/") for url in metadata["authorization_servers"]] == [ISSUER]
    assert metadata["scopes_supported"] == ["read"]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("target", [Tcp("127.0.0.1", 0), WebSocket("ws://127.0.0.1:0/"), "unix:///tmp/never.sock"])
async def test_a_target_without_a_place_for_tokens_is_refused(server: Callable[[], Any], target: Target) -> None:
    with pytest.raises(UsageError, match="checks bearer tokens, and this target has no place for them"):
        await serve_sdk(server(), target)


async def test_a_websocket_beside_http_takes_the_same_tokens(nursery: trio.Nursery) -> None:
    address = await served(nursery, protected_server(), HttpServer(HTTP, websocket=True))
    url = address.replace("http:", "ws:")
    async with Client(sdk_transport(WebSocket(url, auth=Bearer("ada"))), mode="legacy") as client:
        seen = (await client.call_tool("whoami", {})).structured_content
    assert seen is not None
    assert seen["token"] == "ada"
    with pytest.raises(Exception, match="401"):
        async with open_transport(WebSocket(url, auth=Bearer("wrong"))):
            pass


async def test_in_one_process_no_token_is_asked_for(nursery: trio.Nursery) -> None:
    address = await served(nursery, protected_server(), "memory://protected")
    async with Client(sdk_transport(address)) as client:
        assert (await client.call_tool("whoami", {})).structured_content == {}


async def test_two_checks_of_tokens_are_one_too_many() -> None:
    async def verify(token: str) -> str | None:
        return token

    with pytest.raises(UsageError, match="both the server and HttpServer check bearer tokens"):
        await serve_sdk(protected_server(), HttpServer(HTTP, verify=ProtectedResource(verify)))


async def test_what_is_no_server_is_refused() -> None:
    with pytest.raises(TypeError, match="is no server: pass an MCPServer"):
        await serve_sdk("server", HTTP)  # type: ignore[arg-type]  # the mistake under test


async def test_a_check_of_ones_own_may_tell_more_than_the_principal(nursery: trio.Nursery) -> None:
    async def verify(token: str) -> VerifiedToken:
        return VerifiedToken("ada", client_id="app", scopes=["read"], expires_at=4e9, claims={"tenant": "one"})

    server = MCPServer("plain")
    server.tool()(whoami)
    address = await served(nursery, server, HttpServer(HTTP, verify=ProtectedResource(verify)))
    async with Client(sdk_transport(Http(address, auth=Bearer("anything")))) as client:
        seen = (await client.call_tool("whoami", {})).structured_content
    assert seen is not None
    assert {name: seen[name] for name in ("token", "client_id", "subject", "scopes", "claims")} == {
        "token": "",
        "client_id": "app",
        "subject": "ada",
        "scopes": ["read"],
        "claims": {"tenant": "one"},
    }


# Custom routes.


def with_routes(server: Any) -> Any:
    async def status(request: Request) -> Response:
        return JSONResponse({"size": len(await request.body()), "user": request.scope.get("user") is not None})

    server.custom_route("/status", methods=["GET", "POST"])(status)
    return server


@pytest.mark.parametrize("server", [MCPServer, FastMCP, protected_server, protected_fastmcp])
async def test_custom_routes_are_served_beside_the_endpoint(server: Callable[..., Any], nursery: trio.Nursery) -> None:
    made = server("plain") if isinstance(server, type) else server()
    address = await served(nursery, with_routes(made))
    async with httpx.AsyncClient() as http:
        answer = await http.get(address.replace("/mcp", "/status"))
        assert (answer.status_code, answer.json()["size"]) == (200, 0)
        assert (await http.get(address.replace("/mcp", "/elsewhere"))).status_code == 404
        foreign = await http.get(address.replace("/mcp", "/status"), headers={"Host": "evil.example.com"})
        assert foreign.status_code == 421


async def test_the_body_for_a_custom_route_has_the_limit_of_messages(nursery: trio.Nursery) -> None:
    from trioxport import Limits

    address = await served(nursery, with_routes(MCPServer("plain")), limits=Limits(max_message_size=5000))
    async with httpx.AsyncClient() as http:
        url = address.replace("/mcp", "/status")
        assert (await http.post(url, content=b"x" * 5000)).json()["size"] == 5000
        assert (await http.post(url, content=b"x" * 5001)).status_code == 413


async def test_routes_that_a_target_cannot_serve_are_named_in_the_log(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    await served(nursery, with_routes(MCPServer("plain")), "tcp://127.0.0.1:0")
    assert "further HTTP routes cannot be reached here" in caplog.text


async def test_further_paths_have_one_answerer() -> None:
    async def fallback(*_: object) -> None: ...

    with pytest.raises(UsageError, match="both the server and HttpServer answer further paths"):
        await serve_sdk(with_routes(MCPServer("plain")), HttpServer(HTTP, fallback=fallback))


async def test_any_application_answers_the_other_paths(nursery: trio.Nursery) -> None:
    page = PlainTextResponse("a page")
    address = await served(nursery, MCPServer("plain"), HttpServer(HTTP, fallback=page, health="/health"))
    async with httpx.AsyncClient() as http:
        assert (await http.get(address.replace("/mcp", "/any"))).text == "a page"
        assert (await http.get(address.replace("/mcp", "/health"))).json() == {"status": "ok"}


# FastMCP without authentication, and the end of serving.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", [HTTP, "tcp://127.0.0.1:0", "ws://127.0.0.1:0/"])
async def test_a_fastmcp_server_is_served(target: str, mode: str, nursery: trio.Nursery) -> None:
    server: FastMCP[Any] = FastMCP("plain")

    @server.tool
    async def add(a: int, b: int) -> int:
        return a + b

    address = await served(nursery, server, target)
    async with Client(sdk_transport(address), mode=mode) as client:
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


class Slow:
    """A server with a tool that waits, and a way to see it run."""

    def __init__(self) -> None:
        self.server = MCPServer("slow")
        self.started = trio.Event()
        self.release = trio.Event()
        self.serving = trio.CancelScope()
        self.cancelled = False
        self.server.tool()(self.wait)

    async def serve(self, target: Target, close_timeout: float, *, task_status: trio.TaskStatus[str]) -> None:
        with self.serving:
            async with trio.open_nursery() as nursery:
                task_status.started(await served(nursery, self.server, target, close_timeout=close_timeout))

    async def wait(self) -> str:
        self.started.set()
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        return "done"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", [HTTP, HttpServer(HTTP, events=MemoryEvents())], ids=["plain", "events"])
async def test_running_calls_finish_when_serving_is_cancelled(target: str, mode: str, nursery: trio.Nursery) -> None:
    slow = Slow()
    address = await nursery.start(slow.serve, target, 10)
    async with Client(sdk_transport(address), mode=mode) as client, trio.open_nursery() as calls:
        await client.list_tools()  # else the client asks for the tool's output schema when it has the result
        results: list[Any] = []

        async def call() -> None:
            results.append(await client.call_tool("wait", {}))

        calls.start_soon(call)
        await slow.started.wait()
        slow.serving.cancel()
        await trio.testing.wait_all_tasks_blocked(0.05)
        slow.release.set()
    assert results[0].structured_content == {"result": "done"}
    assert not slow.cancelled


async def test_a_call_that_does_not_finish_is_cancelled_after_close_timeout(nursery: trio.Nursery) -> None:
    slow = Slow()
    address = await nursery.start(slow.serve, HTTP, 0.2)
    async with Client(sdk_transport(address), mode="legacy") as client, trio.open_nursery() as calls:

        async def call() -> None:
            with pytest.raises(MCPError):
                await client.call_tool("wait", {})

        calls.start_soon(call)
        await slow.started.wait()
        slow.serving.cancel()
    assert slow.cancelled


async def test_a_client_that_sends_no_more_still_gets_its_answer(nursery: trio.Nursery) -> None:
    slow = Slow()
    address = await served(nursery, slow.server, "tcp://127.0.0.1:0")
    async with open_transport(address) as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info={"name": "test", "version": "1"})
        async with trio.open_nursery() as calls:
            results: list[Any] = []

            async def call() -> None:
                results.append(await peer.request("tools/call", {"name": "wait", "arguments": {}}))

            calls.start_soon(call)
            await slow.started.wait()
            await connection.tx.aclose()
            await trio.testing.wait_all_tasks_blocked(0.05)
            slow.release.set()
    assert results[0]["structuredContent"] == {"result": "done"}
