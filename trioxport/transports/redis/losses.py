"""The log of lost connections to Redis: those of one process are lost together, and each reason is told once."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from trioxport._diagnostics import logger


@attrs.define
class _LostConnections:
    """The connections to one Redis that are lost, and the reasons that were told."""

    began: float = attrs.field(factory=trio.current_time)
    lost: set[LossLog] = attrs.field(factory=set["LossLog"])
    told: set[str] = attrs.field(factory=set[str])


_outages: Final[dict[str, _LostConnections]] = {}
"""The outages of this process, by target."""


class LossLog:
    """The log of one connection, which is opened again whenever it is lost. A reason that was told is at DEBUG.

    Args:
        target: The target, redacted.
    """

    def __init__(self, target: str) -> None:
        self._target = target

    def lost(self, reason: str) -> None:
        """Note that the connection is lost, or cannot be opened."""
        outage = _outages.setdefault(self._target, _LostConnections())
        outage.lost.add(self)
        level = logging.DEBUG if reason in outage.told else logging.WARNING
        outage.told.add(reason)
        logger.log(level, "%s: %s; connecting again", self._target, reason)

    def opened(self) -> None:
        """Note that the connection is open; the last one of an outage says so."""
        if (outage := self.leave()) is not None:
            logger.info("%s: connected again after %.1f s", self._target, trio.current_time() - outage.began)

    def leave(self) -> _LostConnections | None:
        """Leave the outage, and return it if it is over."""
        outage = _outages.get(self._target)
        if outage is None or self not in outage.lost:
            return None
        outage.lost.discard(self)
        return None if outage.lost else _outages.pop(self._target)


@contextmanager
def loss_log(target: str) -> Generator[LossLog]:
    """Keep a log for as long as there is to be a connection."""
    log = LossLog(target)
    try:
        yield log
    finally:
        log.leave()
