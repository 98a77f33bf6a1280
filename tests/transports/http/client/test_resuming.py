"""Resumed streams of the legacy era: event ids, event stores, and clients that reconnect."""

from __future__ import annotations

from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http import LegacyClient, initialized, notification, request
from tests.support.recording_handler import Served, serving
from trioxport import Connection, Notification, Request, Response, open_transport
from trioxport.peer import open_peer
from trioxport.transports.http.server import Bounds, HttpServer, MemoryEvents, Sessions

BOUND: Final = 15.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"


def keeping(store: MemoryEvents | None = None, **options: Any) -> HttpServer:
    return HttpServer(ANYWHERE, events=store or MemoryEvents(), sessions=Sessions(**options))


async def test_a_stream_begins_with_an_id_and_a_pause() -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping(retry=2.5)) as served:
            client = await initialized(served.url)
            async with client.post(request("hello", 1)) as reply:
                first = await reply.raw_event()
                assert first is not None and first.data == b"" and first.id
                assert reply.retry == 2500
                assert (await reply.event())["id"] == 1
                assert reply.last_event_id not in ("", first.id)
                assert await reply.event() is None
            async with client.get() as reply:
                first = await reply.raw_event()
                assert first is not None and first.data == b"" and first.id
        async with serving(keeping()) as served:
            older = await initialized(served.url, "2025-06-18")
            async with older.post(request("hello", 1)) as reply:
                first = await reply.raw_event()
                assert first is not None and first.data and first.id


async def heard(client: LegacyClient, last_event_id: str, most: int = 1000) -> tuple[list[Any], str]:
    """The messages after an event until the stream ends, at most ``most``."""
    messages: list[Any] = []
    async with client.get(last_event_id=last_event_id) as reply:
        assert reply.status == 200, await reply.body()
        while len(messages) < most and (message := await reply.event()) is not None:
            messages.append(message)
        return messages, reply.last_event_id


def numbers(messages: list[Any]) -> list[int]:
    return [message["params"]["number"] for message in messages if "params" in message]


async def test_every_event_comes_once_and_in_order_however_often_the_client_dies() -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping()) as served:
            client = await initialized(served.url)
            async with client.post(request("notify", 1, count=40, wait=True)) as reply:
                messages = [await reply.event() for _ in range(5)]
                last = reply.last_event_id
            async with client.get() as standalone, client.post(request("announce", 2)) as other:
                assert (await other.event())["id"] == 2
                assert (await standalone.event())["method"] == "announced"
                more, last = await heard(client, last, 10)
                messages += more
                served.go.set()
                more, last = await heard(client, last)
                messages += more
            assert numbers(messages) == list(range(40))
            assert messages[-1] == {"jsonrpc": "2.0", "id": 1, "result": {"for": 1}}
            async with client.get(last_event_id=last) as reply:
                assert reply.status == 204


async def test_a_client_does_not_resume_a_request_that_it_cancelled() -> None:
    """The handler does not answer it, so its stream ends without that: clients take it for one that broke."""

    async def handle(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request) and message.method == "initialize":
                result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
                await connection.tx.send(Response(message.id, result))
            elif isinstance(message, Request):
                related = {"related_request": message.id}
                await connection.tx.send(Notification("begun", metadata=related))
                message.metadata["unanswered"]()

    with trio.fail_after(BOUND):
        async with serving(keeping(), handler=handle) as served:
            client = await initialized(served.url)
            async with client.post(request("wait", 1)) as reply:
                assert (await reply.event())["method"] == "begun"
                assert await reply.event() is None
                last = reply.last_event_id
            async with client.get(last_event_id=last) as reply:
                assert reply.status == 204


async def test_an_answer_given_while_nobody_listened_is_there_afterwards() -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping()) as served:
            client = await initialized(served.url)
            async with client.post(request("notify", 1, count=200)) as reply:
                first = await reply.raw_event()
                assert first is not None
            await wait_all_tasks_blocked(0.05)
            messages, _ = await heard(client, first.id)
            assert numbers(messages) == list(range(200))
            assert messages[-1]["id"] == 1


async def test_the_standalone_stream_goes_on_too() -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping()) as served:
            client = await initialized(served.url)

            async def announce(number: int) -> None:
                async with client.post(request("announce", number, number=number)) as reply:
                    assert (await reply.event())["id"] == number

            async with client.get() as reply:
                await announce(0)
                assert (await reply.event())["params"]["number"] == 0
                last = reply.last_event_id
            await announce(1)
            async with client.get(last_event_id=last) as reply:
                assert (await reply.event())["params"]["number"] == 1
                await announce(2)
                assert (await reply.event())["params"]["number"] == 2
            async with client.get() as reply:
                await announce(3)
                assert (await reply.event())["params"]["number"] == 3


async def test_nobody_gets_the_events_of_another_session() -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping()) as served:
            one, other = await initialized(served.url), await initialized(served.url)
            async with one.post(request("notify", 1, count=3)) as reply, other.post(request("notify", 1, count=3)):
                assert await reply.event()
                stolen = reply.last_event_id
            async with other.get(last_event_id=stolen) as reply:
                assert reply.status == 400
                assert "note" not in str(await reply.json())


@pytest.mark.parametrize("event_id", ["x", "", "a.b.c", "..", "{tag}.1.-1", "{tag}.1.99", "{tag}.99.0", "{tag}.1.1e3"])
async def test_an_event_id_that_was_never_given_is_refused(event_id: str) -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping()) as served:
            client = await initialized(served.url)
            async with client.post(request("notify", 1, count=3)) as reply:
                assert await reply.event()
                event_id = event_id.format(tag=reply.last_event_id.partition(".")[0])
            async with client.get(last_event_id=event_id) as reply:
                assert reply.status == 400


