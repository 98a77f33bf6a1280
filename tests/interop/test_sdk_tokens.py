"""Verifiers of trioxport under the official SDK, and the SDK's under trioxport."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, Final

import pytest
import trio
from mcp import Client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from tests.support.tokens import AUDIENCE, ISSUER, claims_now, ec_key, jwks
from trioxport.auth import Bearer, InvalidToken, VerificationUnavailable, VerifiedToken, Verify
from trioxport.auth.dpop import DPoPKey
from trioxport.auth.verification import JWTVerifier
from trioxport.interop.mcp_sdk import SDKTokenVerifier, from_sdk_verifier, sdk_transport, serve_sdk
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, ProtectedResource

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the legacy era

BOUND: Final = 20.0
HTTP: Final = "http://127.0.0.1:0/mcp"
VERIFIER: Final = JWTVerifier(ISSUER, AUDIENCE, keys=jwks(ec_key()))


async def whoami() -> dict[str, Any]:
    token = get_access_token()
    return {} if token is None else token.model_dump()


async def seen_by(server: MCPServer, target: Any, token: str, mode: str) -> dict[str, Any]:
    """The token that a tool of the server sees."""
    server.tool()(whoami)
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_sdk, server, target))
        async with Client(sdk_transport(Http(address, auth=Bearer(token))), mode=mode) as client:
            seen: dict[str, Any] | None = (await client.call_tool("whoami", {})).structured_content
        nursery.cancel_scope.cancel()
    assert seen is not None
    return seen


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("checked_by", ["trioxport", "SDK"])
async def test_the_claims_of_a_signed_token_reach_a_tool(checked_by: str, mode: str) -> None:
    claims = claims_now(aud=["https://other.example.com", AUDIENCE], tenant="one")
    if checked_by == "trioxport":
        server, target = MCPServer("plain"), HttpServer(HTTP, verify=ProtectedResource(VERIFIER, scopes=["mcp"]))
    else:
        auth = AuthSettings(
            issuer_url=AnyHttpUrl(ISSUER),
            resource_server_url=AnyHttpUrl(AUDIENCE),
            required_scopes=["mcp"],
            validate_token_resource=True,
        )
        verifier: TokenVerifier = SDKTokenVerifier(VERIFIER)
        server, target = MCPServer("protected", token_verifier=verifier, auth=auth), HttpServer(HTTP)
    with trio.fail_after(BOUND):
        seen = await seen_by(server, target, ec_key().token(claims), mode)
    assert (seen["subject"], seen["client_id"], seen["scopes"]) == ("ada", "client-1", ["mcp", "files:read"])
    assert (seen["expires_at"], seen["claims"]["tenant"]) == (claims["exp"], "one")


async def test_in_a_session_a_tool_sees_the_token_of_its_own_request() -> None:
    current = "narrow"

    async def provided() -> str:
        return current

    async def verify(token: str) -> VerifiedToken:
        return VerifiedToken("ada", scopes=["mcp"] if token == "narrow" else ["mcp", "files"])

    server = MCPServer("plain")
    server.tool()(whoami)
    auth = Bearer(provided)
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(serve_sdk, server, HttpServer(HTTP, verify=verify)))
            async with Client(sdk_transport(Http(address, auth=auth)), mode="legacy") as client:
                first = (await client.call_tool("whoami", {})).structured_content
                current = "broad"
                await auth.refused({"authorization": "Bearer narrow"})
                second = (await client.call_tool("whoami", {})).structured_content
            nursery.cancel_scope.cancel()
    assert first is not None and second is not None
    assert (first["scopes"], second["scopes"]) == (["mcp"], ["mcp", "files"])


# Trioxport's verifiers for the SDK.


async def unavailable(token: str) -> str:
    raise VerificationUnavailable("the issuer does not answer")


async def principal_only(token: str) -> str | None:
    return "ada" if token == "good" else None


@pytest.mark.parametrize(
    ("verify", "token", "subject"),
    [
        (VERIFIER, ec_key().token(claims_now()), "ada"),
        (VERIFIER, ec_key().token(claims_now(aud="https://other.example.com")), None),
        (VERIFIER, ec_key().token(claims_now(cnf={"jkt": DPoPKey().thumbprint})), None),
        (VERIFIER, ec_key().token(claims_now(cnf={"x5t#S256": "hash"})), None),
        (principal_only, "good", "ada"),
        (principal_only, "bad", None),
    ],
)
async def test_the_sdk_gets_an_access_token_or_none(verify: Verify, token: str, subject: str | None) -> None:
    found = await SDKTokenVerifier(verify).verify_token(token)
    assert (None if found is None else found.subject) == subject
    if found is not None:
        assert found.token == ""


async def test_a_token_that_never_expires() -> None:
    async def verify(token: str) -> VerifiedToken:
        return VerifiedToken("ada", expires_at=math.inf)

    found = await SDKTokenVerifier(verify).verify_token("good")
    assert found is not None
    assert found.expires_at is None


async def test_the_resource_that_the_sdk_compares_is_the_audience() -> None:
    one = await SDKTokenVerifier(VERIFIER).verify_token(ec_key().token(claims_now(aud=["https://a.example", AUDIENCE])))
    assert one is not None and one.resource == AUDIENCE

    async def verify(token: str) -> VerifiedToken:
        return VerifiedToken("ada", claims={"aud": token.split()})

    for audiences, resource in (("a", "a"), ("a b", None), ("", None)):
        found = await SDKTokenVerifier(verify).verify_token(audiences)
        assert found is not None and found.resource == resource


async def test_the_sdk_learns_that_nothing_could_be_verified() -> None:
    with pytest.raises(VerificationUnavailable):
        await SDKTokenVerifier(unavailable).verify_token("token")


# The SDK's verifiers for trioxport.


class SDKTokens:
    """A verifier of the SDK's kind."""

    async def verify_token(self, token: str) -> AccessToken | None:
        facts: dict[str, Any] = {
            "good": {"resource": "https://MCP.example.com/mcp", "subject": "ada", "claims": {"iss": ISSUER}},
            "client": {"resource": AUDIENCE},
            "elsewhere": {"resource": "https://other.example.com/mcp"},
            "anywhere": {},
            "old": {"resource": AUDIENCE, "expires_at": int(time.time()) - 60},
        }
        if token not in facts:
            return None
        return AccessToken(token=token, client_id="client-1", scopes=["mcp"], **facts[token])


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("bad", "not valid"),
        ("elsewhere", "another audience"),
        ("anywhere", "another audience"),
        ("old", "expired"),
    ],
)
async def test_a_token_that_the_sdk_refuses_is_invalid(token: str, why: str) -> None:
    with pytest.raises(InvalidToken, match=why):
        await from_sdk_verifier(SDKTokens(), resource=AUDIENCE)(token)


async def test_a_token_that_the_sdk_accepts_has_its_facts() -> None:
    verify = from_sdk_verifier(SDKTokens(), resource=AUDIENCE)
    good, client = await verify("good"), await verify("client")
    assert isinstance(good, VerifiedToken) and isinstance(client, VerifiedToken)
    assert (good.client_id, good.scopes, good.claims) == ("client-1", ("mcp",), {"iss": ISSUER})
    assert good.principal == f'["client-1", "{ISSUER}", "ada"]'
    assert client.principal == "client-1"
    anywhere = await from_sdk_verifier(SDKTokens(), resource=None)("anywhere")
    assert isinstance(anywhere, VerifiedToken)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_tool_sees_what_the_verifier_of_the_sdk_returned(mode: str) -> None:
    verify = from_sdk_verifier(SDKTokens(), resource=AUDIENCE)
    with trio.fail_after(BOUND):
        seen = await seen_by(MCPServer("plain"), HttpServer(HTTP, verify=verify), "good", mode)
    assert (seen["token"], seen["subject"]) == ("good", "ada")
