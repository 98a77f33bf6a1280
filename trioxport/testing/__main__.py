"""``python -m trioxport.testing TARGET``: try an installed binding against the contract of a connection."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NoReturn

import trio

from trioxport._core.nursery import open_bare_nursery, sole_exception
from trioxport._diagnostics.redaction import redact_url
from trioxport.abc import Codec
from trioxport.codecs import JSON, MessagePack
from trioxport.errors import TransportError, UsageError
from trioxport.targets import to_listener
from trioxport.testing.contract import run_check
from trioxport.testing.harness import CheckSettings
from trioxport.testing.pair import MakePair, TransportPair
from trioxport.testing.peer import serve_check_peer
from trioxport.testing.report import HEADING, CheckResult, ContractReport
from trioxport.testing.rules import transport_checks

CODECS: Final[dict[str, Codec]] = {"JSON": JSON, "MessagePack": MessagePack}
KILL_SECONDS: Final = 5.0

EPILOG: Final = """\
exit codes:
  0  every check passed, or was skipped for a reason that is shown
  1  a rule does not hold
  2  the arguments cannot be right, or the pair cannot be set up
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: this process's) and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.getLogger("trioxport").setLevel(logging.CRITICAL)  # the checks send what is logged as bad
    try:
        return trio.run(_serve if options.serve else _check, options)
    except BaseException as error:
        cause = sole_exception(error)
        if not isinstance(cause, TransportError | OSError):
            raise
        print(f"error: {cause}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trioxport.testing",
        description="Try a binding against the contract of a connection, from both of its sides.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="TARGET", help="a URL to serve, and to open unless it reports another address"
    )
    parser.add_argument(
        "--peer-process", action="store_true", help="serve it in another process, which checks a loss, too"
    )
    parser.add_argument("--serve", action="store_true", help="be that process: serve TARGET, and write its address")
    parser.add_argument(
        "--rule", type=int, action="append", dest="rules", metavar="N", help="only this rule; repeatable"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="where random numbers start (default: 0)")
    parser.add_argument("--codec", choices=CODECS, default="JSON", help="what both sides write (default: JSON)")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds for what ought to happen at once"
    )
    parser.add_argument(
        "--heartbeat", type=float, metavar="S", help="shortest time in seconds that a side may be silent"
    )
    parser.add_argument("--unreachable", metavar="URL", help="a target of the same scheme that no server listens on")
    return parser


async def _check(options: argparse.Namespace) -> int:
    checks = transport_checks(options.rules)
    settings = CheckSettings(CODECS[options.codec], seed=options.seed)
    print(HEADING)
    results: list[CheckResult] = []
    for check in checks:
        results.append(await run_check(check, _maker(options), settings))
        print(results[-1], flush=True)
    report = ContractReport(results, options.seed)
    print(report.summary)
    for result in report.failed:
        print(f"\n{result.error}")
    return 1 if report.failed else 0


def _maker(options: argparse.Namespace) -> MakePair:
    @asynccontextmanager
    async def make_pair() -> AsyncGenerator[TransportPair]:
        if options.peer_process:
            async with _peer_process(options) as address:
                yield _pair(options, opened=address or options.target)
        elif _can_be_served(options.target):
            yield _pair(options, served=options.target)
        else:
            yield _pair(options, opened=options.target)

    return make_pair


def _pair(options: argparse.Namespace, *, served: str | None = None, opened: str | None = None) -> TransportPair:
    return TransportPair(
        served,
        opened,
        through=None if served is None else lambda address: address or served,
        unreachable=options.unreachable,
        timeout=options.timeout,
        heartbeat=options.heartbeat,
    )


def _can_be_served(target: str) -> bool:
    try:
        to_listener(target)
    except UsageError as error:
        if "but not served" not in error.reason:
            raise
        return False
    return True


@asynccontextmanager
async def _peer_process(options: argparse.Namespace) -> AsyncGenerator[str]:
    """A process that serves the check peer; yields the address that it reports."""
    command = [sys.executable, "-m", "trioxport.testing", "--serve", options.target, "--codec", options.codec]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield await _address_of(process.stdout, options)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_SECONDS):
            process.kill()
            await process.wait()
            await process.stdout.aclose()


async def _address_of(stream: trio.abc.ReceiveStream, options: argparse.Namespace) -> str:
    """The first line that the peer's process writes."""
    line = b""
    with trio.move_on_after(options.timeout):
        async for chunk in stream:
            line += chunk
            if b"\n" in line:
                return line.partition(b"\n")[0].decode()
    raise UsageError(
        f"the peer's process did not serve within {options.timeout:g} s", target=redact_url(options.target)
    )


async def _serve(options: argparse.Namespace) -> NoReturn:
    async with open_bare_nursery() as tasks:
        addresses: list[str] = await tasks.start(partial(serve_check_peer, codec=CODECS[options.codec]), options.target)
        print(addresses[0] if addresses else "", flush=True)
        await trio.sleep_forever()
    raise AssertionError("this is served until cancelled")


if __name__ == "__main__":
    sys.exit(main())
