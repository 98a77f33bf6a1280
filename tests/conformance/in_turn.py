"""Runs a command once it is its turn, a few at a time: the suite starts all of its clients at once.

    python in_turn.py FOLDER COMMAND...

Those that share the folder take turns.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Final

AT_ONCE: Final = 4


def main() -> None:
    folder, *command = sys.argv[1:]
    turn = os.open(os.path.join(folder, f"turn-{os.getpid() % AT_ONCE}"), os.O_CREAT | os.O_RDWR)
    os.set_inheritable(turn, True)  # the lock is the command's, for as long as it runs
    fcntl.flock(turn, fcntl.LOCK_EX)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
