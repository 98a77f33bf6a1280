"""The time of ``import trioxport`` beside ``import trio``, each in new processes, and the modules that it loads."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

TARGET: Final = 1.3
"""Times the time of ``import trio``."""
NOT_WANTED: Final = (
    "brotli",
    "cattrs",
    "coredis",
    "google.protobuf",
    "h2",
    "httpx",
    "hypercorn",
    "keyring",
    "mcp",
    "opentelemetry",
    "trio_websocket",
    "zstandard",
)

_SCRIPT: Final = """
import sys, time
started = time.perf_counter()
import {module}
seconds = time.perf_counter() - started
import json
print(json.dumps([seconds, [name for name in {unwanted!r} if name in sys.modules]]))
"""


def measure(rounds: int) -> dict[str, Any]:
    """Import both in turn, ``rounds`` times."""
    times: dict[str, list[float]] = {"trio": [], "trioxport": []}
    loaded: set[str] = set()
    for _ in range(rounds + 1):
        for module, measured in times.items():
            seconds, found = _import(module)
            measured.append(seconds)
            loaded.update(found)
    ratios = [ours / trios for ours, trios in zip(times["trioxport"][1:], times["trio"][1:], strict=True)]
    return {
        "case": "import",
        "milliseconds": {module: round(min(measured[1:]) * 1000, 1) for module, measured in times.items()},
        "times_trio": round(statistics.median(ratios), 2),
        "times_trio_at_best": round(min(times["trioxport"]) / min(times["trio"]), 2),
        "target": TARGET,
        "loaded_though_not_wanted": sorted(loaded),
    }


def _import(module: str) -> tuple[float, list[str]]:
    script = _SCRIPT.format(module=module, unwanted=NOT_WANTED)
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, cwd=_ROOT)
    seconds, found = json.loads(done.stdout)
    return seconds, found


_ROOT: Final = Path(__file__).parents[1]
