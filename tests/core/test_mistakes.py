"""Mistakes of the caller: a TypeError or a UsageError at the call, which names the option and what it has to be."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

import pytest
import trio

from trioxport import (
    Backoff,
    Connection,
    Failover,
    Limits,
    Reconnect,
    Reconnecting,
    UsageError,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer, MessageChannels
from trioxport.auth import TLSOptions
from trioxport.codecs.msgpack import MessagePack
from trioxport.interop.asgi import McpApplication
from trioxport.interop.mcp_sdk import sdk_transport
from trioxport.layers import (
    Batching,
    CircuitBreaker,
    Compression,
    FailureRate,
    Logging,
    Rate,
    RateLimit,
    Retry,
    Signing,
    Tap,
    Timeout,
    Tracing,
)
from trioxport.peer import open_peer
from trioxport.testing import Faults
from trioxport.transports.http.server import Bounds, HttpServer, Sessions, Upgrades
from trioxport.transports.memory import Memory
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tcp, Tls, Unix
from trioxport.transports.websocket import WebSocket

KEY = bytes(32)


async def handler(connection: Connection) -> None:
    await connection.aclose()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"limits": 1000}, "limits has to be a Limits(...), and is an int"),
        ({"codec": "json"}, "codec has to be a codec, such as trioxport.codecs.JSON, and is a str"),
        ({"codec": type(MessagePack)}, "codec has to be a codec, such as trioxport.codecs.JSON, and is the class"),
        ({"connect_timeout": "5"}, "connect_timeout has to be a number of seconds above 0, and is a str"),
        ({"connect_timeout": None}, "connect_timeout has to be a number of seconds above 0, and is None"),
        ({"close_timeout": True}, "close_timeout has to be a number of seconds, 0 or above, and is a bool"),
        ({"allow_plaintext": "no"}, "allow_plaintext has to be True or False, and is a str"),
        ({"layers": Retry()}, "layers is a list of layers: layers=[Retry("),
        ({"layers": 1}, "layers is a list of layers, and not an int"),
        ({"layers": "Retry"}, "layers is a list of layers, and not a str"),
        ({"layers": [Retry]}, "Retry is a class, and a layer is an object of it: layers=[Retry(...)]"),
        ({"layer": [Retry()]}, "has no option 'layer', did you mean 'layers'? Its options: layers, codec, limits"),
        ({"conect_timeout": 3}, "has no option 'conect_timeout', did you mean 'connect_timeout'?"),
        ({"color": 1}, "has no option 'color'. Its options: layers, codec"),
    ],
)
async def test_arguments_of_the_wrong_type(options: dict[str, Any], complaint: str) -> None:
    for opens in (_open, _connect, _serve, _open_for_the_sdk):
        with pytest.raises(TypeError) as caught:
            await opens(options)
        assert complaint in str(caught.value)


async def _open(options: dict[str, Any]) -> None:
    async with open_transport("memory://nobody", **options):
        pytest.fail("it opened")


async def _open_for_the_sdk(options: dict[str, Any]) -> None:
    async with sdk_transport("memory://nobody", **options):
        pytest.fail("it opened")


async def _connect(options: dict[str, Any]) -> None:
    error: TypeError | None = None
    async with trio.open_nursery() as nursery:
        try:
            await connect_transport(nursery, "memory://nobody", **options)
        except TypeError as caught:
            error = caught
    assert error is not None
    raise error


async def _serve(options: dict[str, Any]) -> None:
    await serve_transport(handler, "memory://nobody", **options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"connect_timeout": 0}, "connect_timeout has to be a number of seconds above 0, and is 0"),
        ({"connect_timeout": math.nan}, "connect_timeout has to be a number of seconds above 0, and is nan"),
        ({"close_timeout": -1}, "close_timeout has to be a number of seconds, 0 or above, and is -1"),
    ],
)
async def test_arguments_that_cannot_work(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        await _open(options)
    assert str(caught.value) == complaint


async def test_a_policy_is_no_switch() -> None:
    with pytest.raises(TypeError, match=r"reconnect has to be a Reconnect\(...\), or None, and is a bool"):
        await _open({"reconnect": True})


async def test_a_layer_is_listed_once() -> None:
    layer = Retry()
    with pytest.raises(UsageError, match=r"the layer Retry\(.*\) is in the list twice. List it once, or make another"):
        await _open({"layers": [layer, Timeout(), layer]})
    with pytest.raises(UsageError, match="no transport for the scheme"):  # two that are alike are two
        async with open_transport("nowhere:", layers=[Timeout(5), Timeout(5)]):
            pytest.fail("it opened")


async def test_a_layer_that_would_have_nothing_to_do_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Batching below Signing has nothing to do: .*List Batching first"):
        await _open({"layers": [Signing({"k": KEY}), Batching()]})
    async with trio.open_nursery() as nursery:
        layers: list[Layer] = [Batching(), Signing({"k": KEY}), Tap(print)]
        await nursery.start(_served, layers)
        async with open_transport("memory://layered", layers=layers):
            pass
        nursery.cancel_scope.cancel()


async def _served(layers: list[Layer], *, task_status: trio.TaskStatus[list[str]]) -> None:
    await serve_transport(handler, "memory://layered", layers=layers, task_status=task_status)


async def _generator(connection: Connection) -> AsyncGenerator[None]:
    yield


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (None, "handler has to be an async function, and is None"),
        (_generator, "handler has to be an async function, and is a generator: it has a yield"),
        (Connection, "handler has to be an async function, and is the class Connection: pass an object of it"),
    ],
)
async def test_an_invalid_handler(wrong: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        await serve_transport(wrong, "memory://here")
    with pytest.raises(TypeError, match=complaint):
        McpApplication(wrong, HttpServer("http://127.0.0.1:0/mcp"))
    with pytest.raises(TypeError, match=complaint.replace("handler", "the handler of 'ping'")):
        async with open_peer(_unused_connection(), requests={"ping": wrong}):
            pytest.fail("it opened")


async def test_a_handler_that_was_called_already() -> None:
    running = handler(_unused_connection())
    with pytest.raises(TypeError, match="is a coroutine: pass the function itself, without calling it"):
        await serve_transport(running, "memory://here")  # type: ignore[arg-type]  # the mistake under test
    running.close()


def _unused_connection() -> Any:
    return Connection(MessageChannels(None, None), None)  # type: ignore[arg-type]  # nothing is asked of it


async def test_the_error_of_a_handler_that_is_not_async(caplog: pytest.LogCaptureFixture) -> None:
    def plain(connection: Connection) -> None:
        pass

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, plain, "memory://plain")
        async with open_transport("memory://plain") as connection:
            with pytest.raises(trio.EndOfChannel):
                await connection.rx.receive()
        nursery.cancel_scope.cancel()
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == (
        "the return value of the handler has to be awaitable, as it is with async def, and is None"
    )


async def test_a_peer_is_opened_on_a_connection() -> None:
    tx, rx = trio.open_memory_channel[Any](0)
    with pytest.raises(TypeError, match="connection has to be a Connection, such as open_transport yields, and is"):
        async with open_peer((tx, rx)):  # type: ignore[arg-type]  # the mistake under test
            pytest.fail("it opened")
    tx.close()
    rx.close()


def untyped(kind: Any) -> Any:
    """The same for a type checker that would see the mistake before."""
    return kind


SECONDS_ABOVE_0 = "has to be a number of seconds above 0"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: untyped(Stdio)(sys.executable, "-V"), "args has to be a list of texts, such as"),
        (lambda: untyped(Stdio)(sys.executable, ["-c", 1]), "args has to be a list of texts, such as"),
        (lambda: untyped(Stdio)(None), "command has to be a path, and is None"),
        (
            lambda: untyped(Stdio)("x", env={"KEY": None}),
            r"env\['KEY'\] has to be a text, and is None \(is a variable of the env",
        ),
        (
            lambda: untyped(Stdio)("x", env=["A=1"]),
            "env has to be a mapping of texts, or None, and is a list",
        ),
        (lambda: untyped(Stdio)("x", cwd=1), "cwd has to be a path, or None, and is an int"),
        (
            lambda: untyped(Tcp)("127.0.0.1", "80"),
            "port has to be a whole number from 0 to 65535, and is a str",
        ),
        (lambda: untyped(Tcp)(None, 80), "host has to be a text, and is None"),
        (lambda: untyped(Tcp)("h", 1, framing=None), "framing has to be one of 'newline', 'length', and is None"),
        (lambda: untyped(Tls)("h", 1, ca=1), "ca has to be a path, or None, and is an int"),
        (
            lambda: untyped(Tls)("h", 1, ssl_context=True),
            "ssl_context has to be an ssl.SSLContext, or None, and is an? ",
        ),
        (
            lambda: untyped(TLSOptions)(context="x"),
            "context has to be an ssl.SSLContext, or None, and is a str",
        ),
        (lambda: untyped(Unix)(None), "path has to be a text, and is None"),
        (lambda: untyped(Memory)(1), "name has to be a text, and is an int"),
        (
            lambda: untyped(WebSocket)("ws://h/", headers={"X": 1}),
            r"headers\['X'\] has to be a text, and is an int$",
        ),
        (
            lambda: untyped(WebSocket)("ws://h/", subprotocols="mcp"),
            "subprotocols has to be a list of texts, and is an? ",
        ),
        (lambda: untyped(Failover)("tcp://h:1"), r"Failover takes a list of targets: Failover\(\['tcp://h:1'\]\)"),
        (
            lambda: untyped(Reconnecting)("tcp://h:1", True),
            r"policy has to be a Reconnect\(...\), and is a bool",
        ),
        (
            lambda: untyped(Reconnect)(attempts="3"),
            "attempts has to be a whole number of at least 0, or None, and is an? ",
        ),
        (lambda: untyped(Reconnect)(backoff=1), r"backoff has to be a Backoff\(...\), and is an int"),
        (lambda: untyped(Reconnect)(retry_first=1), "retry_first has to be True or False, and is an int"),
        (lambda: untyped(Backoff)(base="1"), f"base {SECONDS_ABOVE_0}, and is a str"),
        (
            lambda: untyped(Limits)("1000"),
            "max_message_size has to be a whole number of at least 1, and is a str",
        ),
        (lambda: untyped(Rate)("5"), "count has to be a finite number above 0, and is a str"),
        (
            lambda: untyped(RateLimit)(5),
            r"send has to be a Rate\(...\), a TokenBucket or a bucket in Redis, or None, and is an int",
        ),
        (lambda: untyped(Retry)("3"), "attempts has to be a whole number of at least 1, and is a str"),
        (lambda: untyped(Retry)(when=True), "when has to be a function, and is a bool"),
        (lambda: untyped(Timeout)("30"), f"seconds {SECONDS_ABOVE_0}, and is a str"),
        (
            lambda: untyped(CircuitBreaker)(failure_rate=0.5),
            r"failure_rate has to be a FailureRate\(...\), or None, and is a float",
        ),
        (
            lambda: untyped(CircuitBreaker)(on_transition=1),
            "on_transition has to be a function, or None, and is an int",
        ),
        (lambda: untyped(FailureRate)("x"), "share has to be a finite number above 0, and is a str"),
        (
            lambda: untyped(Compression)(min_size="1k"),
            "min_size has to be a whole number of at least 0, and is a str",
        ),
        (lambda: untyped(Signing)([KEY]), "keys has to be a mapping of keys by their ids, and is a list"),
        (lambda: untyped(Signing)({"k": "secret"}), r"keys\['k'\] has to be bytes, and is a str$"),
        (lambda: untyped(Tap)(1), "to has to be a path, or a function, and is an int"),
        (
            lambda: untyped(Logging)(log_level="INFO"),
            "log_level has to be a whole number of at least 0, and is a str",
        ),
        (lambda: untyped(Tracing)(notifications=1), "notifications has to be True or False, and is an int"),
        (lambda: untyped(Faults)(1, drop="x"), "drop has to be a number from 0 to 1, and is a str"),
        (
            lambda: untyped(McpApplication)(handler, "http://h"),
            r"config has to be an HttpServer\(...\), and is a str",
        ),
    ],
)
def test_options_of_the_wrong_type(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: untyped(Tcp)("h", 70000), "port has to be a whole number from 0 to 65535, and is 70000"),
        (lambda: untyped(Tcp)("h", 1, framing="lines"), "framing has to be one of 'newline', 'length', and is another"),
        (
            lambda: untyped(WebSocket)("ws://h/", ping_interval=0),
            "ping_interval has to be a number of seconds above 0, or None, ",
        ),
        (lambda: untyped(Limits)(0), "max_message_size has to be a whole number of at least 1, and is 0"),
        (
            lambda: untyped(Reconnect)(attempts=-1),
            "attempts has to be a whole number of at least 0, or None, and is -1",
        ),
        (lambda: untyped(Backoff)(base=2, cap=1), "cap has to be at least base, which is 2, and is 1"),
        (lambda: untyped(Batching)(max_messages=0), "max_messages has to be a whole number from 1 to "),
        (lambda: untyped(Compression)("lzw"), "coding has to be one of 'gzip', .* and is another"),
        (lambda: untyped(FailureRate)(2), "share has to be a number from 0 to 1, and is 2"),
        (lambda: untyped(Timeout)(-1), "seconds has to be a number of seconds above 0, and is -1"),
    ],
)
def test_options_that_cannot_work(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make()


def test_no_value_is_shown_that_may_be_a_secret() -> None:
    with pytest.raises(TypeError) as caught:
        Stdio("x", env={"TOKEN": b"hunter2"})  # type: ignore[dict-item]  # the mistake under test
    assert "hunter2" not in str(caught.value)


async def _run_client() -> None:
    async with open_transport("memory://x"):
        pass


async def _run_sdk_client() -> None:
    async with sdk_transport("memory://x"):
        pass


async def _run_lifespan() -> None:
    async with McpApplication(handler, HttpServer("http://127.0.0.1:0/mcp")).lifespan():
        pass


async def _run_request() -> None:
    await McpApplication(handler, HttpServer("http://127.0.0.1:0/mcp"))({"type": "http"}, _nothing, _ignore)


async def _nothing() -> dict[str, Any]:
    return {"type": "lifespan.startup"}


async def _ignore(event: MutableMapping[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (_run_client, "open_transport"),
        (_run_sdk_client, "open_transport"),
        (lambda: connect_transport(None, "memory://x"), "connect_transport"),  # type: ignore[arg-type]  # it is never opened
        (lambda: serve_transport(handler, "memory://x"), "serve_transport"),
        (_run_lifespan, "McpApplication"),
        (_run_request, "McpApplication"),
    ],
)
def test_under_asyncio_one_error_says_what_to_do(run: Callable[[], Awaitable[None]], what: str) -> None:
    async def main() -> None:
        with pytest.raises(UsageError) as caught:
            await run()
        assert str(caught.value).startswith(f"{what} runs on Trio, and no Trio program is running here. Start the ")
        assert "trio.run(main)" in str(caught.value)
        assert "hypercorn -k trio" in str(caught.value)

    asyncio.run(main())


def test_a_server_on_asyncio_fails_as_it_starts() -> None:
    async def main() -> None:
        sent: list[MutableMapping[str, Any]] = []

        async def send(event: MutableMapping[str, Any]) -> None:
            sent.append(event)

        application = McpApplication(handler, HttpServer("http://127.0.0.1:0/mcp"))
        await application({"type": "lifespan"}, _nothing, send)
        [failed] = sent
        assert failed["type"] == "lifespan.startup.failed"
        assert "hypercorn -k trio" in failed["message"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: HttpServer("http://127.0.0.1:0/", keep_alive=0), "keep_alive has to be a number of seconds above 0"),
        (
            lambda: untyped(HttpServer)("http://127.0.0.1:0/", hosts="mcp.example.com"),
            "hosts has to be a list of texts",
        ),
        (lambda: untyped(HttpServer)("http://127.0.0.1:0/", drain="10"), "drain has to be a number of seconds"),
        (lambda: Sessions(most=0), "most has to be a whole number of at least 1"),
        (lambda: Bounds(connections=0), "connections has to be a whole number of at least 1"),
        (lambda: untyped(Upgrades)(ping_interval="20"), "ping_interval has to be a number of seconds above 0, or None"),
    ],
)
def test_options_of_an_http_server(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises((TypeError, UsageError), match=complaint):
        make()
