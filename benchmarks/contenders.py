"""The three contenders, each as a send and a receive function over the same child process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import trio

from trioxport import Request, open_transport
from trioxport.transports.stdio import Stdio

COMMAND: Final = [sys.executable, "-I", "-S", str(Path(__file__).with_name("programs") / "echo_child.py")]


class Conversation(NamedTuple):
    """An open pair of ends.

    Args:
        prepare: Makes the message of an id and a text, as the contender takes it; not part of what is timed.
        send: Sends one such message.
        receive: Returns the next answer.
    """

    prepare: Callable[[int, str], Any]
    send: Callable[[Any], Awaitable[object]]
    receive: Callable[[], Awaitable[object]]


Contender: TypeAlias = Callable[[], AbstractAsyncContextManager[Conversation]]


def request_line(number: int, text: str) -> bytes:
    """The bytes of a request, as all contenders write them."""
    return f'{{"jsonrpc":"2.0","id":{number},"method":"echo","params":{{"text":"{text}"}}}}\n'.encode()


@asynccontextmanager
async def bare_pipe() -> AsyncGenerator[Conversation]:
    """Trio's own pipes and nothing else: bytes are written, and read and split at newlines."""
    process = await trio.lowlevel.open_process(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Conversation(request_line, process.stdin.send_all, _Lines(process.stdout).receive)
    finally:
        await process.stdin.aclose()
        await process.wait()
        await process.stdout.aclose()


class _Lines:
    """The lines of a stream, without a look at their content."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._unfinished: list[bytes] = []
        self._lines: list[bytes] = []

    async def receive(self) -> bytes:
        while not self._lines:
            chunk = bytes(await self._stream.receive_some())
            if not chunk:
                raise trio.EndOfChannel
            if b"\n" not in chunk:
                self._unfinished.append(chunk)
                continue
            first, *lines = chunk.split(b"\n")
            last = lines.pop()
            self._lines = [b"".join([*self._unfinished, first]), *lines][::-1]
            self._unfinished = [last] if last else []
        return self._lines.pop()


@asynccontextmanager
async def official_sdk() -> AsyncGenerator[Conversation]:
    """The stdio client of the official SDK, run under Trio."""
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCRequest

    def prepare(number: int, text: str) -> SessionMessage:
        return SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=number, method="echo", params={"text": text}))

    async with stdio_client(StdioServerParameters(command=COMMAND[0], args=COMMAND[1:])) as (read, write):
        yield Conversation(prepare, write.send, read.receive)


@asynccontextmanager
async def trioxport() -> AsyncGenerator[Conversation]:
    """This library."""
    async with open_transport(Stdio(COMMAND[0], COMMAND[1:])) as (tx, rx):
        yield Conversation(request, tx.send, rx.receive)


def request(number: int, text: str) -> Request:
    """A request with a text for its parameter."""
    return Request(number, "echo", {"text": text})


CONTENDERS: Final[dict[str, Contender]] = {
    "bare pipe": bare_pipe,
    "official SDK": official_sdk,
    "trioxport": trioxport,
}
