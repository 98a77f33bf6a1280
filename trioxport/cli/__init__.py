"""The command ``trioxport``.

To add a command ``bench``:

1. Give it a line in ``COMMANDS`` of ``_program``.
2. Write a module ``bench`` here with a ``command``: an async function that returns the exit code, decorated with
   ``@cli_command`` and the options of ``options``; it connects by ``open_target`` or ``open_session`` of
   ``connecting``. A command with commands of its own, such as ``tap show``, is a ``click.Group`` of them.
3. Add a heading and ``{command-help} trioxport bench`` to ``docs/reference/command-line.md``; the text is generated,
   and a test finds what is missing there.
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
