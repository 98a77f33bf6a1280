"""A server that accepts signed access tokens, and demands a further scope for one of its tools."""

import logging
import time

import trio
from joserfc import jwt
from joserfc.jwk import ECKey

from trioxport import AuthenticationError, Connection, PermissionDenied, open_transport, serve_transport
from trioxport.auth import Bearer
from trioxport.auth.verification import JWTVerifier
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, ProtectedResource

logging.disable()  # the refusals of this example

ISSUER = "https://login.example.com"
RESOURCE = "https://mcp.example.com/mcp"
KEY = ECKey.generate_key("P-256", {"kid": "2026-11"})


def issued(scope: str, audience: str = RESOURCE) -> str:
    """An access token, as the authorization server would issue it."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": audience, "sub": "ada", "client_id": "editor", "scope": scope}
    header = {"alg": "ES256", "kid": "2026-11", "typ": "at+jwt"}
    return jwt.encode(header, {**claims, "iat": now, "exp": now + 300}, KEY)


async def discover(request: IncomingRequest) -> object:
    info = {"name": "example", "version": "1.0"}
    return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "serverInfo": info}


async def handler(connection: Connection) -> None:
    async def call(request: IncomingRequest) -> object:
        token = connection.info.token
        assert token is not None
        return {"content": [], "caller": token.principal, "client": token.client_id}

    async with open_peer(connection, requests={"tools/call": call, "server/discover": discover}) as peer:
        await peer.wait_finished()


async def attempt(url: str, token: str, tool: str) -> None:
    target = Http(url, auth=Bearer(token))
    try:
        async with open_transport(target) as connection, open_peer(connection) as peer:
            await peer.negotiate(client_info={"name": "example", "version": "1.0"})
            result = await peer.request("tools/call", {"name": tool, "arguments": {}})
            print(tool, "->", result["caller"], "with", result["client"])
    except (AuthenticationError, PermissionDenied) as error:
        print(tool, "->", type(error).__name__)


async def main() -> None:
    # Without keys=..., the verifier gets them from the issuer, and again when they rotate.
    verifier = JWTVerifier(ISSUER, RESOURCE, keys={"keys": [KEY.as_dict(private=False)]})
    protection = ProtectedResource(
        verifier,
        scopes=["files:read"],  # of every request
        required_scopes={"tools/call:delete_file": ["files:delete"]},
    )
    server = HttpServer("http://127.0.0.1:0/mcp", verify=protection)

    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_transport, handler, server)
        await attempt(url, issued("files:read"), "list_files")
        await attempt(url, issued("files:read"), "delete_file")
        await attempt(url, issued("files:read files:delete"), "delete_file")
        await attempt(url, issued("files:read", "https://other.example.com/mcp"), "list_files")
        nursery.cancel_scope.cancel()


trio.run(main)
