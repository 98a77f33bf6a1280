"""Every transport keeps the contract under ``Reconnecting``.

A policy of no attempts changes nothing: all the rules hold. With attempts those hold that do not speak of a loss, and
what a loss is then is said by ``test_a_lost_connection_comes_back``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.support import links
from tests.support.redis_links import restarted_conversation_link, restarted_redis_link
from trioxport import Backoff, Reconnect, Request, Undelivered
from trioxport.testing import RULES, MakePair, check_transport, transport_checks
from trioxport.testing.harness import CheckSettings, ContractHarness
from trioxport.testing.peer import process_name

LINKS: Final[dict[str, Callable[..., MakePair]]] = {
    "memory": links.memory_link,
    "tcp": links.tcp_link,
    "tls": links.tls_link,
    "unix": links.unix_link,
    "stdio": links.stdio_link,
    "ws": links.ws_link,
    "wss": links.wss_link,
    "grpc": links.grpc_link,
}
NEVER: Final = Reconnect(attempts=0)
SOON: Final = Reconnect(backoff=Backoff(base=0.01, cap=0.05))
OF_A_LOSS: Final = {4, 5, 6}
"""In the fourth, the peer ends the connection and leaves a request unanswered."""

each_transport = pytest.mark.parametrize("transport", LINKS)


@pytest.mark.parametrize("rule", RULES)
@each_transport
async def test_without_attempts(transport: str, rule: int, tmp_path: Path) -> None:
    await check_transport(links.reconnecting(LINKS[transport](tmp_path), NEVER), rules=[rule])


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in OF_A_LOSS])
@each_transport
async def test_with_attempts(transport: str, rule: int, tmp_path: Path) -> None:
    await check_transport(links.reconnecting(LINKS[transport](tmp_path), SOON), rules=[rule])


@pytest.mark.parametrize("rule", [1, 7, 8, 9, 10])
async def test_unary_calls_with_attempts(rule: int) -> None:
    """The rules that a loss does not concern, and that a server keeps which answers and says nothing else."""
    checks = [check for check in transport_checks([rule]) if check.name != "survives_garbage"]
    await check_transport(links.reconnecting(links.unary_grpc_pair, SOON), checks=checks)


@each_transport
async def test_a_half_close_with_attempts(transport: str, tmp_path: Path) -> None:
    """The rest of the fourth rule."""
    [check] = [check for check in transport_checks([4]) if check.name == "half_closes"]
    await check_transport(links.reconnecting(LINKS[transport](tmp_path), SOON), checks=[check])


@each_transport
async def test_a_lost_connection_comes_back(transport: str, tmp_path: Path) -> None:
    await check_losses(links.reconnecting(LINKS[transport](tmp_path), SOON))


@pytest.mark.parametrize(
    "make_pair", [restarted_redis_link(), restarted_conversation_link()], ids=["redis", "redis+stream"]
)
async def test_a_connection_comes_back_when_redis_was_killed_and_started_again(make_pair: MakePair) -> None:
    await check_losses(links.reconnecting(make_pair, attrs.evolve(SOON, attempts=None)))


async def check_losses(make_pair: MakePair) -> None:
    """Time and again: what was in flight settles, and what is asked after that is answered."""
    async with make_pair() as pair, ContractHarness.of(make_pair, pair, CheckSettings()).talk() as end:
        tx, rx = end.connection
        for turn in range(3):
            silent = [Request(f"{turn}-{number}", "check/silent") for number in range(3)]
            for request in silent:
                await tx.send(request)
            await end.ask("check/echo", {"turn": turn})
            if pair.cut is None:
                silent.append(Request(f"{turn}-kill", "check/kill", {"process": process_name()}))
                await tx.send(silent[-1])
            else:
                await pair.cut()
            left = [await rx.receive() for _ in silent]
            assert [each.original for each in left if isinstance(each, Undelivered)] == silent
            assert {each.outcome for each in left if isinstance(each, Undelivered)} == {"unknown"}
            await end.ask("check/echo", {"again": turn})
        assert end.connection.state == "open"
