"""The page of troubleshooting has the texts that programs really show: each of its headings is tried."""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from trioxport import (
    Connection,
    Limits,
    Request,
    Response,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.layers import CircuitBreaker, Rate, RateLimit, Retry, Tap
from trioxport.peer import open_peer
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tls

PAGE: Final = Path(__file__).parents[2] / "docs/operate/troubleshooting.md"
HEADINGS: Final = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
HOST: Final = "127.0.0.1"
CLIENT: Final = {"name": "test", "version": "1"}

Mistake = Callable[[], Awaitable[object]]
MISTAKES: Final[dict[str, Mistake]] = {}


def shows(heading: str) -> Callable[[Mistake], Mistake]:
    """Note that a function raises, or logs, what the heading says."""

    def note(mistake: Mistake) -> Mistake:
        MISTAKES[heading] = mistake
        return mistake

    return note


async def opened(target: Any, **options: Any) -> None:
    async with open_transport(target, **options):
        pytest.fail("it opened")


async def asked(target: Any, method: str = "tools/list", *, patience: float = 15.0, **options: Any) -> None:
    """Ask for something without having negotiated."""
    async with open_transport(target, **options) as connection, open_peer(connection) as peer:
        await peer.request(method, timeout=patience)


def child(code: str) -> Stdio:
    return Stdio(sys.executable, ["-c", code])


@asynccontextmanager
async def served(handler: Callable[[Connection], Awaitable[object]], **options: Any) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(handler, f"tcp://{HOST}:0", task_status=task_status, **options)

        [address] = await nursery.start(serve)
        yield address
        nursery.cancel_scope.cancel()


async def silent(connection: Connection) -> None:
    async for _ in connection.rx:
        pass


@asynccontextmanager
async def raw_peer(said: bytes) -> AsyncGenerator[int]:
    """The port of a server that says something of its own to whoever connects, and closes."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(said)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@shows("cannot connect: Connection refused")
async def _() -> None:
    await opened(f"tcp://{HOST}:1")


@shows("cannot connect: No such file or directory")
async def _() -> None:
    await opened("unix:///nowhere/server.sock")


@shows("cannot resolve '…'")
async def _() -> None:
    await opened("tls://nowhere.invalid:1")


@shows("no connection within … s")
async def _() -> None:
    with trio.socket.socket() as listener:
        await listener.bind((HOST, 0))
        listener.listen()
        await opened(Tls(HOST, listener.getsockname()[1]), connect_timeout=0.05)


@shows("the TLS handshake failed: unable to get local issuer certificate")
async def _() -> None:
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(HOST).configure_cert(shown)
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, silent, Tls(HOST, 0, ssl_context=shown))
        await _alone(opened(address), nursery)


@shows("the server does not speak TLS on this port")
async def _() -> None:
    async with raw_peer(b"220 something else\r\n") as port:
        await opened(f"tls://{HOST}:{port}")


@shows("the peer closed the connection during the TLS handshake")
async def _() -> None:
    async with raw_peer(b"") as port:
        await opened(f"tls://{HOST}:{port}")


@shows("unencrypted traffic beyond this machine (…)")
async def _() -> None:
    await opened("tcp://192.0.2.1:1")


@shows("no transport for the scheme '…'")
async def _() -> None:
    await opened("htp://127.0.0.1/mcp")


@shows("a target begins with a scheme and a colon")
async def _() -> None:
    await opened("127.0.0.1:8000/mcp")


@shows("there is no program '…' on PATH")
async def _() -> None:
    await opened("stdio:no-such-program")


@shows("the server process exited with code …")
async def _() -> None:
    await asked(child("import sys; input(); sys.exit(3)"))


@shows("the server process exited with code 0 before it answered")
async def _() -> None:
    await asked(child("input()"))


@shows("the server process wrote … to its standard output, in place of HTTP/2")
async def _() -> None:
    await opened("http+stdio:echo listening")


@shows("skipped something received: DecodeError: …")
async def _() -> None:
    async with open_transport(child("input(); print('Server started')")) as connection:
        await connection.tx.send(Request(1, "ping"))
        await connection.rx.receive()
    raise AssertionError("see the log")


@shows("no sign of life for … s in answer to …")
async def _() -> None:
    async with served(silent) as target:
        await asked(target, patience=0.05)


@shows("This client has not negotiated with the server")
async def _() -> None:
    async def strict(connection: Connection) -> None:
        async with open_peer(connection) as peer:
            await peer.wait_finished()

    async with served(strict) as target:
        await asked(target)


@shows("no protocol version in common: …")
async def _() -> None:
    async def ancient(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            await connection.tx.send(Response(message.id, {"supportedVersions": ["1999-01-01"]}))

    async with (
        served(ancient) as target,
        open_transport(target) as connection,
        open_peer(connection) as peer,
    ):
        await peer.negotiate(client_info=CLIENT)


@shows("a message of … bytes is over the limit of …")
async def _() -> None:
    async with served(silent) as target, open_transport(target, limits=Limits(100)) as connection:
        await connection.tx.send(Request(1, "x" * 200))


@shows("the target failed too often; …")
async def _() -> None:
    breaker = CircuitBreaker(failures=1)
    async with served(Connection.aclose) as target, open_transport(target, layers=[breaker]) as connection:
        await connection.tx.send(Request(1, "ping"))
        assert isinstance(await connection.rx.receive(), Undelivered)
        await connection.tx.send(Request(2, "ping"))


@shows("more is sent than the rate limit of this side allows")
async def _() -> None:
    limit = RateLimit(Rate(1, per=60), on_limit="raise")
    async with served(silent) as target, open_transport(target, layers=[limit]) as connection:
        await connection.tx.send(Request(1, "ping"))
        await connection.tx.send(Request(2, "ping"))


@shows("… runs on Trio, and no Trio program is running here")
async def _() -> None:
    def run() -> None:
        asyncio.run(opened("memory://x"))

    await trio.to_thread.run_sync(run)


@shows("… has to be …, and is …")
async def _() -> None:
    await opened("memory://x", connect_timeout="5")


@shows("… has no option '…'")
async def _() -> None:
    await opened("memory://x", layer=[])


@shows("message layer … comes after frame layer …")
async def _() -> None:
    await opened("memory://x", layers=[Tap(print), Retry()])


@shows("the layer … is in the list twice")
async def _() -> None:
    layer = Retry()
    await opened("memory://x", layers=[layer, layer])


@shows("cannot listen: Address already in use")
async def _() -> None:
    async with served(silent) as target:
        await serve_transport(silent, target)


async def _alone(mistake: Awaitable[None], nursery: trio.Nursery) -> None:
    try:
        await mistake
    finally:
        nursery.cancel_scope.cancel()


def leaf_of(error: BaseException) -> BaseException:
    """The one exception in the groups that this test's own nurseries make."""
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


@pytest.mark.parametrize("heading", HEADINGS)
async def test_a_message_is_what_the_page_says(heading: str, caplog: pytest.LogCaptureFixture) -> None:
    text = ".+".join(map(re.escape, heading.split("…")))
    with trio.fail_after(20), pytest.raises(BaseException) as caught:  # noqa: PT011  # of several kinds, in groups
        await MISTAKES[heading]()
    assert re.search(text, f"{leaf_of(caught.value)}\n{caplog.text}")


def test_the_page_is_complete() -> None:
    assert sorted(HEADINGS) == sorted(MISTAKES)
