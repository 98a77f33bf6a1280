"""Rule 8: messages that are no messages."""

from __future__ import annotations

from typing import Final

from trioxport.connection import Connection
from trioxport.errors import MessageTooLarge
from trioxport.messages import Request, Undelivered
from trioxport.testing.bench import Bench, Broken, expect
from trioxport.testing.peer import LIMITS, RAW
from trioxport.testing.rules.talk import ask, on_both_sides

GARBAGE: Final = (
    b"this is no message",
    b'{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"1.0","method":"check/note"}',
    b'["not","an","object"]',
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    b"x" * (LIMITS.max_message_size + 1),
)


async def survives_garbage(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        for number, garbage in enumerate(GARBAGE, 1):
            await RAW.send(connection, garbage)
            await ask(connection, "check/echo", {"after": number})
            await ask(connection, "check/garbage", {"bytes": garbage[: 64 * 1024].decode("latin-1")})
            count = sum(connection.statistics().discarded.values())
            expect(count == number, f"{number} bad messages were received, and {count} counted")

    await on_both_sides(bench, check)


async def settles_what_is_too_large(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        tx, rx = connection
        try:
            await tx.send(Request(1, "check/echo", {"large": "x" * LIMITS.max_message_size}))
        except MessageTooLarge as error:
            expect(error.outcome == "not_sent", "a message too large to send was not called not_sent")
        else:
            raise Broken("a message over the limit was accepted")
        if connection.scope.codec.binary:
            return  # no id can be found in a fragment of a binary message
        await tx.send(Request(2, "check/too_large"))
        answer = await rx.receive()
        expect(isinstance(answer, Undelivered) and answer.id == 2, f"a response over the limit became {answer}")
        await ask(connection, "check/echo")

    await on_both_sides(bench, check)
