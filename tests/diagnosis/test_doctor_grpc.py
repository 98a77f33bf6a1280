"""The examination of servers of gRPC: what their health service says, and what they are without one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from tests.diagnosis.test_doctor import demo_at, examined, failed
from trioxport import UsageError
from trioxport.abc import ConnectionSettings
from trioxport.diagnosis.doctor import StepFinding
from trioxport.framing.grpc import length_prefixed
from trioxport.framing.protobuf import number_field
from trioxport.transports._http2 import Http2Settings, Http2Stream, open_http2
from trioxport.transports._http_heads import Fields
from trioxport.transports.grpc import Grpc

HEAD: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK: Final = ((b"grpc-status", b"0"),)


def answer(status: int) -> bytes:
    return length_prefixed(number_field(1, status))


@asynccontextmanager
async def scripted(data: bytes, trailers: Fields, head: Fields = HEAD) -> AsyncGenerator[str]:
    """A server that answers each call alike; without data, and without trailers, by the header alone."""

    async def respond(stream: Http2Stream) -> None:
        with stream:
            await stream.send_headers(head, end_stream=not (data or trailers))
            if data:
                await stream.send_data(data, end_stream=not trailers)
            if trailers:
                await stream.send_trailers(trailers)

    async def handle(stream: trio.SocketStream) -> None:
        async with (
            stream,
            open_http2(stream, Http2Settings(), role="server") as connection,
            trio.open_nursery() as nursery,
        ):
            async for request in connection.requests:
                nursery.start_soon(respond, request)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"grpc://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def health_of(data: bytes, trailers: Fields, head: Fields = HEAD) -> StepFinding:
    async with scripted(data, trailers, head) as address:
        return (await examined(address))["health"]


async def test_a_server_of_ours_says_that_it_serves() -> None:
    async with demo_at("grpc://127.0.0.1:0") as address:
        findings = await examined(Grpc(address, method="mcp.MCPService/Call"))
    assert list(findings) == ["name", "connection", "health", "negotiation", "listing"]
    assert (findings["health"].status, findings["health"].text) == ("ok", "the server says SERVING")


@pytest.mark.parametrize(
    ("data", "trailers", "status", "text"),
    [
        (answer(2), OK, "failed", "the server says NOT_SERVING"),
        (answer(3), OK, "warning", "the health service says SERVICE_UNKNOWN of the server as a whole"),
        (length_prefixed(b""), OK, "warning", "the health service says UNKNOWN of the server as a whole"),
        (b"", ((b"grpc-status", b"5"),), "warning", "the health service says SERVICE_UNKNOWN of the server as a whole"),
        (b"", ((b"grpc-status", b"16"),), "warning", "the health service demands credentials"),
        (b"", ((b"grpc-status", b"7"),), "warning", "the health service demands credentials"),
        (answer(9), OK, "failed", "the answer of the health service is malformed: 9 is not a valid ServingStatus"),
        (b"no message", OK, "failed", "the server sent what is not gRPC"),
        (answer(1), (), "failed", "the server ended the call without a status of gRPC"),
    ],
)
async def test_what_a_health_service_says(data: bytes, trailers: Fields, status: str, text: str) -> None:
    found = await health_of(data, trailers)
    assert found.status == status
    assert found.text.startswith(text)
    assert found.remedy


async def test_a_server_without_the_service_is_as_good() -> None:
    unimplemented = (b"grpc-status", b"12")
    for found in (await health_of(b"", (), (*HEAD, unimplemented)), await health_of(b"", (unimplemented,))):
        assert (found.status, found.text) == ("ok", "the server has no health service")


async def test_a_server_that_does_not_serve_is_still_talked_to() -> None:
    async with scripted(answer(2), OK) as address:
        findings = await examined(address)
    assert findings["negotiation"].status == "failed"


async def test_a_page_of_a_gateway_ends_the_examination() -> None:
    head = ((b":status", b"200"), (b"content-type", b"text/html"))
    async with scripted(b"<title>Welcome</title>", (), head) as address:
        findings = await examined(address)
    assert failed(findings, "health").text.startswith("the answer is text/html, not gRPC: Welcome")
    assert findings["negotiation"].text == "an earlier step failed"


async def test_a_server_that_is_silent(autojump_clock: MockClock) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream, open_http2(stream, Http2Settings(), role="server"):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        findings = await examined(f"grpc://127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.cancel_scope.cancel()
    assert failed(findings, "health").text == "the server does not answer a health check"


async def test_no_question_leaves_this_machine_in_plaintext() -> None:
    far = Grpc("grpc://192.0.2.1:1")
    with pytest.raises(UsageError, match="unencrypted traffic beyond this machine"):
        await far.check_health(ConnectionSettings("client", str(far)))
