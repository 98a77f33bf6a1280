"""Runs the official conformance suite, npm's ``@modelcontextprotocol/conformance``, against trioxport in both roles.

    python tests/conformance/run.py            the results as a table
    python tests/conformance/run.py --write    the same, into docs/reference/conformance.md

It needs ``tests/peers/node_modules``, which ``./tests/run`` installs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
PEERS: Final = HERE.parent / "peers"
SUITE: Final = PEERS / "node_modules" / "@modelcontextprotocol" / "conformance"
PAGE: Final = ROOT / "docs" / "reference" / "conformance.md"

Role: TypeAlias = Literal["client", "server", "bridge", "http2"]
"""``bridge`` is the same server, over HTTP too, behind a bridge; ``http2`` the same server over HTTP/2."""
ROLES: Final[tuple[Role, ...]] = ("client", "server", "bridge", "http2")
REVISIONS: Final = ("2025-11-25", "2026-07-28")
TIMEOUT_SECONDS: Final = 300
"""For one scenario, and until it is its turn: those of a client all start at once."""

MEASURING: Final = "COVERAGE_PROCESS_CONFIG"
"""Makes coverage measure a child. Each scenario of a client is one, and takes half as long again with it."""

_SCENARIO: Final = re.compile(r"^[✓✗] (?P<name>\S+): (?P<passed>\d+) passed, (?P<failed>\d+) failed", re.MULTILINE)
_UNSCORED: Final = re.compile(r"^  [✓✗] (?P<name>\S+) \((?P<why>[\w-]+)\)", re.MULTILINE)


@attrs.frozen
class Scenario:
    name: str
    passed: int
    failed: int
    required: bool


@attrs.frozen
class Outcome:
    """The verdict of the suite on one role in one revision."""

    role: Role
    revision: str
    scenarios: list[Scenario]

    @property
    def failing(self) -> list[Scenario]:
        return [scenario for scenario in self.scenarios if scenario.failed]

    def unexpected(self) -> list[str]:
        """The differences from the known failures: a failure without a known cause, or a cause without its failure."""
        known = known_failures(self.role)
        found = {scenario.name for scenario in self.failing}
        ran = {scenario.name for scenario in self.scenarios}
        required = [f"{scenario.name} fails, and is required" for scenario in self.failing if scenario.required]
        new = [f"{name} fails" for name in found - known.keys()]
        stale = [f"{name} passes, and is listed as failing" for name in (known.keys() & ran) - found]
        return sorted(required + new + stale)


def known_failures(role: Role) -> Mapping[str, str]:
    """The cause of each scenario that is known to fail."""
    listed = tomllib.loads((HERE / "known_failures.toml").read_text())
    causes: Mapping[str, str] = listed.get("client" if role == "client" else "server", {})
    return causes


def run(role: Role, revision: str) -> Outcome:
    """Let the suite judge ``role``. Raises ``RuntimeError`` if it does not come to a verdict."""
    with tempfile.TemporaryDirectory() as folder:
        if role == "client":
            words = (sys.executable, HERE / "in_turn.py", folder, sys.executable, HERE / "conforming_client.py")
            return _judged(role, revision, folder, "--command", " ".join(map(str, words)))
        with _server() as url:
            if role == "server":
                return _judged(role, revision, folder, "--url", url)
            with _bridge(url) if role == "bridge" else _http2_proxy(url) as before:
                return _judged(role, revision, folder, "--url", before)


@contextmanager
def _server() -> Generator[str]:
    command = [sys.executable, str(HERE / "conforming_server.py"), "http://127.0.0.1:0/mcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def _bridge(url: str) -> Generator[str]:
    command = [sys.executable, "-m", "trioxport", "bridge", "http://127.0.0.1:0/mcp", url, "--no-access-log"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as bridge, ThreadPoolExecutor() as threads:
        assert bridge.stderr is not None
        try:
            found = re.search(r"serving (\S+)$", bridge.stderr.readline())
            assert found
            threads.submit(bridge.stderr.read)
            yield found[1]
        finally:
            bridge.terminate()


@contextmanager
def _http2_proxy(url: str) -> Generator[str]:
    """The URL at which the suite, which speaks HTTP/1.1 alone, reaches a server over HTTP/2."""
    command = ["node", str(HERE / "http2_proxy.mjs"), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdin is not None and proxy.stdout is not None
        try:
            yield proxy.stdout.readline().strip()
        finally:
            proxy.stdin.close()  # "node" may be a program that starts another, which a signal would leave behind


def _judged(role: Role, revision: str, folder: str, *options: str) -> Outcome:
    timeout = str(TIMEOUT_SECONDS * 1000)
    judged = "client" if role == "client" else "server"
    suite = ["node", str(SUITE / "dist" / "index.js"), judged, "--requirements", revision, "--timeout", timeout]
    command = [*suite, "--output-dir", folder, *options]
    environment = {name: value for name, value in os.environ.items() if name != MEASURING}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    summary = done.stdout.rpartition("SUMMARY")[2]
    unscored = {found["name"] for found in _UNSCORED.finditer(summary)}
    scenarios = [
        Scenario(found["name"], int(found["passed"]), int(found["failed"]), found["name"] not in unscored)
        for found in _SCENARIO.finditer(summary)
    ]
    if not scenarios:
        raise RuntimeError(f"the suite says nothing about the {role}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Outcome(role, revision, scenarios)


def page(outcomes: list[Outcome]) -> str:
    """The results as a page of the documentation."""
    suite = json.loads((SUITE / "package.json").read_text())["version"]
    lines = [
        "# Conformance",
        "",
        "Results of the official conformance suite for trioxport's Streamable HTTP and OAuth, under the official",
        "Python SDK.",
        f"Written by `python tests/conformance/run.py --write`: suite {suite}, SDK {version('mcp')}. The tests run the",
        "same, and fail when a line of this page is no longer true.",
        "",
        "| role | revision | transport | required scenarios | their checks | other scenarios |",
        "|---|---|---|---|---|---|",
        *map(_row, outcomes),
        "",
        "Other scenarios are those that the suite runs and does not score: extensions, and additions made after the",
        "revision's release.",
    ]
    causes = {
        (outcome.role, name): cause
        for outcome in outcomes
        if outcome.role in ("client", "server")  # those of the others are the server's
        for name, cause in known_failures(outcome.role).items()
    }
    if causes:
        lines += ["", "## Known failures", "", "| role | scenario | cause |", "|---|---|---|"]
        lines += [f"| {role} | {name} | {cause} |" for (role, name), cause in causes.items()]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome) -> str:
    required = [scenario for scenario in outcome.scenarios if scenario.required]
    others = [scenario for scenario in outcome.scenarios if not scenario.required]
    checks = sum(scenario.passed + scenario.failed for scenario in required)
    cells = [
        {"bridge": "server behind a bridge", "http2": "server"}.get(outcome.role, outcome.role),
        outcome.revision,
        "Streamable HTTP over HTTP/2" if outcome.role == "http2" else "Streamable HTTP",
        _share(sum(not scenario.failed for scenario in required), len(required)),
        _share(sum(scenario.passed for scenario in required), checks),
        _share(sum(not scenario.failed for scenario in others), len(others)),
    ]
    return f"| {' | '.join(cells)} |"


def _share(passed: int, total: int) -> str:
    return f"{passed} of {total}"


def main() -> int:
    outcomes = [run(role, revision) for role in ROLES for revision in REVISIONS]
    text = page(outcomes)
    sys.stdout.write(text)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(text)
    unexpected = [f"{outcome.role} {outcome.revision}: {line}" for outcome in outcomes for line in outcome.unexpected()]
    sys.stderr.write("".join(f"{line}\n" for line in unexpected))
    return 1 if unexpected else 0


if __name__ == "__main__":
    raise SystemExit(main())
