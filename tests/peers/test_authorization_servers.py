"""Tokens of authorization servers that nobody here wrote: oidc-provider, the official SDK's, and Authlib's."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import httpx2
import pytest
import trio
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator  # type: ignore[import-untyped]  # it has no types
from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from joserfc.jwk import ECKey, KeyParameters, KeySet, RSAKey
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyHttpUrl, AnyUrl

from tests.support.raw_http import calling, modern
from tests.support.recording_handler import serving
from trioxport.auth import InvalidToken, VerificationUnavailable, VerifiedToken, Verify
from trioxport.auth.dpop import DPoPKey, token_hash
from trioxport.auth.verification import DPoP, IntrospectionVerifier, JWTVerifier
from trioxport.interop.mcp_sdk import from_sdk_verifier, serve_sdk
from trioxport.transports.http.server import HttpServer, ProtectedResource

BOUND: Final = 30.0
PROGRAM: Final = Path(__file__).with_name("oidc_provider.mjs")
RESOURCE: Final = "https://mcp.example.com/mcp"
REDIRECT: Final = "http://127.0.0.1:1/callback"

pytestmark = pytest.mark.deadline(60)


@attrs.frozen
class OIDCProvider:
    """The server that runs in Node."""

    issuer: str

    def verifier(self, kind: str, audience: str = RESOURCE) -> Verify:
        if kind == "signed":
            return JWTVerifier(self.issuer, audience, type="at+jwt")
        endpoint = f"{self.issuer}/token/introspection"
        return IntrospectionVerifier(endpoint, "server", "secret", audience=audience, issuer=self.issuer)

    async def token(
        self, client: str, resource: str = RESOURCE, key: DPoPKey | None = None, scope: str = "mcp files:read"
    ) -> str:
        """A token for a client of its own, bound to a key if there is one."""
        url = f"{self.issuer}/token"
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        headers = {} if key is None else {"dpop": key.proof("POST", url)}
        async with httpx.AsyncClient() as http:
            answer = await http.post(url, data=form, auth=(client, "secret"), headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == ("Bearer" if key is None else "DPoP")
        return str(answer.json()["access_token"])

    async def revoke(self, client: str, token: str) -> None:
        async with httpx.AsyncClient() as http:
            url = f"{self.issuer}/token/revocation"
            assert (await http.post(url, data={"token": token}, auth=(client, "secret"))).status_code == 200


@asynccontextmanager
async def oidc_provider(node: str) -> AsyncGenerator[OIDCProvider]:
    command = [node, str(PROGRAM)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        process: trio.Process = await nursery.start(partial(run, env=os.environ))
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some()
        yield OIDCProvider(f"http://127.0.0.1:{int(said.rpartition(b'port ')[2])}")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["signed", "opaque"])
async def test_a_token_of_oidc_provider_is_verified(kind: str, everything_server: list[str]) -> None:
    with trio.fail_after(BOUND):
        async with oidc_provider(everything_server[0]) as provider:
            verify = provider.verifier(kind)
            found = await verify(await provider.token(kind))
            assert isinstance(found, VerifiedToken)
            assert (found.principal, found.client_id) == (kind, kind)
            assert set(found.scopes) == {"mcp", "files:read"}
            assert found.expires_at is not None and found.key_thumbprint is None
            with pytest.raises(InvalidToken, match="another audience"):
                await verify(await provider.token(kind, "https://other.example.com/mcp"))
            with pytest.raises(InvalidToken):
                await verify((await provider.token(kind))[:-2])


async def test_a_revoked_token_of_oidc_provider_is_not_active(everything_server: list[str]) -> None:
    with trio.fail_after(BOUND):
        async with oidc_provider(everything_server[0]) as provider:
            token = await provider.token("opaque")
            await provider.revoke("opaque", token)
            with pytest.raises(InvalidToken, match="not active"):
                await provider.verifier("opaque")(token)
            wrong = IntrospectionVerifier(
                f"{provider.issuer}/token/introspection", "server", "other-secret", audience=RESOURCE
            )
            with pytest.raises(VerificationUnavailable, match="client_secret") as caught:
                await wrong(token)
    assert "other-secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["signed", "opaque"])
async def test_a_token_that_oidc_provider_binds_to_a_key_needs_its_proof(
    kind: str, everything_server: list[str]
) -> None:
    key = DPoPKey()
    with trio.fail_after(BOUND):
        async with oidc_provider(everything_server[0]) as provider:
            token = await provider.token(kind, key=key)
            protection = ProtectedResource(provider.verifier(kind), dpop=DPoP(nonce_seconds=60), scopes=["mcp"])
            async with serving(HttpServer("http://127.0.0.1:0/mcp", verify=protection)) as served:

                async def ask(scheme: str, nonce: str | None = None) -> tuple[int, str | None]:
                    proof = key.proof("POST", RESOURCE, ath=token_hash(token), nonce=nonce)
                    fields = {"authorization": f"{scheme} {token}", "dpop": proof}
                    async with calling(served.url, modern("hello"), **fields) as reply:
                        return reply.status, reply.headers.get("dpop-nonce")

                status, nonce = await ask("DPoP")
                assert status == 401 and nonce is not None
                assert (await ask("DPoP", nonce))[0] == 200
                assert (await ask("Bearer", nonce))[0] == 401
            assert [info.principal for info in served.infos] == [kind]


# Whole flows, with clients of the official SDK.


@attrs.define
class Storage:
    """The SDK's storage, in memory."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def whoami() -> dict[str, Any]:
    token = get_access_token()
    return {} if token is None else {"subject": token.subject, "client": token.client_id, "scopes": token.scopes}


