"""``python -m benchmarks.compression``: speed, size, and the size from which on it pays.

The messages are results of tools as they are on the wire: Python's own manual, source text of this project, records,
and a picture. Sizes are those of the encoded message.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Final

from trioxport import Response
from trioxport.codecs import JSON
from trioxport.codecs.content_codings import CODINGS, Coding, compress, expand, is_available

ROOT: Final = Path(__file__).parents[1]
LARGE: Final = 100_000
SIZES: Final = (128, 256, 512, 1024, 2048, 4096, 16_384, 65_536)
LINKS: Final = {"10 Mbit/s": 10e6, "100 Mbit/s": 100e6, "1 Gbit/s": 1e9, "10 Gbit/s": 10e9}
"""The bits a second of a link."""
EFFORTS: Final[dict[Coding, tuple[int, ...]]] = {
    "gzip": (1, 2, 3, 4, 6, 9),
    "deflate": (6,),
    "zstd": (1, 3, 9, 19),
    "br": (1, 4, 9),
}
_MAX_BYTES: Final = 64 * 1024 * 1024


def samples(size: int) -> dict[str, bytes]:
    """One message of about ``size`` bytes of each kind."""
    prose = "\n".join(topics.values())
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "trioxport").rglob("*.py")))
    picture = base64.b64encode(random.Random(1).randbytes(size * 3 // 4)).decode()
    return {
        "prose": _result({"type": "text", "text": prose[:size]}),
        "source": _result({"type": "text", "text": source[:size]}),
        "records": _result({"type": "text", "text": json.dumps(_records(size // 130), indent=1)}),
        "picture": _result({"type": "image", "mimeType": "image/png", "data": picture}),
    }


def _records(number: int) -> list[dict[str, Any]]:
    dice = random.Random(2)
    cities = ("Lisbon", "Nairobi", "Osaka", "Quito", "Tromsø")
    return [
        {
            "id": f"{dice.getrandbits(48):012x}",
            "city": dice.choice(cities),
            "temperature": round(dice.uniform(-9, 35), 1),
            "humidity": dice.randrange(101),
            "observed": f"2026-07-{dice.randrange(1, 29):02d}T{dice.randrange(24):02d}:00:00Z",
        }
        for _ in range(number)
    ]


def _result(content: dict[str, Any]) -> bytes:
    return JSON.encode(Response(1, {"content": [content], "isError": False, "resultType": "complete"}))


def measure(rounds: int, size: int = LARGE) -> dict[str, Any]:
    """Speed and size of each coding and effort, and the break-even of each coding."""
    codings = [coding for coding in CODINGS if is_available(coding)]
    kinds = samples(size)
    return {
        "speed": [_speed(coding, effort, kinds, rounds) for coding in codings for effort in EFFORTS[coding]],
        "break_even": [_break_even(coding, kinds["prose"], rounds) for coding in codings],
    }


def _speed(coding: Coding, effort: int, kinds: dict[str, bytes], rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"coding": coding, "effort": effort}
    for kind, payload in kinds.items():
        small = compress(coding, payload, effort)
        found[kind] = {
            "ratio": round(len(payload) / len(small), 2),
            "compress": _rate(len(payload), lambda p=payload: compress(coding, p, effort), rounds),  # type: ignore[misc]  # a default
            "expand": _rate(len(payload), lambda s=small: expand(coding, s, _MAX_BYTES), rounds),  # type: ignore[misc]  # a default
        }
    return found


def _rate(size: int, work: Callable[[], object], rounds: int) -> float:
    """Megabytes a second."""
    return round(size / _seconds(work, rounds) / 1e6, 1)


def _seconds(work: Callable[[], object], rounds: int) -> float:
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)  # only the processor is at work here: a slower run was disturbed


def _break_even(coding: Coding, prose: bytes, rounds: int) -> dict[str, Any]:
    """Bytes saved and seconds spent for each size; for each link, the smallest size from which on it pays."""
    sizes = []
    for size in SIZES:
        payload = prose[: size - 40] + prose[-40:]
        small = compress(coding, payload)
        work = _seconds(lambda p=payload: compress(coding, p), rounds * 3)  # type: ignore[misc]  # a default
        work += _seconds(lambda s=small: expand(coding, s, _MAX_BYTES), rounds * 3)  # type: ignore[misc]  # a default
        sizes.append({"size": size, "bytes": len(small), "microseconds": round(work * 1e6, 1)})
    pays = {
        link: next(
            (each["size"] for place, each in enumerate(sizes) if all(_pays(it, rate) for it in sizes[place:])), None
        )
        for link, rate in LINKS.items()
    }
    return {"coding": coding, "sizes": sizes, "pays_from": pays}


def _pays(each: dict[str, Any], rate: float) -> bool:
    saved: float = (each["size"] - each["bytes"]) * 8 / rate
    taken: float = each["microseconds"] / 1e6
    return saved > taken


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    kinds = [name for name in results["speed"][0] if name not in ("coding", "effort")]
    speed = _rows(
        ["coding, effort", *(f"{kind}: ratio, compress / expand MB/s" for kind in kinds)],
        (
            [
                f"{each['coding']}, {each['effort']}",
                *(f"{each[kind]['ratio']}, {each[kind]['compress']} / {each[kind]['expand']}" for kind in kinds),
            ]
            for each in results["speed"]
        ),
    )
    sizes = _rows(
        ["prose: bytes left (µs to compress and expand)", *map(str, SIZES)],
        (
            [each["coding"], *(f"{size['bytes']} ({size['microseconds']})" for size in each["sizes"])]
            for each in results["break_even"]
        ),
    )
    pays = _rows(
        ["pays from this size in bytes on, over a link of", *LINKS],
        ([each["coding"], *map(str, each["pays_from"].values())] for each in results["break_even"]),
    )
    return f"{speed}\n\n{sizes}\n\n{pays}"


def _rows(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=51, help="how often each is done; the best is shown")
    parser.add_argument("--size", type=int, default=LARGE, help="bytes of a message in the first table")
    arguments = parser.parse_args()
    print(table(measure(arguments.rounds, arguments.size)))


if __name__ == "__main__":
    main()
