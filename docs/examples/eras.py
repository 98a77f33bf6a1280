"""A client of the legacy era on a modern server, and a client of the modern era on a legacy server."""

import mcp.types as types
import trio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.servers import AsLegacyServer, AsModernServer

server = MCPServer("deployments")
SCHEMA: types.ElicitRequestedSchema = {"type": "object", "properties": {"stage": {"type": "string"}}}


class Answer(BaseModel):
    stage: str


@server.tool()
async def deploy(ctx: Context) -> str | types.InputRequiredResult:
    """Deploy, as a modern server asks: by a result."""
    if ctx.input_responses is None:
        question = types.ElicitRequestFormParams(message="Which stage?", requested_schema=SCHEMA)
        return types.InputRequiredResult(input_requests={"stage": types.ElicitRequest(params=question)})
    answer = ctx.input_responses["stage"]
    assert isinstance(answer, types.ElicitResult)
    return f"deployed, {answer.action}: {answer.content}"


@server.tool()
async def deploy_legacy(ctx: Context) -> str:
    """Deploy, as a legacy server asks: by a request."""
    answer = await ctx.elicit("Which stage?", Answer)
    return f"deployed, {answer.action}"


async def elicit(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"stage": "production"})


async def main() -> None:
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_sdk, server, "http://127.0.0.1:0/mcp")

        legacy = sdk_transport(url, layers=[AsLegacyServer()])
        async with Client(legacy, mode="legacy", elicitation_callback=elicit) as client:
            result = await client.call_tool("deploy", {})
            print(client.protocol_version, result.structured_content)

        modern = sdk_transport(url, layers=[AsModernServer()])
        async with Client(modern, mode="2026-07-28", elicitation_callback=elicit) as client:
            result = await client.call_tool("deploy_legacy", {})
            print(client.protocol_version, result.structured_content)
        nursery.cancel_scope.cancel()


trio.run(main)
