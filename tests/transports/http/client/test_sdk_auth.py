"""The OAuth client of the official Python SDK, an ``httpx2.Auth``, as the credentials of a connection."""

from __future__ import annotations

import trio
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from tests.support.scripted_http import Reply, Server, serving
from trioxport import Request, Response, open_transport
from trioxport.transports.http import Http


class Store:
    """A ``TokenStorage`` of the SDK."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def test_the_client_credentials_of_the_sdk() -> None:
    async def authorization(reply: Reply) -> None:
        if reply.asked.path == "/token":
            await reply.json({"access_token": "good", "token_type": "Bearer", "expires_in": 3600})
        else:
            where = base(issuer)
            endpoints = {"authorization_endpoint": f"{where}/authorize", "token_endpoint": f"{where}/token"}
            await reply.json({"issuer": where, "response_types_supported": ["code"], **endpoints})

    async def resource(reply: Reply) -> None:
        if reply.asked.path.startswith("/.well-known/"):
            await reply.json({"resource": server.url, "authorization_servers": [base(issuer)]})
        elif reply.asked.headers.get("authorization") == "Bearer good":
            await reply.result("fine")
        else:
            metadata = f"{base(server)}/.well-known/oauth-protected-resource/mcp"
            await reply.status(401, www_authenticate=f'Bearer resource_metadata="{metadata}"')

    with trio.fail_after(15):
        async with serving(resource) as server, serving(authorization) as issuer:
            auth = ClientCredentialsOAuthProvider(server.url, Store(), "me", "hunter2", issuer=base(issuer))
            async with open_transport(Http(server.url, auth=auth)) as (tx, rx):
                for number in range(5):
                    await tx.send(Request(number, "tools/call"))
                answers = [await rx.receive() for _ in range(5)]
    assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(5))
    assert [asked.path for asked in issuer.asked].count("/token") == 1
    assert all("hunter2" not in str(asked) for asked in server.asked)
