"""The peer against scripted other sides over ``memory://``, and against another peer."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.support.scripted_connection import accepted_peer
from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    Frame,
    Limits,
    MessageTooLarge,
    Notification,
    Request,
    RequestTimeout,
    Response,
    TransportError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport._core.nursery import open_bare_nursery
from trioxport.peer import IncomingRequest, JSONRPCError, Peer, open_peer

Handler = Callable[[Connection], Awaitable[object]]

_names = itertools.count()


@asynccontextmanager
async def connected(handler: Handler, **options: Any) -> AsyncGenerator[Connection]:
    """A client's connection to ``handler``."""
    async with open_bare_nursery() as nursery:
        target = f"memory://peer-{next(_names)}"
        await nursery.start(serve_transport, handler, target)
        async with open_transport(target, **options) as connection:
            yield connection
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def talking_to(handler: Handler, **handlers: Any) -> AsyncGenerator[Peer]:
    """A client's peer, talking to ``handler``."""
    async with connected(handler) as connection, open_peer(connection, **handlers) as peer:
        yield peer


class Scripted:
    """The scripted other side: it notes the messages, and sends those of the test."""

    def __init__(self) -> None:
        self._connected = trio.Event()
        self._leave = trio.Event()

    async def __call__(self, connection: Connection) -> None:
        self.connection = connection
        self._connected.set()
        await self._leave.wait()

    async def receive(self) -> Any:
        await self._connected.wait()
        return await self.connection.rx.receive()

    async def send(self, message: Any) -> None:
        await self._connected.wait()
        await self.connection.tx.send(message)

    async def hang_up(self) -> None:
        await self._connected.wait()
        self._leave.set()

    async def cut(self) -> None:
        """Break the link below the connection."""
        await self._connected.wait()
        self.connection._supervisor.abort()
        self._leave.set()


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {"params": message.params}))


async def test_a_request_returns_the_result_of_its_answer() -> None:
    async with talking_to(echo) as peer:
        assert await peer.request("tools/list", {"cursor": "x"}) == {"params": {"cursor": "x"}}
        assert await peer.request("tools/list") == {"params": None}


async def test_an_id_may_come_again_once_its_request_is_cancelled() -> None:
    """A server that was started anew begins its ids anew; the connection cancels the requests of the old one."""
    release = trio.Event()

    async def work(request: IncomingRequest) -> int:
        with trio.CancelScope(shield=request.params["n"] == 1):
            await release.wait()
        return int(request.params["n"])

    async with accepted_peer() as (connection, scripted), open_peer(connection, requests={"work": work}):
        for number in (1, 2):
            scripted.say(Notification("notifications/cancelled", {"requestId": 7}))
            scripted.say(Request(7, "work", {"n": number}))
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        assert await scripted.sent() == Response(7, 2)
        scripted.say(Request(7, "ping"))
        assert await scripted.sent() == Response(7, {})


async def test_metadata_stay_on_this_side_and_a_cancellation_goes_the_way_of_its_request() -> None:
    routing = {"headers": {"X-Trace": "7"}, "related_request": 3}
    metadata = {"timeout": 5.0, **routing}
    async with accepted_peer() as (connection, scripted), open_peer(connection) as peer:
        await peer.notify("note", metadata=routing)
        async with open_bare_nursery() as nursery:
            nursery.start_soon(partial(peer.request, "work", {"a": 1}, metadata=metadata))
            note, request = await scripted.sent(), await scripted.request()
            nursery.cancel_scope.cancel()
        cancelled = await scripted.sent()
    assert (note, note.metadata) == (Notification("note"), routing)
    assert (request.method, request.params, request.metadata) == ("work", {"a": 1}, metadata)
    assert cancelled == Notification("notifications/cancelled", {"requestId": request.id})
    assert cancelled.metadata == routing


