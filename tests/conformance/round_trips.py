"""Tools and a prompt that need something of the client, asked for in the result (modern era)."""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

import mcp.types as types
from mcp.server.mcpserver import Context, MCPServer

Inputs: TypeAlias = dict[str, types.InputRequest]
Needed: TypeAlias = types.InputRequiredResult

ROOTS: Final = types.ListRootsRequest()


def form(message: str, **properties: str) -> types.ElicitRequest:
    """A question whose answer has these properties, each of the type named."""
    schema: types.ElicitRequestedSchema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(question: str) -> types.CreateMessageRequest:
    said = types.SamplingMessage(role="user", content=types.TextContent(text=question))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[said], max_tokens=50))


NAME: Final = form("What is your name?", name="string")
CONFIRM: Final = form("Please confirm", ok="boolean")


def answered(ctx: Context[Any], *names: str) -> bool:
    return set(names) <= (ctx.input_responses or {}).keys()


def filled(ctx: Context[Any], name: str) -> dict[str, Any]:
    """The values that the user filled into the form ``name``."""
    answer = (ctx.input_responses or {}).get(name)
    return dict(answer.content or {}) if isinstance(answer, types.ElicitResult) else {}


def ask(state: str | None = None, /, **inputs: types.InputRequest) -> Needed:
    return types.InputRequiredResult(input_requests=inputs, request_state=state)


def add_round_trips(server: MCPServer) -> None:
    @server.tool()
    async def test_input_required_result_elicitation(ctx: Context) -> str | Needed:
        """Asks the user for a name."""
        name = filled(ctx, "user_name").get("name")
        return f"Hello, {name}!" if name else ask(user_name=NAME)

    @server.tool()
    async def test_input_required_result_sampling(ctx: Context) -> str | Needed:
        """Asks the model a question."""
        answer = (ctx.input_responses or {}).get("capital_question")
        if isinstance(answer, types.CreateMessageResult):
            return f"The model said: {answer.content}"
        return ask(capital_question=sampling("What is the capital of France?"))

    @server.tool()
    async def test_input_required_result_list_roots(ctx: Context) -> str | Needed:
        """Asks for the roots."""
        return "Thanks for the roots" if answered(ctx, "client_roots") else ask(client_roots=ROOTS)

    @server.tool()
    async def test_input_required_result_request_state(ctx: Context) -> str | Needed:
        """Asks for a confirmation, and knows it again by its state."""
        if answered(ctx, "confirm") and ctx.request_state == "first":
            return "state-ok"
        return ask("first", confirm=CONFIRM)

    @server.tool()
    async def test_input_required_result_tampered_state(ctx: Context) -> str | Needed:
        """Refuses a state that it did not make."""
        return ask("first", confirm=CONFIRM) if ctx.request_state is None else f"state-ok {ctx.request_state}"

    @server.tool()
    async def test_input_required_result_multiple_inputs(ctx: Context) -> str | Needed:
        """Asks for three things at once."""
        if answered(ctx, "user_name", "greeting", "client_roots"):
            return "All there"
        return ask("several", user_name=NAME, greeting=sampling("Greet me"), client_roots=ROOTS)

    @server.tool()
    async def test_input_required_result_multi_round(ctx: Context) -> str | Needed:
        """Asks for one thing after the other."""
        state: dict[str, Any] = json.loads(ctx.request_state or "{}")
        if "name" in state and answered(ctx, "step2"):
            return f"{state['name']} likes {filled(ctx, 'step2').get('color')}"
        if state and answered(ctx, "step1"):
            kept = json.dumps({"name": filled(ctx, "step1").get("name")})
            return ask(kept, step2=form("Step 2: What is your favorite color?", color="string"))
        return ask(json.dumps({"asked": 1}), step1=form("Step 1: What is your name?", name="string"))

    @server.tool()
    async def test_input_required_result_capabilities(ctx: Context) -> Needed:
        """Asks only for what the client says that it can do."""
        able = ctx.client_capabilities
        inputs: Inputs = {}
        if able is None or able.sampling is not None:
            inputs["sample"] = sampling("Say hello")
        if able is None or able.elicitation is not None:
            inputs["ask"] = NAME
        return ask("by capability", **inputs)

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Context) -> str | Needed:
        """A prompt that asks for its context."""
        context = filled(ctx, "user_context").get("context")
        if context:
            return f"Use the following context: {context}"
        return ask(user_context=form("What context should the prompt use?", context="string"))
