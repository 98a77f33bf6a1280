"""A program that serves its standard streams. Its arguments: seconds of close_timeout, and what to print at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import trio

from trioxport import Connection, Notification, Request, Response, UsageError, serve_transport


def note(text: str) -> None:
    os.write(2, f"{text}\n".encode())


async def chatter() -> object:
    """Write all outputs that could get onto the wire by mistake."""
    print("a print", flush=True)  # noqa: T201  # its way is what is tested
    print("a print that stays in the buffer")  # noqa: T201  # as above
    os.write(1, b"a write\n")
    await trio.run_process(["echo", "a child"])
    return "chattered"


async def read_standard_input() -> object:
    inherited = await trio.run_process(["cat"], stdin=None, capture_stdout=True)
    return sys.stdin.read() + inherited.stdout.decode()


async def serve_again() -> object:
    try:
        await serve_transport(handler, "stdio:")
    except UsageError as error:
        return str(error)
    return "served twice"


async def inherited_descriptors() -> object:
    """Return the pipes that a child of this process inherits above its standard streams."""
    listing = await trio.run_process(["ls", "-l", "/dev/fd/"], stdin=subprocess.DEVNULL, capture_stdout=True)
    lines = listing.stdout.decode().splitlines()
    return [line for line in lines if "pipe:" in line and not line.partition(" -> ")[0].endswith((" 1", " 2"))]


METHODS = {method.__name__: method for method in (chatter, inherited_descriptors, read_standard_input, serve_again)}


async def handler(connection: Connection) -> None:
    async for message in connection.rx:
        match message:
            case Request(id=request_id, method="echo", params=params):
                await connection.tx.send(Response(request_id, params))
            case Request(id=request_id, method=method):
                await connection.tx.send(Response(request_id, await METHODS[method]()))
            case Notification(method="return"):
                return
            case Notification(method="raise"):
                raise LookupError("the handler's own")
            case Notification(method="half-close"):
                await connection.tx.aclose()
            case Notification(method=method):
                note(f"notified of {method}")
            case _:
                raise AssertionError(message)
    note("the client is done")


async def main(close_timeout: Any = "5", *last_words: str) -> None:
    await serve_transport(handler, "stdio:", close_timeout=float(close_timeout))
    print(*last_words)  # noqa: T201  # as above


trio.run(main, *sys.argv[1:])
