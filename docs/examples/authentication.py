"""A client with an API key, and one with tokens that it fetches when it needs them."""

import trio

from trioxport import Connection, open_transport, serve_transport
from trioxport.auth import ApiKey, Bearer, Secret, Token
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.http import Http


async def discover(request: IncomingRequest) -> object:
    info = {"name": "example", "version": "1.0"}
    return {"supportedVersions": ["2026-07-28"], "capabilities": {}, "serverInfo": info}


async def handler(connection: Connection) -> None:
    async def whoami(request: IncomingRequest) -> object:
        return {"key": connection.info.headers.get("x-api-key")}

    async with open_peer(connection, requests={"whoami": whoami, "server/discover": discover}) as peer:
        await peer.wait_finished()


async def fetch_token() -> Token:
    print("a token is fetched")
    return Token("eyJhbGciOi...", expires_in=3600)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, handler, "http://127.0.0.1:0/mcp")

        for auth in (ApiKey("X-Api-Key", Secret("k3y")), Bearer(fetch_token)):
            print("with", auth)
            target = Http(address, auth=auth)
            async with open_transport(target) as connection, open_peer(connection) as peer:
                await peer.negotiate(client_info={"name": "example", "version": "1.0"})
                for _ in range(2):
                    print("the server saw", await peer.request("whoami"))

        nursery.cancel_scope.cancel()


trio.run(main)
