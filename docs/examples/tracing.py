"""Tracing: one trace from the client's code through the call to the server's code."""

from typing import Any

import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trioxport import Connection, open_transport, serve_transport
from trioxport.layers import Tracing
from trioxport.peer import IncomingRequest, open_peer

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("example")


async def call_tool(request: IncomingRequest) -> dict[str, Any]:
    with tracer.start_as_current_span("look up the weather"):
        return {"content": [{"type": "text", "text": "sunny"}]}


async def serve(connection: Connection) -> None:
    async with open_peer(connection, requests={"tools/call": call_tool}) as peer:
        await peer.wait_finished()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_transport(
                serve, "memory://weather", layers=[Tracing(provider)], task_status=task_status
            )
        )
        async with (
            open_transport("memory://weather", layers=[Tracing(provider)]) as connection,
            open_peer(connection) as peer,
        ):
            with tracer.start_as_current_span("plan the day"):
                await peer.request("tools/call", {"name": "weather", "arguments": {"place": "Lisbon"}})
        nursery.cancel_scope.cancel()


trio.run(main)

spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context}
for span in sorted(spans.values(), key=lambda span: span.start_time or 0):
    depth, above = 0, span.parent
    while above is not None:
        depth, above = depth + 1, spans[above.span_id].parent
    print(f"{'  ' * depth}{span.name} ({span.kind.name})")
