"""The client under the conformance suite: the SDK's ``Client`` over trioxport's HTTP.

The suite runs it with the server's URL as its argument, and the scenario's name, the revision to speak and more in
environment variables.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import mcp.types as types
import trio
from authorization import oauth_for
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from trioxport.interop.mcp_sdk import sdk_transport
from trioxport.transports.http import Http

SCENARIO: Final = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
CONTEXT: Final[dict[str, Any]] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
MODERN: Final = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION") in MODERN_PROTOCOL_VERSIONS
LEGACY_ONLY: Final = ("json-schema-ref-no-deref",)
"""Scenarios whose server knows only the handshake, whatever revision is asked for."""

EXAMPLES: Final = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}

Scenario: TypeAlias = Callable[[Client], Awaitable[None]]


async def accept_defaults(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Answer a form with its defaults, and a question for confirmation with yes."""
    assert isinstance(params, types.ElicitRequestFormParams)
    properties: dict[str, Any] = params.requested_schema.get("properties", {})
    filled = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    return types.ElicitResult(
        action="accept", content=filled | {name: True for name in properties if name == "confirmed"}
    )


async def sample_nothing(
    context: ClientRequestContext, params: types.CreateMessageRequestParams
) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text=""), model="none")


async def no_roots(context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[])


async def list_only(client: Client) -> None:
    await client.list_tools()


async def add_numbers(client: Client) -> None:
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def call_everything(client: Client) -> None:
    """Call each listed tool once, as far as its schema tells how."""
    for tool in (await client.list_tools()).tools:
        properties = tool.input_schema.get("properties", {})
        needed = tool.input_schema.get("required", [])
        arguments = {name: EXAMPLES.get(properties.get(name, {}).get("type"), "x") for name in needed}
        await tell_errors(client.call_tool(tool.name, arguments))


async def call_as_told(client: Client) -> None:
    """Call what the scenario's context says, of the tools that are listed."""
    listed = {tool.name for tool in (await client.list_tools()).tools}
    for call in CONTEXT.get("toolCalls", []):
        if call["name"] in listed:
            await tell_errors(client.call_tool(call["name"], call.get("arguments") or {}))


async def echo_schema(client: Client) -> None:
    [schema] = [
        tool.input_schema for tool in (await client.list_tools()).tools if tool.name == "json_schema_2020_12_tool"
    ]
    await client.call_tool("json_schema_echo", {"schema": schema})


async def round_trips(client: Client) -> None:
    await client.list_tools()
    for name in ("echo_state", "unrelated", "no_state"):
        await client.call_tool(f"test_mrtr_{name}", {})
    await tell_errors(client.call_tool("test_mrtr_no_result_type", {}))


async def tell_errors(call: Awaitable[object]) -> None:
    """An error is an answer too: to a call whose arguments were a guess, or to a result that the SDK refuses."""
    try:
        await call
    except (MCPError, ValidationError) as error:
        sys.stderr.write(f"{SCENARIO}: {error}\n")


SCENARIOS: Final[dict[str, Scenario]] = {
    "initialize": list_only,
    "json-schema-ref-no-deref": list_only,
    "json-schema-2020-12-preservation": echo_schema,
    "tools_call": add_numbers,
    "request-metadata": add_numbers,
    "http-standard-headers": add_numbers,
    "http-invalid-tool-headers": call_everything,
    "http-custom-headers": call_as_told,
    "sep-2322-client-request-state": round_trips,
}


async def main(url: str) -> None:
    mode = "auto" if MODERN and SCENARIO not in LEGACY_ONLY else "legacy"
    auth = oauth_for(SCENARIO, CONTEXT) if SCENARIO.startswith("auth/") else None
    async with Client(
        sdk_transport(Http(url, auth=auth)),
        mode=mode,
        elicitation_callback=accept_defaults,
        sampling_callback=sample_nothing,
        list_roots_callback=no_roots,
    ) as client:
        await SCENARIOS.get(SCENARIO, call_everything)(client)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