async def test_what_is_kept_is_bounded_in_size_and_in_age(jumping_clock: trio.abc.Clock) -> None:
    store = MemoryEvents(max_size=10_000, max_age=60)
    async with serving(keeping(store)) as served:
        client = await initialized(served.url)
        async with client.post(request("notify", 1, count=3)) as reply:
            first = await reply.raw_event()
            assert first is not None
        async with client.post(request("notify", 2, count=200)) as reply:
            while await reply.event() is not None:
                pass
        assert 0 < store.size <= 10_000
        async with client.get(last_event_id=first.id) as reply:
            assert reply.status == 400
        await trio.sleep(61)
        async with client.post(request("hello", 3)) as reply:
            assert (await reply.event())["id"] == 3
        assert store.size < 1000
        assert await client.delete() == 204
        await served.until(lambda: served.over)
        await wait_all_tasks_blocked(0.01)
        assert store.size == 0


async def test_a_store_tells_a_gap_from_an_end(jumping_clock: trio.abc.Clock) -> None:
    store = MemoryEvents(max_size=3 * (MemoryEvents.OVERHEAD_BYTES + 10), max_age=60)
    for number in range(1, 6):
        await store.append("session", "stream", number, b"%010d" % number)
    assert await store.after("session", "stream", 1) is None
    assert [number for number, _ in await store.after("session", "stream", 2) or ()] == [3, 4, 5]
    assert await store.after("session", "stream", 5) == []
    assert await store.after("session", "stream", 6) is None
    assert await store.after("other", "stream", 2) is None
    await trio.sleep(61)
    assert await store.after("session", "stream", 4) is None
    assert store.size == 0


async def test_a_client_may_be_let_go_and_comes_back(jumping_clock: trio.abc.Clock) -> None:
    async with serving(keeping(hold=20, retry=3)) as served:
        client = await initialized(served.url)
        began = trio.current_time()
        async with client.post(request("notify", 1, count=2, wait=True)) as reply:
            assert [(await reply.event())["params"]["number"] for _ in range(2)] == [0, 1]
            assert await reply.event() is None
            assert trio.current_time() - began == pytest.approx(20, abs=2)
            assert reply.retry == 3000
            last = reply.last_event_id
        served.go.set()
        messages, _ = await heard(client, last)
        assert [message["id"] for message in messages] == [1]


async def test_a_slow_reader_does_not_hold_up_what_can_be_kept(jumping_clock: trio.abc.Clock) -> None:
    """After a while without reading it is disconnected, and gets the rest when it reconnects."""
    async with serving(keeping(MemoryEvents(max_age=3600), stall=5)) as served:
        client = await initialized(served.url)
        async with client.post(request("notify", 1, count=9000, ballast="x" * 500)) as slow:
            await served.until(lambda: len(served.received) == 3)
            await trio.sleep(100)
            first = await slow.raw_event()
            assert first is not None
        messages: list[Any] = []
        last = first.id
        while not messages or "id" not in messages[-1]:
            more, last = await heard(client, last)
            messages += more
        assert numbers(messages) == list(range(9000))


async def test_what_a_dead_connection_takes_with_it_comes_once_to_whoever_comes_back(
    jumping_clock: trio.abc.Clock,
) -> None:
    """The old connection is found dead only after the new one has got everything from the store."""
    config = HttpServer(ANYWHERE, events=MemoryEvents(max_size=2**26), bounds=Bounds(write_timeout=20))
    async with serving(config) as served:
        client = await initialized(served.url)
        async with client.post(request("notify", 1, count=2000, wait=True, ballast="x" * 10_000)) as dead:
            first = await dead.raw_event()
            assert first is not None
            await trio.sleep(5)  # so that what it does not read fills every buffer
            async with client.get(last_event_id=first.id) as reply:
                messages = [await reply.event() for _ in range(2000)]
                await trio.sleep(30)
                served.go.set()
                assert (await reply.event())["id"] == 1
            assert numbers(messages) == list(range(2000))


async def test_what_nobody_reads_is_undelivered_in_the_end(jumping_clock: trio.abc.Clock) -> None:
    """Without a store, a message that finds no room is not sent, and its sender gets an error."""
    async with serving(HttpServer(ANYWHERE, sessions=Sessions(stall=5))) as served:
        client = await initialized(served.url)
        began = trio.current_time()
        for number in range(64):
            async with client.post(request("announce", number)) as reply:
                assert reply.status == 200
        async with client.post(request("announce", 64)) as reply:
            assert (await reply.json())["error"]["code"] == -32603
        assert trio.current_time() - began == pytest.approx(5, abs=2)


async def test_our_own_client_resumes(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping(hold=0.2, retry=0.01)) as served, open_transport(served.url) as connection:
            async with open_peer(connection) as peer:
                await peer.negotiate(client_info={"name": "test", "version": "1"}, era="legacy")
                seen: list[float] = []
                await peer.request("progress", {}, on_progress=lambda step, *_: seen.append(step))
                assert seen == [1]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(let_go_later, served)
                    assert await peer.request("wait") == {}
            assert connection.statistics().discarded == {}


async def let_go_later(served: Served) -> None:
    await served.until(lambda: any(getattr(message, "method", "") == "wait" for message in served.received))
    await trio.sleep(0.5)
    served.go.set()


async def test_notifications_alone_open_no_stream() -> None:
    with trio.fail_after(BOUND):
        async with serving(keeping()) as served:
            client = await initialized(served.url)
            assert await client.tell(notification("note")) == 202
