"""OAuth under real clients, over HTTP: trioxport's own, httpx, httpx2 and the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import httpx2
import pytest
import trio
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests.support.authorization_server import Site, serving_site
from trioxport import InteractionRequired, OAuthError, PermissionDenied, Request, open_transport
from trioxport.auth.oauth import Browser, FileStore, OAuth, OutOfBand
from trioxport.peer import Client, open_client
from trioxport.transports.http import Http

ME: Final = {"name": "test", "version": "1"}


async def browse(url: str) -> None:
    """Open the page as a browser does, and follow its redirect to the listener."""
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(url, follow_redirects=True)


def auth(**options: object) -> OAuth:
    return OAuth(client_name="test", interaction=Browser(show=browse), **options)  # type: ignore[arg-type]  # of any kind


@asynccontextmanager
async def opened(target: Http) -> AsyncGenerator[Client]:
    async with open_transport(target) as connection, open_client(connection, client_info=ME) as client:
        yield client


@pytest.mark.parametrize("dpop", [False, True])
async def test_a_client_of_ours_logs_in(dpop: bool) -> None:
    async with serving_site(dpop=dpop) as site:
        async with opened(Http(site.server, auth=auth())) as client:
            assert await client.list_tools() == []
        assert len(site.pages) == 1
        assert {bool(each.jkt) for each in site.access.values()} == {dpop}


async def test_a_login_outlives_the_program(tmp_path: Path) -> None:
    async with serving_site() as site:
        for _ in range(2):
            async with opened(Http(site.server, auth=auth(store=FileStore(tmp_path / "s")))) as client:
                await client.list_tools()
        assert (len(site.pages), site.counts["issued"]) == (1, 1)


async def test_a_token_that_expires_is_refreshed_by_the_connection() -> None:
    async with serving_site(lifetime=0.4) as site:
        async with opened(Http(site.server, auth=auth())) as client:
            for _ in range(6):
                await client.list_tools()
                await trio.sleep(0.1)
        assert (len(site.pages), site.counts["reuses"]) == (1, 0)
        assert site.counts["refresh_token"] >= 1


async def test_a_header_of_the_caller_is_left_alone() -> None:
    async with serving_site() as site:
        async with open_transport(Http(site.server, auth=auth())) as (tx, rx):
            request = Request(1, "ping", metadata={"headers": {"authorization": "Bearer mine"}})
            await tx.send(request)
            await rx.receive()
        assert site.pages == []


async def test_a_need_for_a_person_reaches_the_caller() -> None:
    async with serving_site() as site:
        waiting = OAuth(interaction=OutOfBand("http://localhost:9/cb"))
        with pytest.raises(InteractionRequired) as caught:
            async with opened(Http(site.server, auth=waiting)):
                pass
        assert caught.value.url is not None
        await waiting.complete(site.server, await site.consent(caught.value.url))
        async with opened(Http(site.server, auth=waiting)) as client:
            await client.list_tools()


async def test_httpx_uses_it() -> None:
    async with serving_site() as site, httpx.AsyncClient(trust_env=False) as client:
        await _calls(site, client, auth().httpx_auth(site.server))


async def test_httpx2_uses_it() -> None:
    async with serving_site() as site, httpx2.AsyncClient(trust_env=False) as client:
        await _calls(site, client, auth().httpx2_auth(site.server))


async def _calls(site: Site, client: httpx.AsyncClient | httpx2.AsyncClient, flow: object) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for _ in range(2):
        response = await client.post(site.server, json=message, auth=flow)  # type: ignore[arg-type]  # of either library
        assert response.status_code == 200
    own = await client.post(site.server, json=message, auth=flow, headers={"authorization": "Bearer x"})  # type: ignore[arg-type]  # as above
    assert own.status_code == 401
    other = site.server.replace("127.0.0.1", "localhost")
    assert (await client.post(other, json=message, auth=flow)).status_code == 401  # type: ignore[arg-type]  # as above
    assert len(site.pages) == 1
    assert repr(flow) == f"OAuthFlow({site.server!r})"


async def test_the_official_sdk_uses_it() -> None:
    async with serving_site() as site:
        flow = auth().httpx2_auth(site.server)
        async with (
            httpx2.AsyncClient(auth=flow, trust_env=False) as http_client,
            streamable_http_client(site.server, http_client=http_client) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            assert (await session.list_tools()).tools == []
        assert len(site.pages) == 1


async def test_a_permission_that_is_not_granted_is_the_callers() -> None:
    async with serving_site(needed={"tools/list": frozenset({"admin"})}, granted="") as site:
        async with opened(Http(site.server, auth=auth())) as client:
            with pytest.raises(PermissionDenied):
                await client.list_tools()
        assert len(site.pages) <= 4


async def test_an_authorization_that_fails_is_an_error_of_the_caller() -> None:
    async with serving_site(metadata={"code_challenge_methods_supported": None}) as site:
        with pytest.raises(OAuthError, match="code_challenge_methods_supported") as caught:
            async with opened(Http(site.server, auth=auth())):
                pass
        assert caught.value.target == site.server
