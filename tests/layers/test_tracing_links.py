"""A trace goes on at the other side: over every kind of link, and with the official SDK there."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from opentelemetry import baggage

from tests.support.links import memory_link, tcp_link, tls_link, unix_link, ws_link, wss_link
from tests.support.recording_handler import serving
from tests.support.scripted_connection import accepted_peer
from tests.support.spans import Recorder
from trioxport import Connection, Notification, Target, open_transport, serve_transport
from trioxport.abc import Era
from trioxport.layers import Tracing
from trioxport.peer import IncomingRequest, Peer, open_peer
from trioxport.testing import MakePair
from trioxport.transports.stdio import Stdio

TESTS = Path(__file__).parents[1]
LINKS: dict[str, Callable[[Path], MakePair]] = {
    "memory": memory_link,
    "tcp": tcp_link,
    "tls": tls_link,
    "unix": unix_link,
    "ws": ws_link,
    "wss": wss_link,
}
NETWORK: dict[str, dict[str, str]] = {
    "memory": {},
    "stdio": {"network.transport": "pipe"},
    "tcp": {"network.transport": "tcp"},
    "tls": {"network.transport": "tcp"},
    "unix": {"network.transport": "unix"},
    "ws": {"network.transport": "tcp", "network.protocol.name": "websocket"},
    "wss": {"network.transport": "tcp", "network.protocol.name": "websocket"},
}


def serve_traced(recorder: Recorder) -> Callable[[Connection], Awaitable[None]]:
    """A handler that works in a span of its own, asks its client back, and tells the spans of ``recorder``."""
    tracer = recorder.provider.get_tracer("application")

    async def call(request: IncomingRequest) -> dict[str, Any]:
        with tracer.start_as_current_span("work"):
            answer = await request.peer.request("roots/list") if request.params.get("ask", True) else None
            return {"content": [], "answer": answer}

    async def tell(request: IncomingRequest) -> list[dict[str, Any]]:
        return recorder.facts

    async def initialize(request: IncomingRequest) -> dict[str, Any]:
        server = {"name": "traced", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "prompts": {}}, "serverInfo": server}

    async def discover(request: IncomingRequest) -> dict[str, Any]:
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}

    async def no_tools(request: IncomingRequest) -> dict[str, Any]:
        return {"tools": []}

    async def tell_in_a_prompt(request: IncomingRequest) -> dict[str, Any]:
        return {"prompts": [{"name": json.dumps(recorder.facts)}]}

    handlers = {
        "initialize": initialize,
        "server/discover": discover,
        "tools/call": call,
        "tools/list": no_tools,
        "prompts/list": tell_in_a_prompt,
        "spans": tell,
    }

    async def handle(connection: Connection) -> None:
        async with open_peer(connection, requests=handlers) as peer:
            await peer.wait_finished()

    return handle


async def roots(request: IncomingRequest) -> dict[str, Any]:
    return {"roots": []}


async def call_and_ask(peer: Peer, client: Recorder) -> list[dict[str, Any]]:
    """Call a tool within a span; the spans of the server."""
    with client.provider.get_tracer("application").start_as_current_span("agent"):
        await peer.request("tools/call", {"name": "add", "arguments": {"password": "hunter2"}})
    spans: list[dict[str, Any]] = await peer.request("spans")
    return spans


@asynccontextmanager
async def opened(target: Target, client: Recorder) -> AsyncGenerator[Peer]:
    async with (
        open_transport(target, layers=[Tracing(client.provider)]) as connection,
        open_peer(connection, requests={"roots/list": roots}) as peer,
    ):
        yield peer


@asynccontextmanager
async def over(link_name: str, client: Recorder, tmp_path: Path) -> AsyncGenerator[Peer]:
    if link_name == "stdio":
        async with opened(Stdio(sys.executable, [str(TESTS / "programs/traced.py")]), client) as peer:
            yield peer
        return
    server = Recorder()
    async with LINKS[link_name](tmp_path)() as link, trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            assert link.serve is not None
            layers = [Tracing(server.provider)]
            await serve_transport(serve_traced(server), link.serve, layers=layers, task_status=task_status)

        address: list[str] = await nursery.start(serve)
        async with opened(link.target(address[0]), client) as peer:
            yield peer
        nursery.cancel_scope.cancel()
    server.assert_all_ended_once()


@pytest.mark.parametrize("link_name", [*LINKS, "stdio"])
async def test_both_sides_spans_are_one_trace(link_name: str, tmp_path: Path) -> None:
    client = Recorder()
    async with over(link_name, client, tmp_path) as peer:
        theirs = {fact["name"]: fact for fact in await call_and_ask(peer, client)}
    client.assert_all_ended_once()
    ours = {fact["name"]: fact for fact in client.facts}
    sent, served, back = ours["tools/call add"], theirs["tools/call add"], theirs["roots/list"]
    assert sent["parent"] == ours["agent"]["span"]
    assert served["parent"] == sent["span"]
    assert theirs["work"]["parent"] == served["span"]
    assert back["parent"] == theirs["work"]["span"]
    assert ours["roots/list"]["parent"] == back["span"]
    assert {fact["trace"] for fact in (served, back, ours["roots/list"])} == {ours["agent"]["trace"]}
    assert (sent["kind"], served["kind"], back["kind"], ours["roots/list"]["kind"]) == (
        *("CLIENT", "SERVER"),
        *("CLIENT", "SERVER"),
    )
    for fact in (sent, served):
        network = {name: value for name, value in fact["attributes"].items() if name.startswith("network.")}
        assert network == NETWORK[link_name]
    assert "hunter2" not in json.dumps([*client.facts, *theirs.values()])


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_both_sides_spans_are_one_trace_over_http(era: Era) -> None:
    """HTTP: a request or a session is a connection, and requests of a legacy server take another way back."""
    client, server = Recorder(), Recorder()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            layers = [Tracing(server.provider)]
            await serve_transport(
                serve_traced(server), "http://127.0.0.1:0/mcp", layers=layers, task_status=task_status
            )

        [address] = await nursery.start(serve)
        async with opened(address, client) as peer:
            await peer.negotiate(client_info={"name": "test", "version": "1"}, era=era)
            with client.provider.get_tracer("application").start_as_current_span("agent") as agent:
                await peer.request("tools/call", {"name": "add", "ask": era == "legacy"})
        nursery.cancel_scope.cancel()
    client.assert_all_ended_once()
    server.assert_all_ended_once()
    sent, served = client.one("tools/call add"), server.one("tools/call add")
    assert served["parent"] == sent["span"]
    assert server.one("work")["parent"] == served["span"]
    assert sent["trace"] == f"{agent.get_span_context().trace_id:032x}"
    for fact in (sent, served):
        assert fact["attributes"]["network.transport"] == "tcp"
        assert fact["attributes"]["network.protocol.name"] == "http"
    if era == "legacy":
        assert client.one("roots/list")["parent"] == server.one("roots/list")["span"]
        assert server.one("roots/list")["parent"] == server.one("work")["span"]
        assert sent["attributes"]["mcp.session.id"] == served["attributes"]["mcp.session.id"]
    else:
        assert sent["attributes"]["mcp.protocol.version"] == "2026-07-28"
        assert served["attributes"]["mcp.protocol.version"] == "2026-07-28"


async def test_the_server_of_the_official_sdk_continues_the_trace() -> None:
    client = Recorder()
    target = Stdio(sys.executable, [str(TESTS / "peers/sdk_traced_server.py")])
    async with opened(target, client) as peer:
        await peer.negotiate(client_info={"name": "test", "version": "1"})
        await peer.request("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
        told = await peer.request("tools/call", {"name": "spans", "arguments": {}})
    [served] = [fact for fact in json.loads(told["content"][0]["text"]) if fact["name"] == "tools/call add"]
    sent = client.one("tools/call add")
    assert (served["trace"], served["parent"]) == (sent["trace"], sent["span"])
    shared = ("mcp.method.name", "gen_ai.tool.name", "gen_ai.operation.name", "jsonrpc.request.id")
    assert [served["attributes"][name] for name in shared] == [sent["attributes"][name] for name in shared]
    assert sent["attributes"]["mcp.protocol.version"] == served["attributes"]["mcp.protocol.version"]


async def test_the_client_of_the_official_sdk_is_continued() -> None:
    """Its own spans are no-ops here, where OpenTelemetry has no global provider; the context goes through them."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    client = Recorder()
    command = StdioServerParameters(command=sys.executable, args=[str(TESTS / "programs/traced.py")])
    async with stdio_client(command) as streams, ClientSession(*streams) as session:
        await session.initialize()
        with client.provider.get_tracer("application").start_as_current_span("agent"):
            await session.list_tools()
        told = await session.list_prompts()
    [served] = [fact for fact in json.loads(told.prompts[0].name) if fact["name"] == "tools/list"]
    agent = client.one("agent")
    assert (served["trace"], served["parent"]) == (agent["trace"], agent["span"])


