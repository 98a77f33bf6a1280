"""A server is killed, and is started again; the session goes on where it was."""

import os
import signal
import sys
from pathlib import Path

import trio

from trioxport import Connection, ConnectionLost, Failover, Reconnect, open_transport
from trioxport.peer import Peer, open_peer
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))])
CLIENT = {"name": "example", "version": "1.0"}


def kill(connection: Connection) -> None:
    assert connection.info.pid is not None
    os.kill(connection.info.pid, signal.SIGKILL)


async def ask(peer: Peer) -> None:
    tools = await peer.request("tools/list")
    print("tools:", ", ".join(tool["name"] for tool in tools["tools"]))


async def main() -> None:
    async with open_transport(SERVER, reconnect=Reconnect()) as connection, open_peer(connection) as peer:
        negotiated = await peer.negotiate(client_info=CLIENT, era="legacy")
        print("era:", negotiated.era)
        await ask(peer)

        states = connection.state_changes()
        kill(connection)
        while await anext(states) == "open":
            pass
        print("the server is gone")
        await ask(peer)  # waits for the next one, which the transport initializes

    async with open_transport(Failover(["tcp://127.0.0.1:1", SERVER]), reconnect=Reconnect()) as connection:
        print("open:", str(connection.info.target).partition(":")[0])

    try:
        async with open_transport(SERVER, reconnect=Reconnect(attempts=0)) as connection:
            kill(connection)
            await connection.rx.receive()
    except ConnectionLost as error:
        print("lost:", error.reason)


trio.run(main)
