"""Requests of a session, as the user words them."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import trio

from trioxport import RequestTimeout, UsageError
from trioxport._diagnostics.hints import close_to
from trioxport.cli._schemas import arguments_of
from trioxport.cli._status import Status
from trioxport.cli._words import METHODS, CallWords
from trioxport.peer import Client, Negotiated, Tool
from trioxport.protocol import (
    DISCOVER,
    INITIALIZE,
    INVALID_PARAMS,
    META,
    METHOD_NOT_FOUND,
    JSONRPCError,
    members_of,
    meta_of,
)

MAX_LISTED: Final = 20
"""Names of tools that an error lists."""
LOG_LEVEL: Final = "info"
"""The level from which on servers are asked for log messages."""


class Patience:
    """The time that a request may take: each sign of life begins it anew, and questions to the user do not count.

    Args:
        seconds: Seconds without a sign of life.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._scope = trio.CancelScope()

    @contextmanager
    def limit(self, method: str, target: str) -> Generator[None]:
        """Limit the time of a block, in which one request of ``method`` is made. Raises ``RequestTimeout``."""
        with trio.CancelScope() as self._scope:
            self.renew()
            yield
        if self._scope.cancelled_caught:
            reason = f"no sign of life for {self.seconds:g} s in answer to {method}"
            raise RequestTimeout(reason, target=target, hint="Raise --timeout")

    def renew(self) -> None:
        """Note a sign of life."""
        self._scope.deadline = trio.current_time() + self.seconds

    @contextmanager
    def paused(self) -> Generator[None]:
        """Do not count the time of a block."""
        self._scope.deadline = math.inf
        yield
        self.renew()


class Caller:
    """Makes the requests of one session.

    Args:
        client: The client.
        patience: The time that each request may take.
        status: The place for progress.
        wants_logs: Whether to ask the server for log messages.
    """

    def __init__(self, client: Client, patience: Patience, status: Status, *, wants_logs: bool = False) -> None:
        self.client = client
        self.tools: Sequence[Tool] | None = None
        self._patience = patience
        self._status = status
        self._wants_logs = wants_logs

    async def call(self, words: CallWords) -> Any:
        """Call the method, or the tool, that the user named, and return the result.

        A tool that is not listed is called all the same: a server that gathers others leaves out those of one that is
        down, and says so when it is used.

        Raises what ``Client.request`` raises, and ``UsageError`` for words that fit no method and no tool.
        """
        if words.name in (DISCOVER, INITIALIZE):  # negotiation has called them
            return described(self.client.server)
        method, params = await self._meant(words)
        is_unlisted = method == "tools/call" and not words.is_known_method and self._listed(words.name) is None
        try:
            result = await self.request(method, params)
        except JSONRPCError as error:
            if is_unlisted and error.code in (INVALID_PARAMS, METHOD_NOT_FOUND):
                raise self._unknown(words.name) from error
            close = close_to(method, METHODS) if error.code == METHOD_NOT_FOUND and method not in METHODS else None
            if is_unlisted:
                error.hint = error.hint or f"Its list has no tool {words.name!r}"
            elif close is not None:
                error.hint = f"Did you mean {close!r}?"
            raise
        if is_unlisted and members_of(result).get("isError") is True:
            self._status.note(str(self._unknown(words.name)))
        return result

    async def request(self, method: str, params: Mapping[str, Any] | None) -> Any:
        """Send a request, show its progress, and return its result."""
        if self._wants_logs and self.client.server.era == "modern":
            params = {**(params or {}), "_meta": {META + "logLevel": LOG_LEVEL, **meta_of(params)}}
        result: Any = None
        try:
            with self._patience.limit(method, self.client.peer.target):
                result = await self.client.request(method, params, timeout=None, on_progress=self._on_progress)
        finally:
            self._status.clear()
        return result

    async def enable_logs(self) -> None:
        """Ask a legacy server for log messages, if it has any; a modern one is asked with each request."""
        if self.client.server.era == "legacy" and "logging" in self.client.server.capabilities:
            await self.request("logging/setLevel", {"level": LOG_LEVEL})

    async def list_tools(self) -> Sequence[Tool]:
        """List the tools, once for the session; none if the server says that it has none."""
        if self.tools is None:
            self.tools = ()
            if "tools" in self.client.server.capabilities:
                with self._patience.limit("tools/list", self.client.peer.target):
                    self.tools = await self.client.list_tools()
        return self.tools

    def _on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self._patience.renew()
        self._status.progress(progress, total, message)

    async def _meant(self, words: CallWords) -> tuple[str, Mapping[str, Any] | None]:
        """The method and the parameters that words stand for."""
        if words.is_known_method:
            return words.name, words.nested()
        tools = await self.list_tools()
        tool = self._listed(words.name)
        if tool is None and "/" in words.name:
            return words.name, words.nested()
        if not tools:
            raise self._unknown(words.name)
        if words.params is not None:
            arguments = words.params
        elif tool is not None:
            arguments = arguments_of(tool.name, tool.input_schema, words.pairs)
        else:
            arguments = words.nested() or {}
        return "tools/call", {"name": words.name, "arguments": arguments}

    def _listed(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools or () if tool.name == name), None)

    def _unknown(self, name: str) -> UsageError:
        tools = [tool.name for tool in self.tools or ()]
        if not tools:
            return UsageError(f"this server has no tools, and {name!r} is no method", hint="See trioxport list TARGET")
        close = close_to(name, [*tools, *METHODS])
        question = "" if close is None else f"Did you mean {close!r}? "
        more = f" and {len(tools) - MAX_LISTED} more" if len(tools) > MAX_LISTED else ""
        hint = f"{question}Its tools: {', '.join(tools[:MAX_LISTED])}{more}"
        return UsageError(f"this server has no tool {name!r}", hint=hint)


def described(server: Negotiated) -> dict[str, Any]:
    """The server's description of itself, as negotiation got it."""
    return {
        "era": server.era,
        "protocolVersion": server.protocol_version,
        "serverInfo": members_of(server.server_info),
        "capabilities": server.capabilities,
        "instructions": server.instructions,
    }
