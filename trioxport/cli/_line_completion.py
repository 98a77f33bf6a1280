"""Completion at the prompt of ``trioxport connect``: methods, tools, arguments and their values, resources, prompts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from trioxport.cli._requests import Caller
from trioxport.cli._schemas import choices
from trioxport.cli._words import METHODS
from trioxport.cli.list import KINDS
from trioxport.errors import TransportError
from trioxport.peer import Prompt, Tool
from trioxport.protocol import JSONRPCError, members_of


class SessionCompleter(Completer):
    """Completes lines by the tools, prompts and resources of a server.

    Args:
        commands: The names of the commands that are no calls.
    """

    def __init__(self, commands: Sequence[str]) -> None:
        self._commands = commands
        self._tools: Mapping[str, Tool] = {}
        self._prompts: Mapping[str, Prompt] = {}
        self._uris: Sequence[str] = ()

    async def load(self, caller: Caller) -> None:
        """Ask the server for its lists; those that it does not give are left empty."""
        client = caller.client
        has = client.server.capabilities
        try:
            self._tools = {tool.name: tool for tool in await caller.list_tools()}
            if "prompts" in has:
                self._prompts = {prompt.name: prompt for prompt in await client.list_prompts()}
            if "resources" in has:
                self._uris = [resource.uri for resource in await client.list_resources()]
        except (TransportError, JSONRPCError):
            return

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        before = document.text_before_cursor
        word = "" if before[-1:].isspace() else before.split(" ")[-1]
        for text in self.candidates(before.split()[: None if not word else -1], word):
            yield Completion(text, start_position=-len(word))

    def candidates(self, words: Sequence[str], word: str) -> Iterable[str]:
        """The words that can stand for ``word``, the unfinished last one, behind ``words``."""
        if words[:1] == ["call"]:
            words = words[1:]
        if not words:
            found = [*self._commands, *self._tools, *METHODS]
        elif words[0] == "list":
            found = list(KINDS)
        elif words[0] == "help":
            found = list(self._tools)
        elif "=" in word:
            name, _, _ = word.partition("=")
            found = [f"{name}={shlex.quote(value)}" for value in self._values(words, name.removesuffix(":"))]
        else:
            used = {each.partition("=")[0] for each in words[1:]}
            found = [f"{name}=" for name in self._arguments(words) if name not in used]
        return [each for each in dict.fromkeys(found) if each.startswith(word)]

    def _arguments(self, words: Sequence[str]) -> Iterable[str]:
        tool = self._tools.get(words[0])
        if tool is not None:
            return members_of(tool.input_schema.get("properties"))
        prompt = self._chosen_prompt(words)
        if prompt is not None:
            return ["name", *(f"arguments.{argument.name}" for argument in prompt.arguments)]
        return METHODS.get(words[0], ())

    def _values(self, words: Sequence[str], name: str) -> Iterable[str]:
        if name == "uri" and words[0].startswith("resources/"):
            return self._uris
        if name == "name" and words[0] in ("prompts/get", "tools/call"):
            return self._prompts if words[0] == "prompts/get" else self._tools
        tool = self._tools.get(words[0])
        if tool is None:
            return ()
        return _choices(members_of(members_of(tool.input_schema.get("properties")).get(name)))

    def _chosen_prompt(self, words: Sequence[str]) -> Prompt | None:
        if words[0] != "prompts/get":
            return None
        names = [word.removeprefix("name=") for word in words if word.startswith("name=")]
        return self._prompts.get(names[0]) if names else None


def _choices(schema: Mapping[str, Any]) -> Sequence[str]:
    if schema.get("type") == "boolean":
        return ["true", "false"]
    return [value if isinstance(value, str) else json.dumps(value) for value in choices(schema)]
