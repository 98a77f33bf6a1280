"""Finding what blocks the event loop: a wait that Trio does not know of."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

import trio

from trioxport.testing.progress import is_library

STEP_SECONDS: Final = 0.005
"""Seconds that one step of a task may wait outside of Trio: less is noise."""
SAMPLE_SECONDS: Final = 0.005


class LoopWatch(trio.abc.Instrument):
    """The time for which tasks of this run waited without Trio, and the place where they did so longest.

    Waiting is time in which the thread did not compute. Where the system counts for each thread how often it gave up
    the processor by itself, a step without that was only interrupted by other programs, and does not count.
    """

    def __init__(self) -> None:
        self.blocked_seconds = 0.0
        self.longest_in: str | None = None
        self._longest_seconds = 0.0
        self._thread = threading.get_ident()
        self._begun: tuple[float, float, int] | None = None
        self._sampled: tuple[float, str] | None = None
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="trioxport loop watch", daemon=True)
        self._pauses = _pauses_of_thread()

    def __enter__(self) -> LoopWatch:
        self._sampler.start()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trio.lowlevel.remove_instrument(self)
        self._stop.set()
        self._sampler.join()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begun = (time.perf_counter(), time.thread_time(), self._pauses())

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            return
        wall, computing, pauses = begun
        waited = time.perf_counter() - wall - (time.thread_time() - computing)
        if waited >= STEP_SECONDS and self._pauses() != pauses:
            self.blocked_seconds += waited
            self._keep_longest(waited, wall, task)

    def _keep_longest(self, waited: float, begun: float, task: trio.lowlevel.Task) -> None:
        if waited > self._longest_seconds:
            self._longest_seconds = waited
            sampled = self._sampled
            self.longest_in = sampled[1] if sampled is not None and sampled[0] == begun else f"the task {task.name}"

    def _sample(self) -> None:
        """Look, in a thread, where a step is that takes long."""
        while not self._stop.wait(SAMPLE_SECONDS):
            begun = self._begun
            if begun is None or time.perf_counter() - begun[0] < STEP_SECONDS:
                continue
            frame = sys._current_frames().get(self._thread)  # pyright: ignore[reportPrivateUsage] # documented in sys
            place = _place_in(frame)
            if place is not None and self._begun is begun:
                self._sampled = (begun[0], place)


def _place_in(frame: FrameType | None) -> str | None:
    """The innermost place of a stack outside the libraries."""
    while frame is not None:
        code = frame.f_code
        if not is_library(code.co_filename):
            return f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})"
        frame = frame.f_back
    return None


def _pauses_of_thread() -> Callable[[], int]:
    """A counter of how often this thread has given up the processor; where there is none, each call is a pause."""
    try:
        from resource import RUSAGE_THREAD, getrusage  # Linux
    except ImportError:
        return itertools.count().__next__
    return lambda: getrusage(RUSAGE_THREAD).ru_nvcsw
