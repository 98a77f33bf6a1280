"""The words of a call: a method or a tool, with parameters as JSON or as ``name=value``."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import attrs

from trioxport import UsageError
from trioxport.cli._schemas import Pair, inner_object

METHODS: Final[Mapping[str, Sequence[str]]] = {
    "tools/list": (),
    "tools/call": ("name", "arguments"),
    "resources/list": (),
    "resources/templates/list": (),
    "resources/read": ("uri",),
    "resources/subscribe": ("uri",),
    "resources/unsubscribe": ("uri",),
    "prompts/list": (),
    "prompts/get": ("name", "arguments"),
    "completion/complete": ("ref", "argument", "context"),
    "logging/setLevel": ("level",),
    "ping": (),
    "server/discover": (),
    "initialize": (),
}
"""The methods that a client calls, with the names of their parameters."""

_JSON_BEGINS: Final = re.compile(r"""(?:^|(?<=\s))(?:[^\s=:"']+:=)?(?=[{\[])""")
_DECODER: Final = json.JSONDecoder()
_PAIR: Final = re.compile(r"([^=:\s{\"]+)(:?=)(.*)", re.DOTALL)


@attrs.frozen
class CallWords:
    """A call as the user typed it.

    Args:
        name: A method, or the name of a tool.
        params: Its parameters, if they were typed as JSON.
        pairs: Its parameters, if they were typed one by one.
    """

    name: str
    params: Mapping[str, Any] | None = None
    pairs: Sequence[Pair] = ()

    @property
    def is_known_method(self) -> bool:
        """Whether it is a method of MCP; anything else may be a tool."""
        return self.name in METHODS

    def nested(self) -> dict[str, Any] | None:
        """The parameters of a method: ``arguments.city=Paris`` is a member of an object. Raises ``UsageError``."""
        if not self.pairs:
            return None if self.params is None else dict(self.params)
        found: dict[str, Any] = {}
        for pair in self.pairs:
            *path, name = pair.name.split(".")
            holder = found
            for each in path:
                holder = inner_object(holder, each, pair.name)
            holder[name] = pair.as_json() if pair.is_json else pair.text
        return found


def parse_words(name: str, words: Sequence[str]) -> CallWords:
    """The call that words stand for.

    Args:
        name: A method or a tool.
        words: Nothing; a JSON object; ``-`` for a JSON object on standard input; or words such as ``a=1`` and
            ``b:={"x":1}``.

    Raises:
        UsageError: The words are none of these.
    """
    if len(words) == 1 and (words[0] == "-" or words[0].lstrip()[:1] in ("{", "[")):
        return CallWords(name, _object(words[0]))
    return CallWords(name, None, [_pair(word) for word in words])


def split_line(line: str) -> list[str]:
    """The words of a line: as in a shell, but JSON needs no quotes around it. Raises ``UsageError``."""
    words: list[str] = []
    rest = line
    try:
        while found := _JSON_BEGINS.search(rest):
            try:
                _, end = _DECODER.raw_decode(rest, found.end())
            except ValueError:
                break
            words += [*shlex.split(rest[: found.start()]), found[0].strip() + rest[found.end() : end]]
            rest = rest[end:]
        return words + shlex.split(rest)
    except ValueError:  # what looks like JSON is inside quotes
        pass
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"the line cannot be split into words: {error}", hint="Close the quote") from error


def _pair(word: str) -> Pair:
    found = _PAIR.fullmatch(word)
    if found is None:
        raise UsageError(
            f"the argument {word[:60]!r} cannot be understood",
            hint="Write NAME=VALUE, NAME:=JSON, or all of them as one JSON object in quotes",
        )
    return Pair(found[1], found[3], found[2] == ":=")


def _object(text: str) -> Mapping[str, Any]:
    try:
        params = json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except ValueError as error:
        raise UsageError(f"the parameters are not JSON: {error}") from error
    if not isinstance(params, dict):
        raise UsageError("the parameters are JSON, but no object")
    return cast("dict[str, Any]", params)
