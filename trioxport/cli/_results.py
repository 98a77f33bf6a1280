"""Results to read: texts as they are, images and the like as a summary, everything else as JSON."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs

from trioxport import UsageError
from trioxport.cli._errors import complain_in_json
from trioxport.cli._output import complain, one_line, pretty, write
from trioxport.cli._terminal import print_json
from trioxport.protocol import items_of, members_of

_BLOCKS: Final = ("content", "contents", "messages")
"""The members of results that are lists of blocks: of tools, resources and prompts."""


@attrs.frozen
class Block:
    """A part of a result.

    Args:
        text: The text to show.
        data: The bytes to save, of a part that is no text.
    """

    text: str
    data: bytes | None = None


def show_result(result: Any, as_json: bool, output: str | None = None) -> int:
    """Print the result of a request and return the exit code: 1 if it is that of a tool that failed.

    Args:
        result: The result.
        as_json: Whether to print it as a line of JSON.
        output: The file to write it to, in place of the terminal: bytes if it has such, or else its text.
    """
    failed = members_of(result).get("isError") is True
    if as_json:
        write(one_line(result), sys.stdout)
    if failed:
        _complain_of_tool(readable(result), as_json)
    elif output is not None:
        _save(result, Path(output))
    elif not as_json:
        _print(result)
    return 1 if failed else 0


def _print(result: Any) -> None:
    blocks = blocks_of(result)
    if blocks is None:
        print_json(pretty(result), sys.stdout)
    else:
        write("\n".join(block.text for block in blocks), sys.stdout)


def readable(result: Any) -> str:
    """A result to read: the texts of its blocks, or indented JSON."""
    blocks = blocks_of(result)
    return pretty(result) if not blocks else "\n".join(block.text for block in blocks)


def blocks_of(result: Any) -> Sequence[Block] | None:
    """The blocks of a result of a tool, a resource or a prompt; None for another result."""
    members = members_of(result)
    for name in _BLOCKS:
        if isinstance(members.get(name), list):
            found = [_block(members_of(each)) for each in items_of(members[name])]
            if None in found:
                return None
            blocks = cast("list[Block]", found)
            return blocks or _structured(members)
    return _structured(members)


def _structured(result: Mapping[str, Any]) -> Sequence[Block] | None:
    """The structured content of a tool that gives nothing else."""
    if "structuredContent" in result:
        return [Block(pretty(result["structuredContent"]))]
    return [] if isinstance(result.get("content"), list) else None


def _block(block: Mapping[str, Any]) -> Block | None:
    if "role" in block:  # a message of a prompt
        inner = _block(members_of(block.get("content")))
        return None if inner is None else attrs.evolve(inner, text=f"{block['role']}: {inner.text}")
    if isinstance(block.get("text"), str):
        return Block(block["text"])
    if "resource" in block:
        return _block(members_of(block["resource"]))
    encoded = block.get("data", block.get("blob"))
    if isinstance(encoded, str):
        return _binary(block, encoded)
    if block.get("type") == "resource_link":
        about = ", ".join(str(block[name]) for name in ("name", "mimeType") if name in block)
        return Block(f"[link to {block.get('uri')}: {about}]")
    return Block(pretty(block)) if "type" in block else None


def _binary(block: Mapping[str, Any], encoded: str) -> Block:
    kind = str(block.get("mimeType", block.get("type", "data")))
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:  # binascii.Error among them
        return Block(f"[{kind}: not valid Base64]")
    where = f" of {block['uri']}" if "uri" in block else ""
    return Block(f"[{kind}{where}, {len(data):,} bytes; -o FILE saves it]", data)


def _save(result: Any, path: Path) -> None:
    """Write the bytes of a result to ``path``, further ones to numbered files beside it; or else its text."""
    contents = [block.data for block in blocks_of(result) or () if block.data is not None]
    texts = [readable(result).encode(errors="backslashreplace") + b"\n"]
    for number, data in enumerate(contents or texts, 1):
        place = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            place.write_bytes(data)
        except OSError as error:
            raise UsageError(f"{place} cannot be written: {error.strerror}", hint="Name another file by -o") from error
        write(f"saved {len(data):,} bytes to {place}", sys.stderr)


def _complain_of_tool(text: str, as_json: bool) -> None:
    if as_json:
        complain_in_json({"type": "ToolError", "message": text})
    else:
        complain(f"the tool failed: {text}")
