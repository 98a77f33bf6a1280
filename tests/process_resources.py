"""Descriptors and child processes of this process, to compare before and after."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def descriptors() -> dict[str, str]:
    """The open file descriptors, and what they are where the system tells."""
    found: dict[str, str] = {}
    for number in os.listdir("/dev/fd"):
        try:
            what = (
                os.readlink(f"/dev/fd/{number}") if sys.platform == "linux" else f"inode {os.fstat(int(number)).st_ino}"
            )
        except OSError:  # the descriptor that listed the directory
            continue
        found[number] = f"descriptor {number} ({what})"
    return found


def children() -> dict[str, str]:
    """The child processes of this one, zombies too, by process id. Linux only: elsewhere they are not counted."""
    found: dict[str, str] = {}
    main = str(os.getpid())
    threads = sorted(Path("/proc/self/task").glob("*"), key=lambda thread: thread.name == main)
    for thread in threads:  # the main thread last, since it inherits the children of threads that end
        try:
            pids = (thread / "children").read_text().split()
        except OSError:  # a thread that ended while this looked
            continue
        for pid in pids:
            try:
                found[pid] = f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
            except OSError:  # it ended while this looked
                continue
    return found


def new(now: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """What is there now and was not, or was another, before."""
    return {key: what for key, what in now.items() if what != before.get(key)}
