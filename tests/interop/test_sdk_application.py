"""A server of the official SDK, or of FastMCP, as an ASGI application on Trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn.trio
import pytest
import trio
from fastmcp import FastMCP
from hypercorn.config import Config
from mcp import Client
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.routing import Mount

from trioxport import AuthenticationError, open_transport
from trioxport.auth import Bearer
from trioxport.interop.asgi import McpApplication
from trioxport.interop.mcp_sdk import sdk_application, sdk_transport
from trioxport.peer import open_peer
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the legacy era

ENDPOINT = HttpServer("http://127.0.0.1/mcp", hosts=["127.0.0.1"])


@asynccontextmanager
async def on_hypercorn(app: Any) -> AsyncGenerator[str]:
    """The origin under which hypercorn serves an application on Trio."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 1
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        [origin] = await nursery.start(partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait))
        yield origin
        stop.set()


class Tokens:
    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id="client-1", scopes=["read"]) if token == "good" else None


def protected_server(lifespan: Any = None) -> MCPServer:
    auth = AuthSettings(
        issuer_url=AnyHttpUrl("https://issuer.example.com"),
        resource_server_url=AnyHttpUrl("https://mcp.example.com/mcp"),
        required_scopes=["read"],
        validate_token_resource=False,
    )
    return MCPServer("protected", token_verifier=Tokens(), auth=auth, lifespan=lifespan)


def mounted(server: Any) -> Starlette:
    application = sdk_application(server, ENDPOINT)
    return Starlette(routes=[Mount("/", app=application)], lifespan=application.lifespan)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("wrap", [mounted, partial(sdk_application, config=ENDPOINT)], ids=["mounted", "alone"])
@pytest.mark.parametrize("make", [MCPServer, FastMCP])
async def test_a_server_is_an_application(make: Any, wrap: Any, mode: str) -> None:
    server = make("plain")

    @server.tool()  # type: ignore[untyped-decorator]  # the server is of either library
    async def add(a: int, b: int) -> int:
        return a + b

    async with on_hypercorn(wrap(server)) as origin, Client(sdk_transport(f"{origin}/mcp"), mode=mode) as client:
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


async def test_its_authentication_holds_and_its_lifespan_is_that_of_the_application() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(server: object) -> AsyncGenerator[None]:
        events.append("entered")
        yield
        events.append("left")

    async with on_hypercorn(mounted(protected_server(lifespan))) as origin:
        async with Client(sdk_transport(Http(f"{origin}/mcp", auth=Bearer("good")))) as client:
            assert (await client.list_tools()).tools == []
        with pytest.raises(AuthenticationError):
            async with (
                open_transport(Http(f"{origin}/mcp", auth=Bearer("bad"))) as connection,
                open_peer(connection) as peer,
            ):
                await peer.negotiate(client_info={"name": "test", "version": "1"})
        assert events == ["entered"]
    assert events == ["entered", "left"]


@pytest.mark.parametrize("server", [MCPServer("plain"), FastMCP("plain")])
def test_a_server_in_place_of_a_handler_is_refused_at_once(server: Any) -> None:
    with pytest.raises(TypeError, match="sdk_application"):
        McpApplication(server, ENDPOINT)
