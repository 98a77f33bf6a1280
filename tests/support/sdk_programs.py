"""Programs on the official SDK: a server, and clients that each return what they saw, for comparing transports.

Run as a program, it serves on the target that its argument names.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import mcp.types as types
import trio
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPDeprecationWarning
from pydantic import BaseModel

from trioxport.interop.mcp_sdk import serve_sdk

Program: TypeAlias = Callable[[Callable[..., Client]], Awaitable[Any]]
"""Makes clients by the function it is given, which takes what ``Client`` takes, and returns what it saw."""


class Wish(BaseModel):
    colour: str


def build_server(**settings: Any) -> MCPServer:
    server = MCPServer("programs", instructions="Try everything", version="1.0", **settings)
    notes = {"todo": "buy milk", "journal": "day one"}
    cancelled: list[str] = []

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    def repeat(text: str, times: int) -> str:
        return text * times

    @server.tool()
    def fail() -> str:
        raise ValueError("no luck")

    @server.tool()
    async def count(upto: int, ctx: Context) -> str:
        for number in range(upto):
            await ctx.report_progress(number + 1, upto, f"step {number + 1}")
        return "counted"

    @server.tool()
    async def wait(name: str, ctx: Context) -> str:
        await ctx.report_progress(0)
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(name)

    @server.tool()
    def cancellations() -> list[str]:
        return cancelled

    @server.tool()
    async def talk(ctx: Context) -> str:
        await ctx.info("one")
        await ctx.warning({"two": 2}, logger_name="programs")
        return "said"

    @server.tool()
    async def ask(ctx: Context) -> str:
        answer = await ctx.elicit("Which colour?", Wish)
        return f"{answer.action} {answer.data.colour if answer.action == 'accept' else ''}"

    @server.tool()
    async def sample(ctx: Context) -> str:
        result = await ctx.session.create_message(
            [types.SamplingMessage(role="user", content=types.TextContent(text="Say it"))], max_tokens=10
        )
        assert isinstance(result.content, types.TextContent)
        return result.content.text

    @server.tool()
    async def deploy(ctx: Context) -> str | types.InputRequiredResult:
        answers = ctx.input_responses
        if answers is None:
            schema: types.ElicitRequestedSchema = {"type": "object", "properties": {"colour": {"type": "string"}}}
            question = types.ElicitRequest(
                params=types.ElicitRequestFormParams(message="Which colour?", requested_schema=schema)
            )
            return types.InputRequiredResult(input_requests={"colour": question}, request_state="asked")
        answer = answers["colour"]
        assert isinstance(answer, types.ElicitResult)
        return f"{ctx.request_state} {answer.content}"

    @server.tool()
    async def muse(ctx: Context) -> str | types.InputRequiredResult:
        if ctx.input_responses is None:
            said = types.SamplingMessage(role="user", content=types.TextContent(text="Say it"))
            question = types.CreateMessageRequest(
                params=types.CreateMessageRequestParams(messages=[said], max_tokens=10)
            )
            return types.InputRequiredResult(input_requests={"said": question}, request_state="asked")
        answer = ctx.input_responses["said"]
        assert isinstance(answer, types.CreateMessageResult)
        assert isinstance(answer.content, types.TextContent)
        return answer.content.text

    @server.tool()
    async def edit(name: str, text: str, ctx: Context) -> str:
        notes[name] = text
        await ctx.notify_resource_updated(f"note://{name}")
        return "saved"

    @server.resource("note://{name}")
    def note(name: str) -> str:
        return notes[name]

    @server.prompt()
    def greet(name: str) -> str:
        return f"Greet {name}"

    return server


async def tools(client_of: Callable[..., Client]) -> Any:
    async with client_of() as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        added = await client.call_tool("add", {"a": 1, "b": 2})
        failed = await client.call_tool("fail", {})
        try:
            await client.read_resource("note://nothing")
        except MCPError as error:
            return listed, added.model_dump(), failed.model_dump(), error.error.code


async def resources_and_prompts(client_of: Callable[..., Client]) -> Any:
    async with client_of() as client:
        return [
            (await client.list_resource_templates()).model_dump(),
            (await client.read_resource("note://todo")).model_dump(),
            (await client.list_prompts()).model_dump(),
            (await client.get_prompt("greet", {"name": "Ada"})).model_dump(),
        ]


async def progress(client_of: Callable[..., Client]) -> Any:
    seen: list[tuple[float, float | None, str | None]] = []
    all_seen = trio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))
        if len(seen) == 5:
            all_seen.set()

    async with client_of() as client:
        result = await client.call_tool("count", {"upto": 5}, progress_callback=on_progress)
        await all_seen.wait()
        return sorted(seen), result.model_dump()  # each is told in a task of its own


async def cancellation(client_of: Callable[..., Client]) -> Any:
    started = trio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    async with client_of() as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    await started.wait()
                    scope.cancel()

                nursery.start_soon(cancel)
                await client.call_tool("wait", {"name": "one"}, progress_callback=on_progress)
        while True:  # the cancellation and the question travel on ways of their own
            found = (await client.call_tool("cancellations", {})).structured_content
            if found != {"result": []}:
                return found


async def logs(client_of: Callable[..., Client]) -> Any:
    seen: list[object] = []
    all_seen = trio.Event()

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        seen.append(params.model_dump())
        if len(seen) == 2:
            all_seen.set()

    async with client_of(logging_callback=on_log, log_level="debug") as client:
        result = await client.call_tool("talk", {})
        await all_seen.wait()
        return seen, result.model_dump()


async def on_elicit(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"colour": "blue"})


async def on_sample(
    context: ClientRequestContext, params: types.CreateMessageRequestParams
) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="It"), model="none")


async def questions(client_of: Callable[..., Client]) -> Any:
    async with client_of(elicitation_callback=on_elicit, sampling_callback=on_sample) as client:
        return [(await client.call_tool(name, {})).model_dump() for name in ("ask", "sample")]


async def round_trips(client_of: Callable[..., Client]) -> Any:
    async with client_of(elicitation_callback=on_elicit) as client:
        return (await client.call_tool("deploy", {})).model_dump()


async def subscriptions(client_of: Callable[..., Client]) -> Any:
    async with client_of() as client:
        async with client.listen(resource_subscriptions=["note://todo"]) as subscription:
            await client.call_tool("edit", {"name": "journal", "text": "day two"})
            await client.call_tool("edit", {"name": "todo", "text": "water plants"})
            event = await anext(subscription)
        return repr(subscription.honored), repr(event), (await client.read_resource("note://todo")).model_dump()


BOTH: Final[dict[str, Program]] = {
    program.__name__: program for program in (tools, resources_and_prompts, progress, cancellation, logs)
}
LEGACY: Final[dict[str, Program]] = {"questions": questions}
MODERN: Final[dict[str, Program]] = {"round_trips": round_trips, "subscriptions": subscriptions}
PROGRAMS: Final = [
    *(("auto", name) for name in BOTH | MODERN),
    *(("legacy", name) for name in BOTH | LEGACY),
]


async def run_program(mode: str, name: str, target: Any) -> Any:
    """Run a program against the server behind ``target``, which ``Client`` takes; returns what it saw."""
    program = (BOTH | LEGACY | MODERN)[name]
    return await program(lambda **options: Client(target(), mode=mode, **options))


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # what only the legacy era has is tried as well
    trio.run(serve_sdk, build_server(), sys.argv[1])