async def called(url: str, auth: httpx2.Auth, mode: str) -> dict[str, Any]:
    """The token that a tool sees, when the SDK's client calls it."""
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        seen: dict[str, Any] | None = (await client.call_tool("whoami", {})).structured_content
    assert seen is not None
    return seen


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdks_client_finds_its_way_from_our_challenge_to_oidc_provider_and_back(
    mode: str, everything_server: list[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}/mcp"
    server = MCPServer("plain")
    server.tool()(whoami)
    with trio.fail_after(BOUND):
        async with oidc_provider(everything_server[0]) as provider, trio.open_nursery() as nursery:
            protection = ProtectedResource(provider.verifier("signed", url), scopes=["mcp"])
            await nursery.start(partial(serve_sdk, server, HttpServer(url, verify=protection)))
            auth = ClientCredentialsOAuthProvider(url, Storage(), "signed", "secret")
            seen = await called(url, auth, mode)
            nursery.cancel_scope.cancel()
    assert seen == {"subject": "signed", "client": "signed", "scopes": ["mcp"]}


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_sdks_client_gets_a_token_of_the_sdks_authorization_server() -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    issuer, url = f"http://127.0.0.1:{free_port()}", f"{origin}/mcp"
    tokens = InMemoryOAuthProvider(base_url=issuer)
    settings = AuthSettings(
        issuer_url=AnyHttpUrl(issuer),
        resource_server_url=AnyHttpUrl(f"{issuer}/mcp"),
        client_registration_options=ClientRegistrationOptions(enabled=True, valid_scopes=["mcp"]),
        required_scopes=["mcp"],
        validate_token_resource=False,
    )
    authorization_server = MCPServer("issuer", auth_server_provider=tokens, auth=settings)
    server = MCPServer("plain")
    server.tool()(whoami)
    redirects: list[str] = []

    async def consent(authorization_url: str) -> None:
        async with httpx.AsyncClient() as http:
            redirects.append((await http.get(authorization_url)).headers["location"])

    async def answer() -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(redirects[-1]).query)
        return AuthorizationCodeResult(code=query["code"][0], state=query["state"][0], iss=query.get("iss", [None])[0])

    metadata = OAuthClientMetadata(client_name="test", redirect_uris=[AnyUrl(REDIRECT)], scope="mcp")
    auth = OAuthClientProvider(url, metadata, Storage(), consent, answer)
    protection = ProtectedResource(
        from_sdk_verifier(tokens, resource=None), authorization_servers=[f"{issuer}/"], scopes=["mcp"]
    )
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_sdk, authorization_server, HttpServer(f"{issuer}/mcp")))
            await nursery.start(partial(serve_sdk, server, HttpServer(url, verify=protection)))
            seen = await called(url, auth, "auto")
            nursery.cancel_scope.cancel()
    assert len(redirects) == 1
    assert seen["scopes"] == ["mcp"]


# Authlib.


class AuthlibGenerator(JWTBearerTokenGenerator):  # type: ignore[misc]  # Authlib has no types
    """Access tokens by RFC 9068."""

    def __init__(self, issuer: str, key: Any, algorithm: str) -> None:
        super().__init__(issuer, algorithm)
        self._key = key

    def get_jwks(self) -> Any:
        return self._key

    def get_audiences(self, client: Any, user: Any, scope: str) -> str:
        return RESOURCE


class AuthlibClient:
    """A client as Authlib knows it."""

    def get_client_id(self) -> str:
        return "client-1"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_access_tokens_of_authlib_are_verified(algorithm: str) -> None:
    parameters: KeyParameters = {"kid": "one", "use": "sig"}
    key = ECKey.generate_key("P-256", parameters) if algorithm == "ES256" else RSAKey.generate_key(2048, parameters)
    issuer = "https://login.example.com"
    generator = AuthlibGenerator(issuer, KeySet([key]), algorithm)
    token = generator.access_token_generator(AuthlibClient(), "client_credentials", None, "mcp")
    verify = JWTVerifier(issuer, RESOURCE, keys={"keys": [key.as_dict(private=False)]}, type="at+jwt")
    found = await verify(token)
    assert (found.principal, found.client_id, found.scopes) == ("client-1", "client-1", ("mcp",))
    with pytest.raises(InvalidToken, match="another issuer"):
        await attrs.evolve(verify, issuer="https://other.example.com")(token)
