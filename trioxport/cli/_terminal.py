"""Tables, colours and bars for a terminal; anything else gets plain text."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from typing import Final, TextIO

from trioxport.cli._output import printable, write

PIPE_WIDTH: Final = 100_000
"""Columns of a table that no terminal shows: nothing is cut or wrapped."""
BAR_WIDTH: Final = 24


def has_colours(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal, and the user has not asked for no colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(text: str, stream: TextIO) -> None:
    """Write a JSON text, in colours on a terminal."""
    if not has_colours(stream):
        write(text, stream)
        return
    from rich.console import Console
    from rich.highlighter import JSONHighlighter

    console = Console(file=stream, force_terminal=True)
    console.print(JSONHighlighter()(printable(text, stream)), soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Write a table; on a terminal its cells are wrapped so that it fits."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = stream.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell, stream)) for cell in row))
    output = io.StringIO()
    console = Console(
        file=output,
        force_terminal=has_colours(stream),
        width=shutil.get_terminal_size().columns if is_terminal else PIPE_WIDTH,
    )
    console.print(Text(title, style="bold"))
    if rows:
        console.print(table)
    stream.write("".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines()))
    stream.flush()


def progress_line(progress: float, total: float | None, message: str | None, stream: TextIO) -> str:
    """The progress of a request in one line of the terminal ``stream``: a bar if the total is known."""
    of = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
    width = shutil.get_terminal_size().columns - 1
    text = " ".join(part for part in (of, message) if part).replace("\n", " ")
    if not total or not 0 <= progress <= total:
        return printable(text, stream)[:width]
    return f"{_bar(progress, total, stream)} {printable(text, stream)[: max(0, width - BAR_WIDTH - 1)]}"


def _bar(progress: float, total: float, stream: TextIO) -> str:
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    output = io.StringIO()
    is_coloured = has_colours(stream)
    console = Console(file=output, force_terminal=is_coloured, width=BAR_WIDTH)
    console.print(ProgressBar(total=total, completed=progress, width=BAR_WIDTH), end="")
    return output.getvalue() if is_coloured else output.getvalue().ljust(BAR_WIDTH)
