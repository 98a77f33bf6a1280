"""The demo server, for trying transports: tools that echo, add, sleep, fail, and return a text of any size.

It speaks both eras. A request with modern ``_meta`` stands alone (specification 2026-07-28, basic/versioning); a client
that begins with ``initialize`` gets a legacy conversation (2025-11-25, basic/lifecycle).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, cast

import attrs
import trio

from trioxport._version import __version__
from trioxport.connection import Connection
from trioxport.frames import MIB
from trioxport.peer import IncomingRequest, JSONRPCError, open_peer
from trioxport.protocol import (
    DISCOVER,
    INITIALIZE,
    INVALID_PARAMS,
    LEGACY_VERSIONS,
    META,
    MODERN_VERSIONS,
    UNSUPPORTED_VERSION,
    meta_of,
)

SERVER_INFO: Final = {"name": "trioxport-demo", "version": __version__}
INSTRUCTIONS: Final = "Tools to try a transport with; none of them has an effect."
CAPABILITIES: Final[Mapping[str, Any]] = {"tools": {}}
CACHEABLE: Final = {"ttlMs": 3_600_000, "cacheScope": "public"}


async def serve_demo(connection: Connection) -> None:
    """Serve one connection until the client has ended: a handler for :func:`trioxport.serve_transport`.

    Raises ``ConnectionLost`` if the connection breaks.
    """
    server = _Server()
    requests = {
        INITIALIZE: server.initialize,
        DISCOVER: server.discover,
        "tools/list": server.list_tools,
        "tools/call": server.call_tool,
    }
    async with open_peer(connection, requests=requests) as peer:
        await peer.wait_finished()


class _ToolError(Exception):
    """A failure of a tool that its result reports to the caller."""


async def _echo(arguments: Mapping[str, Any], request: IncomingRequest) -> str:
    text: str = arguments["text"]
    return text


async def _add(arguments: Mapping[str, Any], request: IncomingRequest) -> dict[str, Any]:
    return {"sum": arguments["a"] + arguments["b"]}


async def _sleep(arguments: Mapping[str, Any], request: IncomingRequest) -> str:
    seconds, steps = arguments["seconds"], arguments.get("steps", 10)
    for step in range(1, steps + 1):
        await trio.sleep(seconds / steps)
        await request.progress(step, steps, f"step {step} of {steps}")
    return f"slept for {seconds:g} s in {steps} steps"


async def _fail(arguments: Mapping[str, Any], request: IncomingRequest) -> str:
    raise _ToolError(arguments.get("message", "this tool always fails"))


async def _payload(arguments: Mapping[str, Any], request: IncomingRequest) -> str:
    size: int = arguments["size"]
    return "0123456789abcdef" * (size // 16) + "0123456789abcdef"[: size % 16]


Function: TypeAlias = Callable[[Mapping[str, Any], IncomingRequest], Awaitable[str | dict[str, Any]]]
"""The function of a tool: returns a text, or a structure that fits the tool's output schema."""


