"""What the checks say to the check peer."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from trioxport.connection import Connection
from trioxport.messages import Incoming, Notification, Request, Response, Undelivered
from trioxport.testing.bench import PATIENCE, Bench, expect
from trioxport.testing.peer import RAW_MESSAGE

_ids: Final = itertools.count(1000)


async def ask(connection: Connection, method: str, params: dict[str, Any] | None = None) -> Any:
    """Send a request and wait for its result; nothing may come before that, but that a bad message was refused."""
    request = Request(next(_ids), method, params or {})
    await connection.tx.send(request)
    answer = await connection.rx.receive()
    while isinstance(answer, Undelivered) and answer.original == RAW_MESSAGE:
        answer = await connection.rx.receive()
    expect(isinstance(answer, Response) and answer.id == request.id, f"{method} was answered by {answer}")
    assert isinstance(answer, Response)
    return answer.result


async def note(connection: Connection, number: int, ballast: str = "") -> None:
    """Send a numbered notification, which the peer keeps."""
    await connection.tx.send(Notification("check/note", {"number": number, "ballast": ballast}))


async def on_both_sides(bench: Bench, check: Callable[[Connection], Awaitable[None]]) -> None:
    """Run ``check`` on a client's connection, and on a server's where the server is here."""
    with trio.fail_after(2 * PATIENCE):
        async with bench.talk() as connection:
            await check(connection)
    if bench.link.server is not None:
        with trio.fail_after(2 * PATIENCE):
            async with bench.serve() as connection:
                await check(connection)


def number_of(message: Incoming) -> int:
    """The number that a notification of the check peer brings."""
    expect(isinstance(message, Notification), f"a notification was due, not {message}")
    assert isinstance(message, Notification) and isinstance(message.params, dict)
    return int(message.params["number"])