async def test_100_requests_at_once_that_are_answered_in_reverse() -> None:
    async def reverse(connection: Connection) -> None:
        requests = [await connection.rx.receive() for _ in range(100)]
        for request in reversed(requests):
            assert isinstance(request, Request)
            await connection.tx.send(Response(request.id, request.params))
        await trio.sleep_forever()

    results: dict[int, Any] = {}

    async def ask(peer: Peer, number: int) -> None:
        results[number] = await peer.request("work", {"number": number})

    async with talking_to(reverse) as peer, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(ask, peer, number)
    assert results == {number: {"number": number} for number in range(100)}


async def test_an_error_response_is_a_jsonrpcerror() -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def answer() -> None:
            request = await server.receive()
            await server.send(ErrorResponse(request.id, -32602, "Unknown tool: x", {"known": []}))

        nursery.start_soon(answer)
        with pytest.raises(JSONRPCError) as caught:
            await peer.request("tools/call", {"name": "x"})
    assert (caught.value.code, caught.value.message, caught.value.data) == (-32602, "Unknown tool: x", {"known": []})
    assert str(caught.value).startswith("Unknown tool: x (code -32602). This client has not negotiated with the server")


async def test_unexpected_messages_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    server = Scripted()
    async with talking_to(server) as peer:
        await server.send(ErrorResponse(None, -32700, "Parse error"))
        await server.send(Notification("notifications/unheard/of"))
        await server.send(Notification("notifications/progress", {"progressToken": 7, "progress": 1}))
        await server.send(Notification("notifications/progress", [1]))
        await server.send(Notification("notifications/cancelled", {"requestId": 99}))
        await server.send(Notification("notifications/cancelled", {"requestId": [99]}))
        await server.send(Request(1, "ping"))
        assert await server.receive() == Response(1, {})
        assert not [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING]
        assert peer.connection.state == "open"


async def test_a_timeout_cancels_the_request_on_the_wire(autojump_clock: trio.testing.MockClock) -> None:
    server = Scripted()
    async with talking_to(server) as peer:
        with pytest.raises(RequestTimeout, match="no sign of life for 5 s in answer to work") as caught:
            await peer.request("work", timeout=5)
        assert trio.current_time() == pytest.approx(5)
        assert caught.value.outcome == "unknown"
        request = await server.receive()
        assert await server.receive() == Notification("notifications/cancelled", {"requestId": request.id})


async def test_without_a_timeout_a_request_waits(autojump_clock: trio.testing.MockClock) -> None:
    server = Scripted()
    async with talking_to(server) as peer:
        with trio.move_on_after(1_000_000) as cap:
            await peer.request("work", timeout=None)
        assert cap.cancelled_caught


async def test_a_timeout_while_the_other_side_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async def deaf(connection: Connection) -> None:
        await trio.sleep_forever()

    async with (
        connected(deaf, limits=Limits(max_buffered_messages=0)) as connection,
        open_peer(connection) as peer,
    ):
        with pytest.raises(RequestTimeout) as caught:
            await peer.request("work", timeout=5)
        assert caught.value.outcome == "not_sent"


async def test_progress_is_passed_on_and_extends_the_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(connection: Connection) -> None:
        request = await connection.rx.receive()
        assert isinstance(request, Request) and isinstance(request.params, dict)
        token = request.params["_meta"]["progressToken"]
        for step in range(1, 5):
            await trio.sleep(4)
            await connection.tx.send(
                Notification("notifications/progress", {"progressToken": token, "progress": step, "total": 4.0})
            )
        await connection.tx.send(
            Notification("notifications/progress", {"progressToken": token, "progress": 5, "message": "done"})
        )
        await connection.tx.send(Notification("notifications/progress", {"progressToken": token, "progress": "x"}))
        await connection.tx.send(Response(request.id, {}))
        await trio.sleep_forever()

    seen: list[object] = []
    async with talking_to(slow) as peer:
        result = await peer.request("work", timeout=5, on_progress=lambda *progress: seen.append(progress))
    assert result == {}
    assert seen == [(1, 4.0, None), (2, 4.0, None), (3, 4.0, None), (4, 4.0, None), (5, None, "done")]


