"""Odd messages of clients and servers through a bridge: none is a defect, and every other client is answered."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.bridges import INITIALIZED, MODERN, VERSION, modern, refusal
from trioxport import (
    Connection,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    Target,
    TransportError,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Era
from trioxport.protocol import META
from trioxport.servers.bridge import Sharing, serve_bridge
from trioxport.transports.memory import MemorySwitch

SEEDS: Final = 2
MAX_ASKED: Final = 200
VALUES: Final[Sequence[Any]] = [
    *(None, [], {}, "", "\ud800", 2**70, -1, True, 1.5, [[1]], {"a": []}, [None], {"_meta": []}),
    *("a:", "a:/x", "init", 1, 2, 1001, 1002, "bridge:1", "form", "debug", VERSION, "complete", "input_required"),
]
MEMBERS: Final = [
    *("uri", "name", "_meta", "progressToken", "requestId", "level", "notifications", "mode", "requestState"),
    *("inputResponses", "inputRequests", "resultType", "tools", "prompts", "resources", "nextCursor", "ref"),
    *("arguments", "capabilities", "protocolVersion", "serverInfo", "supportedVersions", "progress", "elicitations"),
    *("ttlMs", "cacheScope", "url", "method", "params", "toolsListChanged", "resourceSubscriptions", "outputSchema"),
    *(META + name for name in ("subscriptionId", "logLevel", "clientCapabilities", "serverInfo")),
]
OF_CLIENTS: Final = [
    *("initialize", "server/discover", "ping", "tools/list", "resources/list", "tools/call", "prompts/get", "odd"),
    *("resources/read", "resources/subscribe", "resources/unsubscribe", "logging/setLevel", "completion/complete"),
    "subscriptions/listen",
]
OF_SERVERS: Final = ["ping", "sampling/createMessage", "elicitation/create", "roots/list", "odd"]
NOTIFICATIONS: Final = [
    f"notifications/{name}"
    for name in (
        *("cancelled", "progress", "message", "resources/updated", "tools/list_changed", "resources/list_changed"),
        *("subscriptions/acknowledged", "initialized", "roots/list_changed", "elicitation/complete", "odd"),
    )
]
CAPABILITIES: Final = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
DISCOVERED: Final = {"resultType": "complete", "supportedVersions": [VERSION], "capabilities": CAPABILITIES}


class OddMessages:
    """Messages of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        kind = self.random.random()
        if depth > 3 or kind < 0.45:
            return copy.deepcopy(self.random.choice(VALUES))
        if kind < 0.85:
            return self.members(depth)
        return [self.value(depth + 1) for _ in range(self.random.randrange(4))]

    def members(self, depth: int = 0) -> dict[str, Any]:
        return {self.random.choice(MEMBERS): self.value(depth + 1) for _ in range(self.random.randrange(5))}

    def params(self, **likely: Any) -> Any:
        members = self.members() | {name: value for name, value in likely.items() if self.random.random() < 0.5}
        return self.random.choice([members, members, members, None, []])

    def of_client(self, era: Era, asked: Sequence[Any]) -> Message:
        kind = self.random.random()
        if kind < 0.6:
            token = self.random.choice([1, "x", "\ud800", 2**70])
            capabilities: dict[str, Any] = {
                "elicitation": self.random.choice([{}, {"form": {}, "url": {}}]),
                "sampling": {},
                "roots": {},
            }
            meta = {**MODERN, META + "clientCapabilities": capabilities, "progressToken": token}
            likely: dict[str, Any] = {"_meta": meta} if era == "modern" else {}
            likely["notifications"] = {"toolsListChanged": True, "resourceSubscriptions": [self.value(), "a:"]}
            params = self.params(uri="a:", name=self.random.choice(["one__t", "two__t"]), **likely)
            request_id: Any = self.random.choice([1, 2, 3, "x", "\ud800", 2**70, self.random.randrange(10**6)])
            return Request(request_id, self.random.choice(OF_CLIENTS), params)
        if kind < 0.8:
            return self._answer_to(self.random.choice(asked))
        return Notification(self.random.choice(NOTIFICATIONS), self.params())

    def of_server(self, asked: Sequence[Any]) -> Message:
        kind, number = self.random.random(), self.random.choice(asked)
        if kind < 0.5:
            return self._answer_to(number)
        if kind < 0.7:
            request_id: Any = self.random.choice([1, 2, "q", "\ud800", 2**70])
            return Request(request_id, self.random.choice(OF_SERVERS), self.params(mode=self.value()))
        likely = {"_meta": {META + "subscriptionId": number}, "progressToken": number, "requestId": number}
        return Notification(self.random.choice(NOTIFICATIONS), self.params(**likely))

    def _answer_to(self, number: Any) -> Message:
        if self.random.random() < 0.2:
            return ErrorResponse(number, self.random.choice([-32601, -32042, -32002, -32020]), "no", self.value())
        questions = {"a": {"method": "elicitation/create", "params": self.value()}}
        result = self.params(resultType=self.random.choice(["complete", "input_required"]), inputRequests=questions)
        return Response(number, self.random.choice([result, self.value()]))


