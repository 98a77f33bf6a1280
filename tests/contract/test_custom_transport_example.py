"""The custom transports of the documentation: their failures as users see them, and their sizes."""

from __future__ import annotations

import ast
import io
import runpy
import socket
import sys
import tokenize
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.links import RESET_ON_CLOSE
from trioxport import (
    Connection,
    ConnectionLost,
    Reconnect,
    Request,
    Response,
    ServerUnreachable,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
    targets,
)

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(autouse=True)
def scheme(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setattr(targets, "_registered", {})
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / "custom_scheme.py"))
    yield
    sys.modules.pop("custom_transport", None)


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.method))


@asynccontextmanager
async def served(handler: Any = echo) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, handler, "prefixed://127.0.0.1:0")
        yield address
        nursery.cancel_scope.cancel()


async def test_the_address_that_a_server_reports_can_be_opened() -> None:
    async with served() as address, open_transport(address) as (tx, rx):
        await tx.send(Request(1, "hello"))
        assert await rx.receive() == Response(1, "hello")


@pytest.mark.parametrize("reconnect", [None, Reconnect(attempts=0)])
async def test_what_still_waited_when_the_wire_broke_was_not_sent(reconnect: Reconnect | None) -> None:
    sent = 0
    outcomes: Counter[str] = Counter()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    target = f"prefixed://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with listener, open_transport(target, reconnect=reconnect) as (tx, rx):
        peer = await listener.accept()
        with trio.move_on_after(1):
            while True:
                await tx.send(Request(sent, "large", {"text": "x" * 256 * 1024}))
                sent += 1
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        await peer.aclose()
        with pytest.raises(ConnectionLost, match="the connection broke: ") as caught:  # noqa: PT012 (one by one)
            while True:
                undelivered = await rx.receive()
                assert isinstance(undelivered, Undelivered)
                outcomes[undelivered.outcome] += 1
    assert "Group" not in str(caught.value)
    assert outcomes.total() == sent
    assert outcomes["not_sent"] == 64


async def test_the_end_in_the_middle_of_a_message_is_a_loss() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:

        async def end_early() -> None:
            async with await listener.accept() as stream:
                await stream.send_all(b"\x00\x00\x00\x10{")

        nursery.start_soon(end_early)
        async with open_transport(f"prefixed://127.0.0.1:{listener.socket.getsockname()[1]}") as (_, rx):
            with pytest.raises(ConnectionLost, match="the connection broke: the peer went away in the middle"):
                await rx.receive()


async def test_it_does_not_leave_this_machine_unencrypted() -> None:
    with pytest.raises(UsageError, match="unencrypted traffic beyond this machine"):
        async with open_transport("prefixed://192.0.2.1:7000"):
            pytest.fail("it opened")
    with pytest.raises(UsageError, match="unencrypted traffic beyond this machine"):
        await serve_transport(echo, "prefixed://0.0.0.0:0")


async def test_a_port_in_use_is_a_usage_error() -> None:
    async with served() as address:
        with pytest.raises(UsageError, match=r"cannot listen: Address already in use\. Choose another port") as caught:
            await serve_transport(echo, address)
    assert caught.value.target == address


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ServerUnreachable, match="cannot connect: Connection refused"):
            async with open_transport(f"prefixed://127.0.0.1:{unused.getsockname()[1]}"):
                pytest.fail("it opened")


@pytest.mark.parametrize("url", ["prefixed://h", "prefixed://:1", "prefixed://ann:hunter2@h", "prefixed://h:x"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"prefixed://HOST:PORT|no valid URL") as caught:
        targets.to_transport(url)
    assert "hunter2" not in str(caught.value)


# The size of a binding.

BLANK_TOKENS = frozenset(
    (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
)


def code_lines(source: str) -> int:
    """Count the lines of code: without comments, blank lines and docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for each in tokens if each.type not in BLANK_TOKENS for line in range(each.start[0], each.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node) is not None
        ):
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(code)


@pytest.mark.parametrize(("example", "most"), [("custom_transport", 40), ("nats_transport", 60)])
def test_a_custom_binding_is_short(example: str, most: int) -> None:
    assert code_lines((EXAMPLES / f"{example}.py").read_text(encoding="utf-8")) <= most