PARENT, OTHER = "0123456789abcdef", "fedcba9876543210"


def traceparent(span: str) -> str:
    return f"00-{'ab' * 16}-{span}-01"


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("meta", "parent"),
    [({}, PARENT), ({"traceparent": traceparent(OTHER)}, OTHER), ({"traceparent": 5}, PARENT)],
    ids=["headers only", "_meta too", "no text in _meta"],
)
async def test_a_server_takes_the_context_of_http_headers_unless_the_message_has_one(
    meta: dict[str, Any], parent: str, era: Era
) -> None:
    recorder, seen = Recorder(), list[Mapping[str, object]]()

    async def answer(request: IncomingRequest) -> dict[str, Any]:
        seen.append(baggage.get_all())
        return {}

    async def initialize(request: IncomingRequest) -> dict[str, Any]:
        return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}

    async def discover(request: IncomingRequest) -> dict[str, Any]:
        return {"supportedVersions": ["2026-07-28"], "capabilities": {}}

    async def handle(connection: Connection) -> None:
        handlers = {"work": answer, "initialize": initialize, "server/discover": discover}
        async with open_peer(connection, requests=handlers) as peer:
            await peer.wait_finished()

    headers = {"traceparent": traceparent(PARENT), "baggage": "tenant=acme"}
    async with (
        serving(handler=handle, layers=[Tracing(recorder.provider)]) as served,
        open_transport(served.url) as connection,
        open_peer(connection) as peer,
    ):
        await peer.negotiate(client_info={"name": "tests", "version": "1"}, era=era)
        await peer.request("work", {"_meta": meta}, metadata={"headers": headers})
    assert recorder.one("work")["parent"] == parent
    assert seen == [{"tenant": "acme"} if parent == PARENT else {}]


async def test_a_client_takes_no_context_of_headers() -> None:
    """A server's headers are about its answer as a whole."""
    recorder = Recorder()
    async with accepted_peer(Tracing(recorder.provider)) as ((_, rx), scripted):
        scripted.say(Notification("note"), {"traceparent": traceparent(PARENT)})
        await rx.receive()
    assert recorder.one("note")["parent"] is None
