"""A program with grpc.aio, which calls ours and is called by ours; the official protobuf library makes its messages.

``serve [CERTIFICATE]`` does what requests ask for, and prints what it sees: its port first. ``call HOST:PORT [CA]``
calls a server in every way, and prints what it sees as JSON. ``hold HOST:PORT`` makes two calls that wait, and prints
how they end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc

TYPES = {"Connect": ("mcp.grpc.v1", "Frame", 12), "Stream": ("mcp", "Message", 9), "Call": ("mcp", "Message", 9)}
"""By method: the package, the message, and the type of its field (12: bytes, 9: string)."""
PATHS = {
    "Connect": "/mcp.grpc.v1.MCPTransport/Connect",
    "Stream": "/mcp.MCPService/Stream",
    "Call": "/mcp.MCPService/Call",
}


def message_class(method: str) -> Any:
    package, name, kind = TYPES[method]
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    field: Any = file.message_type.add(name=name).field.add(name="payload", number=1)
    field.type = kind
    field.label = 1
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def encoder(method: str) -> Any:
    """The function that makes the bytes of a message with a text."""
    kind = message_class(method)
    is_text = TYPES[method][2] == 9
    return lambda text: kind(payload=text if is_text else text.encode()).SerializeToString()


def decoder(method: str) -> Any:
    """The function that reads the text of a message."""
    kind = message_class(method)
    return lambda data: payload if isinstance(payload := kind.FromString(data).payload, str) else payload.decode()


# The server


STOPPING = asyncio.Event()


def say(text: Any) -> Any:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def answer(request: Any, context: Any) -> Any:
    """The result of a request, or None for the end of the call."""
    params = request.get("params") or {}
    match request["method"]:
        case "metadata":
            return {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        case "remaining":
            return context.time_remaining()
        case "abort":
            await context.abort(grpc.StatusCode[params["code"]], params.get("text", "as asked"))
        case "finish":
            return None
        case "linger":
            say("lingering")
            await STOPPING.wait()
        case "wait":
            say("waiting")
            await asyncio.sleep(60)
    return params


class Handler(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        if PATHS.get(method) != details.method:
            return None
        decode, encode = decoder(method), encoder(method)

        async def respond(message: Any, context: Any) -> Any:
            request = json.loads(decode(message))
            if "id" not in request:
                say(request["method"])
                return b""
            result = await answer(request, context)
            response = {"jsonrpc": "2.0", "id": request["id"], "result": result}
            return None if result is None else encode(json.dumps(response, ensure_ascii=False))

        async def stream(requests: Any, context: Any) -> Any:
            try:
                async for message in requests:
                    response = await respond(message, context)
                    if response is None:
                        return
                    if response:
                        yield response
                say("half-closed")
            except asyncio.CancelledError:
                say("cancelled")
                raise

        async def call(message: Any, context: Any) -> Any:
            try:
                return await respond(message, context)
            except asyncio.CancelledError:
                say("cancelled")
                raise

        if method == "Call":
            return grpc.unary_unary_rpc_method_handler(call)
        return grpc.stream_stream_rpc_method_handler(stream)


async def serve(certificate: Any = None) -> Any:
    options = [("grpc.max_receive_message_length", 8 * 2**20), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers([Handler()])
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(certificate, certificate)]))
    await server.start()
    say(port)
    line = await asyncio.to_thread(sys.stdin.readline)  # the test says that the server is to stop
    stopping = asyncio.create_task(server.stop(float(line or 0)))
    await asyncio.sleep(0)
    STOPPING.set()
    await stopping


# The client


SEEN: dict[str, Any] = {}


def request(number: Any, method: Any, params: Any = None) -> Any:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}})


def method_of(channel: Any, method: Any) -> Any:
    make = channel.unary_unary if method == "Call" else channel.stream_stream
    return make(PATHS[method], request_serializer=encoder(method), response_deserializer=decoder(method))


async def read(call: Any) -> Any:
    found = await call.read()
    return None if found is grpc.aio.EOF else json.loads(found)["result"]


async def streams(channel: Any, method: Any) -> Any:
    call = method_of(channel, method)(metadata=(("x-team", "blue"),), compression=grpc.Compression.Gzip)
    results = []
    for number, text in enumerate(("short", "x" * 5_000_000)):
        await call.write(request(number, "echo", {"text": text}))
        results.append(len((await read(call))["text"]))
    await call.write(request(3, "team"))
    results.append(await read(call))
    await call.done_writing()
    SEEN[method] = [*results, await read(call), (await call.code()).name]


async def ends(channel: Any) -> Any:
    call = method_of(channel, "Connect")()
    await call.write(request(1, "finish"))
    SEEN["finished"] = [await read(call), (await call.code()).name]
    call = method_of(channel, "Connect")()
    await call.write(request(1, "echo"))
    await read(call)
    call.cancel()
    for name, options in (("late", {"timeout": 0.2}), ("late unary", {"timeout": 0.2})):
        if name == "late":
            call = method_of(channel, "Connect")(**options)
            await call.write(request(1, "wait"))
            SEEN[name] = await code_of(call.read())
        else:
            SEEN[name] = await code_of(method_of(channel, "Call")(request(1, "wait"), **options))


async def code_of(awaited: Any) -> Any:
    try:
        return await awaited
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"


async def unary(channel: Any) -> Any:
    call = method_of(channel, "Call")
    SEEN["Call"] = json.loads(await call(request(7, "echo", {"text": "alone"})))
    SEEN["silent"] = await code_of(call(request(8, "silent")))
    SEEN["notified"] = await call(json.dumps({"jsonrpc": "2.0", "method": "notifications/x"}))
    waiting = call(request(9, "wait"))
    await asyncio.sleep(0.2)
    waiting.cancel()
    missing = channel.unary_unary("/mcp.MCPService/Nothing", lambda text: b"", lambda data: data)
    SEEN["missing"] = await code_of(missing(""))
    SEEN["malformed"] = await code_of(channel.unary_unary(PATHS["Call"], lambda text: b"\x0a\x7f", bytes)(""))


async def health(channel: Any) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", "mcp.grpc.v1.MCPTransport", "mcp.MCPService"):
        SEEN[f"health {service}"] = (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status
    SEEN["health of another"] = await code_of(stub.Check(health_pb2.HealthCheckRequest(service="other")))
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="mcp.MCPService"))
    SEEN["watched"] = (await watch.read()).status
    watch.cancel()


async def hold(address: Any) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stream = method_of(channel, "Connect")()
        await stream.write(request(1, "wait"))
        calls = stream.read(), method_of(channel, "Call")(request(1, "wait"))
        sys.stdout.write(json.dumps(await asyncio.gather(*map(code_of, calls))))


async def call_all(address: Any, ca: Any = None) -> Any:
    options = [("grpc.max_receive_message_length", -1)]
    if ca is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca), options=options)
    async with channel:
        await streams(channel, "Connect")
        await streams(channel, "Stream")
        await ends(channel)
        await unary(channel)
        await health(channel)
    sys.stdout.write(json.dumps(SEEN))


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    if mode == "serve":
        asyncio.run(serve(*(Path(path).read_bytes() for path in arguments)))
    elif mode == "hold":
        asyncio.run(hold(*arguments))
    else:
        asyncio.run(call_all(arguments[0], *(Path(path).read_bytes() for path in arguments[1:])))
