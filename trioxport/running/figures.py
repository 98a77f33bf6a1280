"""The figures of a server for Prometheus; those of several workers are added up.

A worker writes its figures to a file of the shared folder once a second, and the page of each worker adds the files of
the others. The counters of a worker that died live on in its successor, so that no sum ever falls.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.abc import Layer
from trioxport.errors import UsageError
from trioxport.layers import Metrics, prometheus_text
from trioxport.layers.prometheus import counters_in, sum_of_texts
from trioxport.running.worker import WorkerPart
from trioxport.targets import Target, describe
from trioxport.transports.http.server import HttpServer

PUBLISH_SECONDS: Final = 1.0
_SUFFIX: Final = ".prom"


class Figures:
    """The figures of this process, and of the other workers.

    Args:
        layers: The layers of the server; the first :class:`Metrics` among them counts, or else a new one.
        part: The part of this process, if it is a worker.

    Attributes:
        layers: The layers, with one that counts.
    """

    def __init__(self, layers: Sequence[Layer], part: WorkerPart | None) -> None:
        found = next((layer for layer in layers if isinstance(layer, Metrics)), None)
        self._metrics = found or Metrics()
        self.layers: Sequence[Layer] = layers if found is not None else [self._metrics, *layers]
        self._folder = None if part is None else Path(part.folder)
        self._own = None if part is None else Path(part.folder, f"{part.number}{_SUFFIX}")
        self._before = "" if self._own is None else counters_in(_read(self._own))

    def page_of(self, target: Target, path: str) -> HttpServer:
        """``target`` with a page of the figures at ``path``. Raises ``UsageError`` if it is no HTTP server."""
        if not isinstance(target, HttpServer):
            raise UsageError("only an HTTP server has a page of figures", target=describe(target))
        return attrs.evolve(target, pages={**target.pages, path: self.text})

    def text(self) -> str:
        """The figures of all workers."""
        others: list[str] = []
        if self._folder is not None:
            others = [_read(file) for file in sorted(self._folder.glob(f"*{_SUFFIX}")) if file != self._own]
        return sum_of_texts([self._process_text(), *others])

    async def publish(self) -> None:
        """Write the figures of this process for the others, once a second and at the end."""
        assert self._own is not None
        try:
            while True:
                self._write(self._own)
                await trio.sleep(PUBLISH_SECONDS)
        finally:
            self._write(self._own)

    def _process_text(self) -> str:
        return sum_of_texts([self._before, prometheus_text(self._metrics.snapshot())])

    def _write(self, own: Path) -> None:
        written = own.with_suffix(".new")
        try:
            written.write_text(self._process_text(), encoding="utf-8")
            os.replace(written, own)
        except OSError as error:
            logger.warning("the figures of this worker cannot be written: %s", error)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
