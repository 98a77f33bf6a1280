"""The command ``trioxport``.

To add a command ``bench``: give it a line in ``COMMANDS`` of ``_program``. Write a module ``bench`` here whose
``command`` is an async function that returns the exit code, decorated with ``@cli_command`` and the options of
``options``; it connects by ``open_target`` or ``open_session`` of ``connecting``. Add it to
``docs/reference/command-line.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trioxport._diagnostics.hints import install_hint


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: this process's) and return its exit code."""
    try:
        from trioxport.cli._program import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich", "prompt_toolkit"):
            raise
        print(f"trioxport: the command line needs the module {error.name!r}. {install_hint('cli')}", file=sys.stderr)
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)
