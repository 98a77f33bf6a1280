"""The output of the command: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TextIO, cast

from trioxport._core.bounded_output import BoundedOutput, inherited
from trioxport._core.nursery import open_bare_nursery
from trioxport.protocol import members_of

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def write(text: str, stream: TextIO) -> None:
    """Write a line and wait until it is written; not to be used while a connection is open."""
    print(_encoded(text, stream).decode(stream.encoding or "utf-8"), file=stream, flush=True)


def escaped(text: str) -> str:
    """The text with control characters escaped, which could control a terminal; tabs and line feeds stay."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _encoded(text: str, stream: TextIO) -> bytes:
    """The bytes of a line. Control characters are escaped for a terminal, which they could control."""
    if stream.isatty():
        text = escaped(text)
    return text.encode(stream.encoding or "utf-8", "backslashreplace")


@asynccontextmanager
async def open_status() -> AsyncGenerator[Callable[[str], None]]:
    """A function that writes lines of status to a terminal; a stopped terminal delays nothing."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    output = BoundedOutput(inherited(sys.stderr.fileno()))
    try:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(output.run)
            yield lambda text: output.put(_encoded(text, sys.stderr) + b"\n")
            tasks.cancel_scope.cancel()
    finally:
        output.close()


def complain(text: str) -> None:
    """Write a message to the user to standard error."""
    write(f"trioxport: {text}", sys.stderr)


def one_line(value: Any) -> str:
    """``value`` as JSON for programs: one line of ASCII."""
    return json.dumps(value, separators=(",", ":"))


def readable(result: Any) -> str:
    """A result to read: the texts of a tool's content as they are, everything else as indented JSON."""
    texts = texts_of(result)
    return pretty(result) if texts is None else "\n".join(texts)


def texts_of(result: Any) -> list[str] | None:
    """The content of a tool's result, one entry per block; None if the result is of another kind."""
    content = members_of(result).get("content")
    if not isinstance(content, list):
        return None
    blocks = [members_of(block) for block in cast("list[object]", content)]
    return [_text_of(block) for block in blocks] if all("type" in block for block in blocks) else None


def _text_of(block: Mapping[str, Any]) -> str:
    text = block.get("text")
    return text if block["type"] == "text" and isinstance(text, str) else pretty(block)


def pretty(value: Any) -> str:
    """``value`` as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)