async def test_a_progress_token_of_the_callers_is_kept() -> None:
    async with talking_to(echo) as peer:
        result = await peer.request("work", {"_meta": {"progressToken": "mine", "a/b": 1}}, on_progress=print)
        assert result == {"params": {"_meta": {"progressToken": "mine", "a/b": 1}}}


async def test_progress_that_only_the_callers_token_asks_for_extends_the_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def report() -> None:
            request = await server.receive()
            await trio.sleep(4)
            await server.send(Notification("notifications/progress", {"progressToken": "mine", "progress": 1}))
            await trio.sleep(4)
            await server.send(Response(request.id, {}))

        nursery.start_soon(report)
        assert await peer.request("work", {"_meta": {"progressToken": "mine"}}, timeout=5) == {}


async def test_an_exception_of_on_progress_comes_out_and_cancels_the_request() -> None:
    server = Scripted()

    def fail(progress: float, total: float | None, message: str | None) -> None:
        raise ValueError(f"at {progress}")

    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def report() -> None:
            request = await server.receive()
            for progress in (1, 2):
                await server.send(
                    Notification("notifications/progress", {"progressToken": request.id, "progress": progress})
                )
            await server.send(Response(request.id, {}))

        nursery.start_soon(report)
        with pytest.raises(ValueError, match="at 1"):
            await peer.request("work", on_progress=fail)
        assert await server.receive() == Notification("notifications/cancelled", {"requestId": 1})


async def test_a_cancelled_scope_cancels_on_the_wire_and_the_late_answer_is_dropped() -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                await peer.request("work")

        scope = trio.CancelScope()
        nursery.start_soon(ask, scope)
        request = await server.receive()
        scope.cancel()
        assert await server.receive() == Notification("notifications/cancelled", {"requestId": request.id})
        await server.send(Response(request.id, {"too": "late"}))
        await server.send(Request("p", "ping"))
        assert await server.receive() == Response("p", {})
        assert peer.connection.statistics().discarded == {"late": 1}


async def test_initialize_is_given_up_in_silence() -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                await peer.request("initialize", {})

        scope = trio.CancelScope()
        nursery.start_soon(ask, scope)
        request = await server.receive()
        scope.cancel()
        await peer.notify("notifications/next")
        assert await server.receive() == Notification("notifications/next")
        await server.send(Response(request.id, {"too": "late"}))
        await server.send(Request("p", "ping"))
        assert await server.receive() == Response("p", {})


async def test_sending_a_cancellation_takes_a_second_at_most(autojump_clock: trio.testing.MockClock) -> None:
    async def deaf(connection: Connection) -> None:
        await connection.rx.receive()
        await trio.sleep_forever()

    async with (
        connected(deaf, limits=Limits(max_buffered_messages=0)) as connection,
        open_peer(connection) as peer,
    ):
        with trio.move_on_after(3):
            await peer.request("work")
        assert trio.current_time() == pytest.approx(4)


async def test_a_cancellation_and_an_answer_that_cannot_be_sent_are_let_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = Scripted()
    async with talking_to(server) as peer:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.request, "work")
                await server.receive()
                await peer.connection.tx.aclose()
                await server.send(Request(1, "ping"))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    assert "an answer is dropped" in caplog.text
    assert "the cancellation of request 1 is not sent" in caplog.text


async def test_a_lost_connection_ends_every_request_and_refuses_later_ones() -> None:
    server = Scripted()
    failures: list[ConnectionLost] = []

    async def ask(peer: Peer) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await peer.request("work", timeout=None)
        failures.append(caught.value)

    async with talking_to(server) as peer:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask, peer)
            for _ in range(30):
                await server.receive()
            await server.cut()
        assert len(failures) == len({id(failure) for failure in failures}) == 30
        assert {failure.outcome for failure in failures} == {"unknown"}
        with pytest.raises(ConnectionLost):
            await peer.request("work")
        with pytest.raises(ConnectionLost) as caught:
            await peer.notify("notifications/x")
        assert caught.value.outcome == "not_sent"


