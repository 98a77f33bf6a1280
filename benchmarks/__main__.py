"""``python -m benchmarks``: measure, print a table, and write JSON if told where to."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

from benchmarks import each_layer, imports, large_line, layers, stdio, streamable_http
from benchmarks.contenders import CONTENDERS
from benchmarks.http_contenders import HTTP_CONTENDERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure trioxport beside others.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file too")
    parser.add_argument(
        "--quick", action="store_true", help="seconds only, to see that it runs: its numbers say nothing"
    )
    arguments = parser.parse_args()
    results = run(quick=arguments.quick)
    print(table(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def run(*, quick: bool) -> dict[str, Any]:
    """All results."""
    return {
        "machine": _machine(),
        "stdio": trio.run(stdio.compare, 1 if quick else 40, 0.05 if quick else 1.0),
        "http": trio.run(streamable_http.compare, 1 if quick else 20, 0.05 if quick else 1.0),
        "layers": trio.run(layers.measure, 1 if quick else 15, 20 if quick else 1000),
        "each_layer": trio.run(each_layer.measure, 1 if quick else 15, 20 if quick else 1000),
        "large_line": large_line.measure(1 if quick else 7, (1 if quick else 64) * 1024**2),
        "import": imports.measure(1 if quick else 25),
    }


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("trio", "msgspec", "mcp")},
        "system": sys.platform,
        "cores": os.cpu_count(),
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    imported = results["import"]
    unwanted = ", ".join(imported["loaded_though_not_wanted"]) or "nothing"
    return "\n\n".join(
        (
            machine,
            _stdio_table(results["stdio"]),
            _http_table(results["http"]),
            _layers_table(results["layers"]),
            _each_layer_table(results["each_layer"]),
            _large_line_table(results["large_line"]),
            _rows(
                ("import", "trio", "trioxport", "times trio", "target", "loaded though not wanted"),
                [("milliseconds", *imported["milliseconds"].values(), imported["times_trio"], "≤ 1.3", unwanted)],
            ),
        )
    )


def _stdio_table(results: Iterable[dict[str, Any]]) -> str:
    return _rows(
        ("messages a second", *CONTENDERS, "times the SDK", "target", "of the bare pipe"),
        [
            (
                each["case"],
                *(f"{rates['median']:,} ({rates['best']:,})" for rates in each["per_second"].values()),
                each["times_the_sdk"],
                f"≥ {each['target']}",
                f"{each['share_of_the_bare_pipe']:.0%}",
            )
            for each in results
        ],
    )


def _http_table(results: Iterable[dict[str, Any]]) -> str:
    return _rows(
        (
            *("HTTP, a second", *HTTP_CONTENDERS, "times the SDK", "target", "times httpcore", "times httpx2"),
            *("times aiohttp", "load of the server"),
        ),
        [
            (
                each["case"],
                *(f"{rates['median']:,} ({rates['best']:,})" for rates in each["per_second"].values()),
                each["times_the_sdk"],
                f"≥ {each['target']}",
                *(each["times"][name] for name in ("httpcore", "httpx2", "aiohttp")),
                "" if each["load_of_the_server"] is None else f"{each['load_of_the_server']:.0%}",
            )
            for each in results
        ],
    )


def _layers_table(results: Iterable[dict[str, Any]]) -> str:
    return _rows(
        ("a layer that does nothing", *(f"{number} layers: µs" for number in layers.NUMBERS), "µs a layer", "target"),
        [
            (
                each["case"],
                *each["microseconds_for_an_exchange"].values(),
                each["microseconds_a_layer"],
                f"≤ {each['target']}",
            )
            for each in results
        ],
    )


def _each_layer_table(results: Iterable[dict[str, Any]]) -> str:
    return _rows(
        ("µs beyond an empty layer, for each message and direction", *each_layer.TRAFFIC, "target"),
        [
            (each["case"], *each["microseconds"].values(), f"≤ {each['target']}" if each["target"] else "")
            for each in results
        ],
    )


def _large_line_table(results: Iterable[dict[str, Any]]) -> str:
    return _rows(
        ("one line", "bare pipe: s", "trioxport: s", "times the pipe", "peak memory: times its size", "targets"),
        [
            (
                each["case"],
                *each["seconds"].values(),
                each["times_the_bare_pipe"],
                each["peak_times_the_size"],
                f"≤ {each['target']}",
            )
            for each in results
        ],
    )


def _rows(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    main()
