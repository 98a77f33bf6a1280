"""``trioxport completion``: the script by which a shell completes commands, options and servers."""

from __future__ import annotations

import sys
from typing import Final

import click
from click.shell_completion import get_completion_class

from trioxport.cli._commands import CONTEXT, EXIT_CODES
from trioxport.cli._output import write

COMPLETION_VARIABLE: Final = "_TRIOXPORT_COMPLETE"
"""The variable by which a script asks this program for the words that may come next."""
SHELLS: Final = ("bash", "zsh", "fish")


@click.command(context_settings=CONTEXT, epilog=EXIT_CODES)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> int:
    """Print the script by which a shell completes the words of this program.

    \b
    bash:  trioxport completion bash > ~/.local/share/bash-completion/completions/trioxport
    zsh:   trioxport completion zsh > "${fpath[1]}/_trioxport"
    fish:  trioxport completion fish > ~/.config/fish/completions/trioxport.fish

    A new shell reads it. Commands, options, methods, files and the servers of the configuration are completed.
    """
    write(script_of(shell), sys.stdout)
    return 0


def script_of(shell: str) -> str:
    """The script for one of ``SHELLS``."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"no completion for {shell}")
    # the program itself is not needed for the script; the version of an installed bash, which .source() asks, neither
    completion = kind(click.Command("trioxport"), {}, "trioxport", COMPLETION_VARIABLE)
    return completion.source_template % completion.source_vars()