async def test_a_loss_seen_by_a_request_does_not_come_again_on_leaving() -> None:
    server = Scripted()
    async with connected(server) as connection, open_peer(connection) as peer, trio.open_nursery() as nursery:

        async def lose() -> None:
            await server.receive()
            await server.cut()

        nursery.start_soon(lose)
        with pytest.raises(ConnectionLost):
            await peer.request("work")
            # No checkpoint follows: the reading task has not got further than the answer.
    assert connection.state == "failed"


async def test_an_unreported_loss_is_raised_on_leaving() -> None:
    server = Scripted()
    async with connected(server) as connection:
        leaving = open_peer(connection)
        await leaving.__aenter__()
        await server.cut()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await leaving.__aexit__(None, None, None)


async def test_a_loss_that_a_notification_saw_is_not_raised_on_leaving() -> None:
    server = Scripted()
    async with talking_to(server) as peer:
        await server.cut()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await peer.notify("notifications/x")


async def test_the_bodys_exception_wins_over_the_loss() -> None:
    server = Scripted()
    error = ValueError("mine")

    async def fail_after_the_loss() -> None:
        async with connected(server) as connection, open_peer(connection):
            await server.cut()
            await trio.testing.wait_all_tasks_blocked()
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        await fail_after_the_loss()
    assert caught.value is error


async def test_an_orderly_end_is_a_loss_only_to_waiting_requests() -> None:
    server = Scripted()
    async with talking_to(server) as peer:
        async with trio.open_nursery() as nursery:

            async def hang_up() -> None:
                await server.receive()
                await server.hang_up()

            nursery.start_soon(hang_up)
            with pytest.raises(ConnectionLost, match="before it answered"):
                await peer.request("work")
        await peer.wait_finished()
        with pytest.raises(ConnectionLost, match="has ended") as caught:
            await peer.request("work")
        assert caught.value.outcome == "not_sent"


async def test_a_connection_closed_on_this_side_ends_the_requests() -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def close() -> None:
            await server.receive()
            nursery.start_soon(server.hang_up)
            await peer.connection.aclose()

        nursery.start_soon(close)
        with pytest.raises(TransportError):
            await peer.request("work")


async def test_rx_closed_on_this_side_ends_the_requests() -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def close() -> None:
            await server.receive()
            await peer.connection.rx.aclose()

        nursery.start_soon(close)
        with pytest.raises(ConnectionLost, match="has ended"):
            await peer.request("work")


async def test_a_layer_that_fails_to_receive_ends_the_conversation() -> None:
    class Broken:
        level = "message"

        def wrap(self, channels: Any, scope: Any) -> Any:
            receive = channels.receive

            class Receive(trio.abc.ReceiveChannel[Any]):
                async def receive(self) -> Any:
                    await receive.receive()
                    raise KeyError("a bug")

                async def aclose(self) -> None:
                    await receive.aclose()

            return channels._replace(receive=Receive())

    async with connected(echo, layers=[Broken()]) as connection, open_peer(connection) as peer:
        with pytest.raises(ConnectionLost, match="KeyError") as caught:
            await peer.request("work")
        assert isinstance(caught.value.__cause__, KeyError)


