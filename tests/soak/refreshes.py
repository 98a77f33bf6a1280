"""Three programs with one login, whose token is refused to all at the same moment, again and again.

Refresh tokens rotate, and the authorization server revokes the login when one is used twice. Now and then a program is
killed within the fence: after it has read the login, while its request is on its way, or after it has written the new
one. A program that is killed after the server has rotated the token and before it has written it loses the login,
whatever a client does: that is the one moment which is left out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final, Literal, TypeAlias, get_args

import attrs
import trio

from tests.programs.refreshing import shared_store
from tests.support.authorization_server import REDIRECT, Site, serving_site
from trioxport.auth.oauth import OAuth, OutOfBand
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse

StoreKind: TypeAlias = Literal["file", "keychain"]
STORES: Final[tuple[StoreKind, ...]] = get_args(StoreKind)
POINTS: Final = ("read", "sent", "written")
PROGRAMS: Final = 3
ROOT: Final = Path(__file__).parents[2]


@attrs.define
class LoginDamage:
    """The damage to the login: everything but ``rounds``, ``kills`` and ``refreshes`` should be 0.

    Attributes:
        rounds: Times that the token was refused to all.
        kills: Programs that were killed within the fence.
        refreshes: Requests with a refresh token that the server answered with new tokens.
        failed: Requests that got no answer of the MCP server.
        reuses: Refresh tokens that reached the server twice.
        surplus: Refreshes beyond one a round.
    """

    rounds: int = 0
    kills: int = 0
    refreshes: int = 0
    failed: int = 0
    reuses: int = 0
    surplus: int = 0

    @property
    def total(self) -> int:
        return self.failed + self.reuses + self.surplus


class Program:
    """One of the programs."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._lines = b""

    async def ask(self, point: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f"{point}\n".encode())

    async def line(self) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._lines:
            more = await self._process.stdout.receive_some()
            if not more:
                return "the program has ended"
            self._lines += more
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def running(site: Site, kind: StoreKind, directory: Path) -> AsyncGenerator[Program]:
    command = [sys.executable, "-m", "tests.programs.refreshing", site.server, kind, str(directory)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ
    )
    try:
        program = Program(process)
        assert await program.line() == "ready"
        yield program
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                await trio.aclose_forcefully(stream)


class Storm:
    """The rounds over one site."""

    def __init__(self, site: Site, kind: StoreKind, directory: Path, seed: int) -> None:
        self.damage = LoginDamage()
        self._site = site
        self._kind: StoreKind = kind
        self._directory = directory
        self._random = Random(seed)

    async def run(self, rounds: int, kills: int) -> None:
        """Refuse the token ``rounds`` times; in ``kills`` of the rounds one program is killed, and replaced."""
        deadly = set(self._random.sample(range(rounds), kills))
        async with AsyncExitStack() as stack:
            programs = [await self._another(stack) for _ in range(PROGRAMS)]
            for number in range(rounds):
                self.damage.rounds += 1
                if number not in deadly:
                    await self._round(programs)
                    continue
                programs.remove(await self._round_with_a_kill(programs))
                programs.append(await self._another(stack))

    async def _another(self, stack: AsyncExitStack) -> Program:
        return await stack.enter_async_context(running(self._site, self._kind, self._directory))

    async def _round(self, programs: list[Program]) -> None:
        before = self._site.counts["issued"]
        self._site.revoke_access()
        for each in programs:
            await each.ask("-")
        await self._settle(programs, before)

    async def _round_with_a_kill(self, programs: list[Program]) -> Program:
        """Kill a program within the fence while the others wait for it. Returns the killed one."""
        point = self._random.choice(POINTS)
        victim = self._random.choice(programs)
        others = [each for each in programs if each is not victim]
        arrived = trio.Event()

        async def swallow(request: OAuthRequest) -> OAuthResponse:
            arrived.set()
            await trio.sleep_forever()
            raise AssertionError

        before = self._site.counts["issued"]
        self._site.revoke_access()
        if point == "sent":
            self._site.answers["/token"] = swallow
            await victim.ask("-")
            await arrived.wait()
            del self._site.answers["/token"]
        else:
            await victim.ask(point)
            assert await victim.line() == "inside"
        for each in others:
            await each.ask("-")
        await trio.sleep(self._random.uniform(0, 0.02))  # the others may or may not wait for the fence already
        await victim.kill()
        self.damage.kills += 1
        await self._settle(others, before)
        return victim

    async def _settle(self, programs: list[Program], before: int) -> None:
        for each in programs:
            line = await each.line()
            if line != "200":
                self.damage.failed += 1
                print(line, file=sys.stderr)
        issued = self._site.counts["issued"] - before
        self.damage.refreshes += issued
        self.damage.surplus += max(0, issued - 1)
        self.damage.reuses = self._site.counts["reuses"]


async def refreshes(kind: StoreKind, rounds: int, seed: int, *, kills: int) -> LoginDamage:
    """The damage of that many rounds with a store of ``kind``."""
    with tempfile.TemporaryDirectory() as directory:
        async with serving_site() as site:
            store = shared_store(kind, Path(directory))
            await OAuth(store=store, interaction=OutOfBand(REDIRECT, site.consent)).login(site.server)
            storm = Storm(site, kind, Path(directory), seed)
            await storm.run(rounds, kills)
            return storm.damage