class OddServer:
    """Begins in order, and then says anything; it answers one method in order all the same."""

    def __init__(self, era: Era, odd: OddMessages) -> None:
        self._era = era
        self._odd = odd

    async def __call__(self, connection: Connection) -> None:
        asked: list[Any] = [0]
        async for message in connection.rx:
            if not isinstance(message, Request):
                continue
            if message.method in ("server/discover", "initialize") and len(asked) < 4:
                is_known = (message.method == "initialize") == (self._era == "legacy")
                result = {**INITIALIZED, "capabilities": CAPABILITIES} if self._era == "legacy" else DISCOVERED
                await connection.tx.send(Response(message.id, result) if is_known else refusal(message))
            elif message.method == "in order":
                await connection.tx.send(Response(message.id, {}))
                continue
            asked.append(message.id)
            for _ in range(self._odd.random.randrange(4) if len(asked) < MAX_ASKED else 0):
                with suppress(UsageError):  # an id in flight
                    await connection.tx.send(self._odd.of_server(asked[-6:]))


async def say_anything(target: Target, era: Era, odd: OddMessages) -> None:
    """A client that sends odd messages, and leaves."""
    with suppress(TransportError):
        async with open_transport(target, close_timeout=0.1) as client, trio.open_nursery() as nursery:
            asked: list[Any] = [1]

            async def read() -> None:
                async for message in client.rx:
                    asked.extend([message.id] if isinstance(message, Request) else [])

            nursery.start_soon(read)
            params = {"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}, "elicitation": {}, "roots": {}}}
            await client.tx.send(
                Request("i", "initialize", params) if era == "legacy" else modern("d", "server/discover")
            )
            for _ in range(25):
                await wait_all_tasks_blocked()
                with suppress(UsageError):  # an id in flight
                    await client.tx.send(odd.of_client(era, asked))
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sharing", ["shared", "per-session"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_odd_messages_harm_nobody_else(
    era: Era, sharing: Sharing, several: bool, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.ERROR, "trioxport")
    for seed in range(SEEDS):
        odd = OddMessages(seed)
        behind = {name: MemorySwitch() for name in ("one", "two")}
        async with trio.open_nursery() as nursery:
            for switch in behind.values():
                await nursery.start(partial(serve_transport, OddServer(era, odd), switch))
            listen, target = MemorySwitch(), behind if several else behind["one"]
            await nursery.start(partial(serve_bridge, listen, target, sharing=sharing, list_timeout=1))
            async with trio.open_nursery() as clients:
                for each in ("legacy", "modern", "modern"):
                    clients.start_soon(partial(say_anything, listen, each, odd))
            async with open_transport(listen) as other:
                await other.tx.send(modern("in order", "tools/list" if several else "in order"))
                answer = await other.rx.receive()
                while not isinstance(answer, Response | ErrorResponse) or answer.id != "in order":
                    answer = await other.rx.receive()
            nursery.cancel_scope.cancel()
        assert not caplog.records, (seed, caplog.text)
