"""Servers that are killed while clients call tools through them: no call is to be carried out twice, or told wrongly.

Every call has a number, and the server notes it in a file when it acts on it. The clients have the layers ``Retry`` and
``Timeout``, and connections that come back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Final, Literal, TypeAlias, get_args

import attrs
import trio

from trioxport import Backoff, Connection, Reconnect, Target, TransportError, open_transport
from trioxport.abc import Era, Layer
from trioxport.layers import Retry, Timeout
from trioxport.peer import Peer, open_peer
from trioxport.transports.grpc import Grpc
from trioxport.transports.http import Http
from trioxport.transports.http_stdio import HttpStdio
from trioxport.transports.stdio import Stdio

KillBinding: TypeAlias = Literal[
    "tcp",
    "ws",
    "http modern",
    "http legacy",
    "http2 modern",
    "http2 legacy",
    "grpc",
    "grpc unary",
    "stdio",
    "http+stdio",
]
KILL_BINDINGS: Final[tuple[KillBinding, ...]] = get_args(KillBinding)

SERVER: Final = Path(__file__).parent.parent / "programs" / "recording.py"
TARGETS: Final[dict[KillBinding, str]] = {
    "tcp": "tcp://127.0.0.1:{port}",
    "ws": "ws://127.0.0.1:{port}/mcp",
    "http modern": "http://127.0.0.1:{port}/mcp",
    "http legacy": "http://127.0.0.1:{port}/mcp",
    "http2 modern": "http://127.0.0.1:{port}/mcp",
    "http2 legacy": "http://127.0.0.1:{port}/mcp",
    "grpc": "grpc://127.0.0.1:{port}",
    "grpc unary": "grpc://127.0.0.1:{port}",
}
CLIENTS: Final[dict[KillBinding, Callable[[str], Target]]] = {
    "http2 modern": partial(Http, http2=True),
    "http2 legacy": partial(Http, http2=True),
    "grpc unary": partial(Grpc, method="mcp.MCPService/Call"),
}
"""What clients open, where it is more than an address."""
ERAS: Final[dict[KillBinding, Era]] = {
    "tcp": "legacy",
    "ws": "modern",
    "http modern": "modern",
    "http legacy": "legacy",
    "http2 modern": "modern",
    "http2 legacy": "legacy",
    "grpc": "legacy",
    "grpc unary": "modern",
    "stdio": "legacy",
    "http+stdio": "modern",
}
QUICKLY: Final = Backoff(base=0.02, cap=0.2)
PAUSE_SECONDS: Final = 0.8
"""Seconds between two kills, at most, besides what a server takes to start."""
ANSWER_SECONDS: Final = 3.0
HUNG_SECONDS: Final = 60.0


@attrs.define
class KillCounts:
    """The counts of the calls. Without damage the last four are 0.

    Attributes:
        kills: Servers that were killed.
        answered: Calls with a result.
        not_sent: Calls that failed without having reached a server, as their client was told.
        unknown: Calls of which their client was told that a server may have acted on them.
        twice: Calls that were carried out more than once.
        sent_after_all: Calls that were told as not sent, and were carried out.
        invented: Calls that had a result, and were not carried out.
        hung: Calls that were never settled.
    """

    kills: int = 0
    answered: int = 0
    not_sent: int = 0
    unknown: int = 0
    twice: int = 0
    sent_after_all: int = 0
    invented: int = 0
    hung: int = 0

    @property
    def total(self) -> int:
        """The damage."""
        return self.twice + self.sent_after_all + self.invented + self.hung


async def kills(
    binding: KillBinding, seconds: float, seed: int, directory: Path, *, clients: int = 8, at_once: int = 4
) -> KillCounts:
    """Kill servers every so often while clients call them, and return what came of the calls.

    Args:
        binding: How the clients are connected.
        seconds: How long.
        seed: What decides when servers are killed.
        directory: Where the server notes what it does.
        clients: How many connections there are.
        at_once: How many calls each has in flight.
    """
    storm = _Storm(binding, directory / f"{binding} {seed}.log", Random(seed))
    async with storm.server() as target, trio.open_nursery() as nursery:
        for _ in range(clients):
            await nursery.start(storm.client, target, at_once)
        await storm.rage(seconds)
    return storm.counted()


class _Storm:
    """One storm: its servers, and its clients."""

    def __init__(self, binding: KillBinding, log: Path, random: Random) -> None:
        self._binding = binding
        self._log = log
        self._random = random
        self._numbers = count(1)
        self._ends: dict[int, str] = {}
        self._counts = KillCounts()
        self._connections: list[Connection] = []
        self._process: trio.Process | None = None
        self._calm = trio.Event()
        self._address = ""

    # Servers.

    @property
    def _runs_children(self) -> bool:
        return self._binding in ("stdio", "http+stdio")

    @asynccontextmanager
    async def server(self) -> AsyncGenerator[Target]:
        """The address that clients connect to, and the server there; over stdio every client starts its own."""
        if self._runs_children:
            transport = Stdio if self._binding == "stdio" else HttpStdio
            yield transport(sys.executable, [str(SERVER), f"{self._binding}:", str(self._log)])
            return
        await self._start(0)
        try:
            yield CLIENTS.get(self._binding, str)(self._address)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HUNG_SECONDS):
                await self._kill_server()

    async def _start(self, port: int) -> None:
        command = [sys.executable, str(SERVER), TARGETS[self._binding].format(port=port), str(self._log)]
        self._process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        async with self._process.stdout as output:
            self._address = bytes(await output.receive_some()).decode().split()[0]

    async def _kill_server(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def rage(self, seconds: float) -> None:
        """Kill servers until the time is over, then let the clients finish."""
        over = trio.current_time() + seconds
        while trio.current_time() < over:
            await trio.sleep(self._random.random() * PAUSE_SECONDS)
            self._counts.kills += 1
            if self._runs_children:
                self._kill_child(self._random.choice(self._connections))
            else:
                await self._kill_server()
                await trio.sleep(self._random.random() * PAUSE_SECONDS / 4)
                await self._start(int(self._address.partition("127.0.0.1:")[2].partition("/")[0]))
        self._calm.set()

    def _kill_child(self, connection: Connection) -> None:
        if connection.state == "open" and connection.info.peer is not None:
            try:
                os.kill(int(connection.info.peer.removeprefix("pid ")), signal.SIGKILL)
            except ProcessLookupError:
                self._counts.kills -= 1

    # Clients.

    async def client(self, target: Target, at_once: int, *, task_status: trio.TaskStatus[None]) -> None:
        layers: list[Layer] = [
            Retry(12, backoff=QUICKLY, random=Random(self._random.random())),
            Timeout(ANSWER_SECONDS),
        ]
        reconnect = Reconnect(backoff=QUICKLY, attempts=None, random=Random(self._random.random()))
        async with (
            open_transport(target, layers=layers, reconnect=reconnect) as connection,
            open_peer(connection) as peer,
        ):
            await peer.negotiate(client_info={"name": "storm", "version": "1"}, era=ERAS[self._binding])
            self._connections.append(connection)
            task_status.started()
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(self._call, peer)

    async def _call(self, peer: Peer) -> None:
        while not self._calm.is_set():
            number = next(self._numbers)
            self._ends[number] = "hung"
            with trio.move_on_after(HUNG_SECONDS):
                try:
                    params = {"name": "act", "arguments": {"number": number}}
                    await peer.request("tools/call", params, timeout=None)
                except TransportError as error:
                    self._ends[number] = error.outcome or "unknown"
                else:
                    self._ends[number] = "answered"

    # Counting.

    def counted(self) -> KillCounts:
        counts, acted = self._counts, Counter(map(int, self._log.read_text().split()))
        ends = Counter(self._ends.values())
        counts.answered, counts.not_sent, counts.unknown = ends["answered"], ends["not_sent"], ends["unknown"]
        counts.hung = ends["hung"]
        counts.twice = sum(times > 1 for times in acted.values())
        counts.sent_after_all = sum(end == "not_sent" and number in acted for number, end in self._ends.items())
        counts.invented = sum(end == "answered" and number not in acted for number, end in self._ends.items())
        return counts