@attrs.frozen
class _DemoTool:
    """A tool: its function and its description."""

    function: Function
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...] = ()
    output: Mapping[str, Any] | None = None

    def describe(self, name: str) -> dict[str, Any]:
        description: dict[str, Any] = {
            "name": name,
            "description": self.description,
            "inputSchema": _object(self.properties, self.required),
        }
        if self.output is not None:
            description["outputSchema"] = _object(self.output, tuple(self.output))
        return description

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise ``_ToolError`` for arguments that do not fit the input schema."""
        for name in self.required:
            if name not in arguments:
                raise _ToolError(f"the argument {name!r} is missing")
        for name, value in arguments.items():
            if name not in self.properties:
                raise _ToolError(f"there is no argument {name!r}")
            _check(name, value, self.properties[name])


def _object(properties: Mapping[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {"string": str, "integer": int, "number": (int, float)}


def _check(name: str, value: object, schema: Mapping[str, Any]) -> None:
    kind: str = schema["type"]
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
        raise _ToolError(f"the argument {name!r} has to be {'an' if kind[0] == 'i' else 'a'} {kind}")
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        raise _ToolError(f"the argument {name!r} has to be from {schema['minimum']} to {schema['maximum']}")


TOOLS: Final[Mapping[str, _DemoTool]] = {
    "echo": _DemoTool(_echo, "Returns the text that it is given.", {"text": {"type": "string"}}, ("text",)),
    "add": _DemoTool(
        _add,
        "Adds two numbers.",
        {"a": {"type": "number"}, "b": {"type": "number"}},
        ("a", "b"),
        {"sum": {"type": "number"}},
    ),
    "sleep": _DemoTool(
        _sleep,
        "Sleeps, and reports progress if the request asks for it.",
        {
            "seconds": {"type": "number", "minimum": 0, "maximum": 86_400},
            "steps": {"type": "integer", "minimum": 1, "maximum": 10_000, "description": "10 by default"},
        },
        ("seconds",),
    ),
    "fail": _DemoTool(_fail, "Fails with the message that it is given.", {"message": {"type": "string"}}),
    "payload": _DemoTool(
        _payload,
        "Returns a text of the size, in bytes.",
        {"size": {"type": "integer", "minimum": 0, "maximum": 256 * MIB}},
        ("size",),
    ),
}


class _Server:
    """The state of one connection, and its handlers."""

    def __init__(self) -> None:
        self._initialized = False

    async def initialize(self, request: IncomingRequest) -> dict[str, Any]:
        version = request.params.get("protocolVersion")
        if not isinstance(version, str):
            raise JSONRPCError(INVALID_PARAMS, "protocolVersion is missing")
        self._initialized = True
        return {
            "protocolVersion": version if version in LEGACY_VERSIONS else LEGACY_VERSIONS[0],
            "capabilities": CAPABILITIES,
            "serverInfo": SERVER_INFO,
            "instructions": INSTRUCTIONS,
        }

    async def discover(self, request: IncomingRequest) -> dict[str, Any]:
        _check_meta(request)
        versions = {"supportedVersions": list(MODERN_VERSIONS), "capabilities": CAPABILITIES}
        return _complete({**versions, "instructions": INSTRUCTIONS, **CACHEABLE})

    async def list_tools(self, request: IncomingRequest) -> dict[str, Any]:
        tools = {"tools": [tool.describe(name) for name, tool in TOOLS.items()]}
        return _complete({**tools, **CACHEABLE}) if self._is_modern(request) else tools

    async def call_tool(self, request: IncomingRequest) -> dict[str, Any]:
        modern = self._is_modern(request)
        name, arguments = request.params.get("name"), request.params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise JSONRPCError(INVALID_PARAMS, "name has to be a string, and arguments an object")
        tool = TOOLS.get(name)
        if tool is None:
            raise JSONRPCError(INVALID_PARAMS, f"Unknown tool: {name}")
        result = await _call(tool, cast("dict[str, Any]", arguments), request)
        return _complete(result) if modern else result

    def _is_modern(self, request: IncomingRequest) -> bool:
        """Whether a request is modern, and not legacy. Raises ``JSONRPCError`` if it is neither."""
        if self._initialized and META + "protocolVersion" not in meta_of(request.params):
            return False
        _check_meta(request)
        return True


async def _call(tool: _DemoTool, arguments: Mapping[str, Any], request: IncomingRequest) -> dict[str, Any]:
    try:
        tool.check(arguments)
        result = await tool.function(arguments, request)
    except _ToolError as error:
        return {"content": _text(str(error)), "isError": True}
    if isinstance(result, str):
        return {"content": _text(result), "isError": False}
    summary = ", ".join(f"{key}: {value}" for key, value in result.items())
    return {"content": _text(summary), "structuredContent": result, "isError": False}


def _check_meta(request: IncomingRequest) -> None:
    """Raise ``JSONRPCError`` unless the members that the modern era requires are there.

    Specification 2026-07-28, basic/index, section _meta.
    """
    meta = meta_of(request.params)
    version = meta.get(META + "protocolVersion")
    if not isinstance(version, str):
        raise JSONRPCError(INVALID_PARAMS, f"_meta lacks {META}protocolVersion, and there was no initialize")
    if version not in MODERN_VERSIONS:
        data = {"supported": list(MODERN_VERSIONS), "requested": version}
        raise JSONRPCError(UNSUPPORTED_VERSION, "Unsupported protocol version", data)
    if not isinstance(meta.get(META + "clientCapabilities"), dict):
        raise JSONRPCError(INVALID_PARAMS, f"_meta lacks {META}clientCapabilities")


def _complete(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with the members that the modern era adds to each."""
    return {"resultType": "complete", **result, "_meta": {META + "serverInfo": SERVER_INFO}}


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]