async def test_an_undeliverable_request_raises_its_cause_and_nothing_else_is_lost() -> None:
    async def twice(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            await connection.tx.send(Response(message.id, [message.params, message.params]))

    async with connected(twice, limits=Limits(max_message_size=200)) as connection, open_peer(connection) as peer:
        with pytest.raises(MessageTooLarge):
            await peer.request("work", {"text": "x" * 190})
        with pytest.raises(UsageError):
            await peer.request("work", {"text": object()})
        with pytest.raises(MessageTooLarge):
            await peer.request("work", {"text": "x" * 130})  # the answer is over the limit
        assert await peer.request("work", {"text": "x"}) == [{"text": "x"}, {"text": "x"}]


async def test_an_undelivered_notification_is_only_noted(caplog: pytest.LogCaptureFixture) -> None:
    class Bounce:
        level = "message"

        def wrap(self, channels: Any, scope: Any) -> Any:
            receive = channels.receive

            class Receive(trio.abc.ReceiveChannel[Any]):
                async def receive(self) -> Any:
                    message = await receive.receive()
                    return Undelivered.of(message, ConnectionLost("bounced"))

                async def aclose(self) -> None:
                    await receive.aclose()

            return channels._replace(receive=Receive())

    caplog.set_level(logging.DEBUG)
    server = Scripted()
    async with connected(server, layers=[Bounce()]) as connection, open_peer(connection):
        await server.send(Notification("x"))
        await trio.testing.wait_all_tasks_blocked()
    assert "bounced" in caplog.text


async def test_after_the_block_a_peer_is_closed() -> None:
    server = Scripted()
    async with connected(server) as connection, trio.open_nursery() as nursery:

        async def ask(peer: Peer) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await peer.request("work")

        async with open_peer(connection) as peer:
            nursery.start_soon(ask, peer)
            await server.receive()
        with pytest.raises(trio.ClosedResourceError):
            await peer.request("work")
        assert connection.state == "open"


async def test_a_server_ends_a_subscription() -> None:
    server = Scripted()
    async with talking_to(server) as peer, trio.open_nursery() as nursery:

        async def end() -> None:
            request = await server.receive()
            await server.send(Notification("notifications/cancelled", {"requestId": request.id}))

        nursery.start_soon(end)
        with pytest.raises(TransportError, match="ended the subscription"):
            await peer.request("subscriptions/listen", timeout=None)


# Incoming requests.


@asynccontextmanager
async def calling(**handlers: Any) -> AsyncGenerator[Peer]:
    """A peer whose other side is a peer with the handlers."""

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, **handlers) as peer:
            await peer.wait_finished()

    async with talking_to(serve) as peer:
        yield peer


async def test_a_handler_gets_the_request_and_returns_the_result() -> None:
    async def describe(request: IncomingRequest) -> dict[str, Any]:
        return {"id": request.id, "method": request.method, "params": dict(request.params)}

    async with calling(requests={"describe": describe}) as peer:
        assert await peer.request("describe", {"a": 1}) == {"id": 1, "method": "describe", "params": {"a": 1}}
        assert await peer.request("describe") == {"id": 2, "method": "describe", "params": {}}


async def test_a_handler_without_a_result_and_an_overridden_ping() -> None:
    async def nothing(request: IncomingRequest) -> None:
        pass

    async def pong(request: IncomingRequest) -> dict[str, Any]:
        return {"pong": True}

    async with calling(requests={"nothing": nothing, "ping": pong}) as peer:
        assert await peer.request("nothing") == {}
        assert await peer.request("ping") == {"pong": True}


async def test_an_unknown_method_and_positional_parameters() -> None:
    async def handler(request: IncomingRequest) -> None: ...

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, requests={"known": handler}) as peer:
            await peer.wait_finished()

    async with connected(serve) as (tx, rx):
        await tx.send(Request(1, "unknown"))
        assert await rx.receive() == ErrorResponse(1, -32601, "Method not found: unknown")
        await tx.send(Request(2, "known", [1, 2]))
        assert await rx.receive() == ErrorResponse(2, -32602, "The parameters have to be an object")


