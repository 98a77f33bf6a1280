"""The server under the conformance suite: the SDK's ``MCPServer`` on trioxport's HTTP, in both eras.

Its argument is the URL to serve; it writes the address that it serves on as its only line.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from typing import Annotated, Any

import mcp.types as types
import trio
from fixtures import Answer, Choices, Defaults, add_contents
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import Prompt
from mcp.shared.exceptions import MCPDeprecationWarning
from pydantic import BaseModel, Field
from round_trips import NAME, add_round_trips, ask

from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.transports.http.server import HttpServer, MemoryEvents, Sessions


def build_server() -> MCPServer:
    server = MCPServer("conformance", version="1.0")
    add_contents(server)
    add_talk(server)
    add_questions(server)
    add_round_trips(server)
    add_changes(server)
    add_legacy_requests(server)
    return server


def add_talk(server: MCPServer) -> None:
    """Tools that tell how they are getting on."""

    @server.tool()
    async def test_tool_with_logging(ctx: Context) -> str:
        """Logs three steps."""
        for step in ("started", "processing data", "completed"):
            await ctx.info(f"Tool {step}")
        return "logged"

    @server.tool()
    async def test_logging_tool(ctx: Context) -> str:
        """Logs, for clients that want to hear it."""
        await ctx.info("logged")
        return "logged"

    @server.tool()
    async def test_streaming_elicitation(ctx: Context) -> str | types.InputRequiredResult:
        """Reports a step, then asks the user for a name."""
        await ctx.report_progress(1, 2)
        return ask(user_name=NAME) if ctx.input_responses is None else "answered"

    @server.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        """Reports three steps."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100, f"{done} of 100")
        return "done"

    @server.tool()
    async def test_reconnection(ctx: Context) -> str:
        """Lets its client go and come back for the answer."""
        await ctx.info("Before the stream is closed")
        await ctx.close_sse_stream()
        await ctx.info("After the stream was closed")
        return "reconnected"

    @server.tool()
    def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "none",
    ) -> str:
        """Takes an argument that is mirrored in a header."""
        return region

    @server.tool()
    async def test_missing_capability(ctx: Context) -> str:
        """Needs a client that can sample."""
        able = ctx.session.client_capabilities
        if able is None or able.sampling is None:
            needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "the client cannot sample", needed)
        return "sampling is there"


def add_questions(server: MCPServer) -> None:
    """Tools that ask the client in requests of the server's own (legacy era)."""

    async def elicit(ctx: Context, message: str, form: type[BaseModel]) -> str:
        answer = await ctx.elicit(message, form)
        content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
        return f"action={answer.action}, content={content}"

    @server.tool()
    async def test_sampling(prompt: str, ctx: Context) -> str:
        """Asks the model."""
        said = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
        result = await ctx.session.create_message([said], max_tokens=100, related_request_id=ctx.request_id)
        assert isinstance(result.content, types.TextContent)
        return f"LLM response: {result.content.text}"

    @server.tool()
    async def test_elicitation(message: str, ctx: Context) -> str:
        """Asks the user."""
        return await elicit(ctx, message, Answer)

    @server.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        """Asks the user, and suggests answers."""
        return await elicit(ctx, "Please review", Defaults)

    @server.tool()
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        """Lets the user choose."""
        return await elicit(ctx, "Please choose", Choices)


def add_changes(server: MCPServer) -> None:
    """Tools that change what is listed."""

    def passing() -> str:
        return "passing"

    @server.tool()
    async def test_trigger_tool_change(ctx: Context) -> str:
        """Changes the list of tools."""
        server.add_tool(passing, name="test_passing_tool")
        server.remove_tool("test_passing_tool")
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool()
    async def test_trigger_prompt_change(ctx: Context) -> str:
        """Changes the list of prompts."""
        server.add_prompt(Prompt.from_function(passing, name="test_passing_prompt"))
        server.remove_prompt("test_passing_prompt")
        await ctx.notify_prompts_changed()
        return "changed"


def add_legacy_requests(server: MCPServer) -> None:
    async def accept(ctx: ServerRequestContext, params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    lowlevel = server._lowlevel_server  # these have no decorators
    lowlevel.add_request_handler("logging/setLevel", types.SetLevelRequestParams, accept)
    lowlevel.add_request_handler("resources/subscribe", types.SubscribeRequestParams, accept)
    lowlevel.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, accept)

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK's own lack of types
    async def complete(
        ref: types.PromptReference | types.ResourceTemplateReference,
        argument: types.CompletionArgument,
        context: types.CompletionContext | None,
    ) -> types.Completion:
        return types.Completion(values=["paris", "park"], total=2, has_more=False)


async def main(url: str) -> None:
    target = HttpServer(url, events=MemoryEvents(), sessions=Sessions(retry=0.1))
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_sdk, build_server(), target))
        sys.stdout.write(f"{addresses[0]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    trio.run(main, sys.argv[1])