async def test_exceptions_of_handlers(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(request: IncomingRequest) -> None:
        async with trio.open_nursery():
            raise JSONRPCError(42, "no", {"why": "because"})

    async def crash(request: IncomingRequest) -> None:
        raise ZeroDivisionError("a secret")

    async with calling(requests={"refuse": refuse, "crash": crash}) as peer:
        with pytest.raises(JSONRPCError) as refused:
            await peer.request("refuse")
        assert (refused.value.code, refused.value.message, refused.value.data) == (42, "no", {"why": "because"})
        with pytest.raises(JSONRPCError) as crashed:
            await peer.request("crash")
        assert (crashed.value.code, crashed.value.message, crashed.value.data) == (-32603, "Internal error", None)
    assert "ZeroDivisionError: a secret" in caplog.text


async def test_a_result_that_cannot_be_sent_is_an_error_to_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    async def object_result(request: IncomingRequest) -> object:
        return {"a": object()}

    async def long_result(request: IncomingRequest) -> str:
        return "x" * (17 * 1024 * 1024)

    async with calling(requests={"object": object_result, "long": long_result}) as peer:
        with pytest.raises(JSONRPCError, match=r"Internal error \("):
            await peer.request("object")
        with pytest.raises(JSONRPCError, match="Internal error: the answer is too large"):
            await peer.request("long")
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


async def test_a_keyboard_interrupt_in_a_handler_comes_out() -> None:
    async def interrupt(request: IncomingRequest) -> None:
        raise KeyboardInterrupt

    server = Scripted()

    async def be_interrupted() -> None:
        async with connected(server) as connection, open_peer(connection, requests={"x": interrupt}):
            await server.send(Request(1, "x"))
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await be_interrupted()


async def test_handlers_report_progress_if_it_was_asked_for() -> None:
    async def work(request: IncomingRequest) -> None:
        await request.progress(1)
        await request.progress(2, 2, "done")

    seen: list[object] = []
    async with calling(requests={"work": work}) as peer:
        await peer.request("work")
        await peer.request("work", {"_meta": "nonsense"})
        await peer.request("work", on_progress=lambda *progress: seen.append(progress))
    assert seen == [(1, None, None), (2, 2, "done")]


async def test_a_cancelled_request_cancels_its_handler_and_is_not_answered() -> None:
    started, ended = trio.Event(), trio.Event()

    async def work(request: IncomingRequest) -> None:
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            ended.set()

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, requests={"work": work}) as peer:
            await peer.wait_finished()

    async with connected(serve) as (tx, rx):
        await tx.send(Request(1, "work"))
        await started.wait()
        await tx.send(Notification("notifications/cancelled", {"requestId": 1, "reason": "test"}))
        await ended.wait()
        await tx.send(Request(2, "ping"))
        assert await rx.receive() == Response(2, {})


async def test_both_sides_call_each_other_inside_a_call() -> None:
    async def countdown(request: IncomingRequest) -> dict[str, Any]:
        number = request.params["number"]
        if number == 0:
            return {"depth": 0}
        inner = await request.peer.request("countdown", {"number": number - 1})
        return {"depth": inner["depth"] + 1}

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, requests={"countdown": countdown}) as peer:
            await peer.wait_finished()

    async with talking_to(serve, requests={"countdown": countdown}) as peer:
        assert await peer.request("countdown", {"number": 20}) == {"depth": 20}


async def test_more_requests_than_handlers_may_run_are_refused_and_reading_goes_on() -> None:
    release = trio.Event()

    async def work(request: IncomingRequest) -> dict[str, Any]:
        return dict(await request.peer.request("ask back"))

    async def answer(request: IncomingRequest) -> dict[str, Any]:
        await release.wait()
        return {"ok": True}

    results: list[object] = []

    async def ask(peer: Peer) -> None:
        try:
            results.append(await peer.request("work"))
        except JSONRPCError as error:
            results.append(error.message)
            release.set()

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, requests={"work": work}) as peer:
            await peer.wait_finished()

    async with talking_to(serve, requests={"ask back": answer}) as peer, trio.open_nursery() as nursery:
        for _ in range(257):
            nursery.start_soon(ask, peer)
    assert results.count({"ok": True}) == 256
    assert results.count("More than 256 requests at once") == 1


async def test_the_same_id_twice_is_refused() -> None:
    async def forever(request: IncomingRequest) -> None:
        await trio.sleep_forever()

    server = Scripted()
    async with talking_to(server, requests={"forever": forever}):
        await server.send(Request("a", "forever"))
        # By hand: a connection does not let its own side do this.
        await server.connection.tx._frames.send(  # type: ignore[attr-defined]  # the frames below the connection
            Frame(b'{"jsonrpc":"2.0","id":"a","method":"forever"}')
        )
        assert await server.receive() == ErrorResponse("a", -32600, "A request with this id is in flight")


async def test_a_lost_connection_cancels_the_handlers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ended: list[str] = []

    async def forever(request: IncomingRequest) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("forever")

    async def asking(request: IncomingRequest) -> None:
        try:
            await request.peer.request("never answered")
        finally:
            ended.append("asking")

    server = Scripted()
    async with talking_to(server, requests={"forever": forever, "asking": asking}) as peer:
        await server.send(Request(1, "forever"))
        await server.send(Request(2, "asking"))
        await server.receive()
        await server.cut()
        with pytest.raises(ConnectionLost):
            await peer.wait_finished()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(ended) == ["asking", "forever"]
    assert not [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING]


async def test_after_an_orderly_end_the_handlers_finish_and_answer() -> None:
    release = trio.Event()

    async def work(request: IncomingRequest) -> dict[str, Any]:
        await release.wait()
        return {"done": request.id}

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, requests={"work": work}) as peer:
            await peer.wait_finished(grace=math.inf)

    async with connected(serve) as (tx, rx):
        await tx.send(Request(1, "work"))
        await tx.send(Request(2, "work"))
        await tx.aclose()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        results = [message.result async for message in rx if isinstance(message, Response)]
        assert sorted(result["done"] for result in results) == [1, 2]


async def test_handlers_that_do_not_finish_are_cancelled_after_a_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def work(request: IncomingRequest) -> None:
        await trio.sleep_forever()

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, requests={"work": work}) as peer:
            await peer.wait_finished(grace=3)

    async with connected(serve) as (tx, rx):
        await tx.send(Request(1, "work"))
        await tx.aclose()
        (message,) = [message async for message in rx]
        assert isinstance(message, ErrorResponse)
        assert trio.current_time() == pytest.approx(3)


# Incoming notifications.


async def test_notifications_are_handled_in_order_and_their_failures_logged(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    done = trio.Event()

    async def note(notification: Notification) -> None:
        assert isinstance(notification.params, dict)
        number = notification.params["number"]
        await trio.lowlevel.checkpoint()
        seen.append(number)
        if number == 3:
            raise ValueError("a bug")
        if number == 9:
            done.set()

    server = Scripted()
    async with talking_to(server, notifications={"note": note}):
        for number in range(10):
            await server.send(Notification("note", {"number": number}))
        await done.wait()
    assert seen == list(range(10))
    assert "ValueError: a bug" in caplog.text


async def test_too_many_notifications_are_dropped_so_that_a_handler_may_wait_for_an_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled = 0
    done = trio.Event()

    async def note(notification: Notification) -> None:
        nonlocal handled
        if handled == 0:
            await peer.request("ask")
        handled += 1
        if handled == 1025:
            done.set()

    server = Scripted()
    async with talking_to(server, notifications={"note": note}) as peer:
        await server.send(Notification("note"))
        request = await server.receive()
        for _ in range(1024 + 5):
            await server.send(Notification("note"))
        await server.send(Response(request.id, {}))
        await done.wait()
    assert [record.message for record in caplog.records if "dropped" in record.message] == [
        f"{peer.target}: note dropped: its handlers are too slow"
    ]


async def test_notifications_that_had_arrived_are_handled_before_the_end() -> None:
    seen: list[str] = []

    async def note(notification: Notification) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(notification.method)

    async def serve(connection: Connection) -> None:
        async with open_peer(connection, notifications={"note": note}) as peer:
            await peer.wait_finished()

    async with connected(serve) as (tx, rx):
        for _ in range(20):
            await tx.send(Notification("note"))
        await tx.aclose()
        assert [message async for message in rx] == []
    assert len(seen) == 20
