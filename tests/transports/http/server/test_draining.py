"""An HTTP server that is being stopped: what it tells load balancers, what it finishes, and what it refuses."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    Conversation,
    asking,
    calling,
    initialized,
    modern,
    modern_fields,
    notification,
    request,
    talking,
)
from tests.support.recording_handler import Ending, Served, serving
from trioxport import ConnectError, Connection, HTTPStatusError, Request, Response, open_transport
from trioxport.interop.asgi import McpApplication
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.transports.http.server import HttpServer, MemoryEvents
from trioxport.transports.websocket import WebSocket

BOUND: Final = 20.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
PROBES: Final = {"health": "/livez", "ready": "/readyz"}


async def answer_until_the_end(connection: Connection) -> None:
    """Work as the official SDK does: at the end of a session's ``rx`` it cancels the calls that go on."""
    async with trio.open_nursery() as nursery:
        async for message in connection.rx:
            if isinstance(message, Request):
                nursery.start_soon(_answer, connection, message)
        if connection.info.era == "legacy":
            nursery.cancel_scope.cancel()


async def _answer(connection: Connection, asked: Request) -> None:
    if asked.method == "slow":
        await trio.sleep(3)
    await connection.tx.send(Response(asked.id, {"protocolVersion": "2025-11-25", "for": asked.id}))


async def status_of(url: str, path: str, **fields: str) -> int:
    async with asking(url, "GET", fields, path=path) as reply:
        return reply.status


@pytest.mark.parametrize("handler", [answer_until_the_end, None], ids=["cancels at the end", "goes on"])
async def test_running_calls_of_both_eras_are_answered(handler: Any, jumping_clock: trio.abc.Clock) -> None:
    served = Served()
    answers: dict[object, Any] = {}

    async def keep(name: str, reply: Conversation) -> None:
        await reply.head()
        answers[name] = (reply.status, (await reply.json())["result"])

    async with trio.open_nursery() as nursery:
        server = Ending(nursery)
        await server.start(handler or served.handle, close_timeout=5)
        client = await initialized(server.url)
        async with talking(server.url) as first, talking(server.url) as second, trio.open_nursery() as calls:
            method = "slow" if handler else "wait"
            await first.send("POST", "/mcp", client.fields, request(method, 7))
            await second.send("POST", "/mcp", modern_fields(modern(method, 8)), modern(method, 8))
            await wait_all_tasks_blocked(0.05)
            began = trio.current_time()
            server.end()
            calls.start_soon(keep, "legacy", first)
            calls.start_soon(keep, "modern", second)
            await trio.sleep(3)
            served.go.set()
        await server.over.wait()
        assert trio.current_time() - began < 4
    assert {name: status for name, (status, _) in answers.items()} == {"legacy": 200, "modern": 200}


async def test_while_it_drains_it_says_so_and_refuses_new_requests_only(jumping_clock: trio.abc.Clock) -> None:
    served = Served()
    config = HttpServer(ANYWHERE, **PROBES, drain=100)  # type: ignore[arg-type]  # strings where strings are due
    opening = request("initialize", **INITIALIZE)
    async with trio.open_nursery() as nursery:
        server = Ending(nursery)
        await server.start(served.handle, config)
        assert [await status_of(server.url, path) for path in ("/livez", "/readyz")] == [200, 200]
        client = await initialized(server.url)
        async with client.post(request("ask", 3)) as asking_back, talking(server.url) as kept:
            assert (await asking_back.event())["id"] == "server-3"
            await kept.ask("GET", "/livez")
            assert (await kept.body(), "connection" in kept.headers) == (b'{"status":"ok"}', False)
            server.end()
            await trio.sleep(50)
            async with asking(server.url, "GET", path="/readyz") as probe:
                assert (probe.status, await probe.body()) == (503, b'{"status":"draining"}')
            async with asking(server.url, "GET", path="/livez") as probe:
                assert (probe.status, probe.headers["connection"]) == (200, "close")
            refused = [
                (modern_fields(modern("hello")), modern("hello")),
                (JSON_OR_EVENTS, opening),
                (client.fields, request("hello", 4)),
            ]
            for fields, message in refused:
                async with asking(server.url, "POST", fields, message) as reply:
                    assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (
                        503,
                        "1",
                        "close",
                    )
                    assert (await reply.json())["error"]["code"] == -32603
            assert await client.tell({"jsonrpc": "2.0", "id": "server-3", "result": {"roots": []}}) == 202
            await served.until(lambda: Response("server-3", {"roots": []}) in served.received)
            served.go.set()
            assert (await asking_back.event())["id"] == 3
            await kept.ask("GET", "/livez")
            assert (await kept.body(), kept.headers["connection"]) == (b'{"status":"ok"}', "close")
            assert await kept.at_end()
        await trio.sleep(40)
        assert await status_of(server.url, "/livez") == 200
        await server.over.wait()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
    assert served.cancelled == []


async def test_a_request_that_was_on_its_way_has_its_time(jumping_clock: trio.abc.Clock) -> None:
    """It has to arrive at once; its answer may take as long as that of a request before it."""

    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        await trio.sleep(2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a page"})

    async with trio.open_nursery() as nursery:
        server = Ending(nursery)
        await server.start(Served().handle, HttpServer(ANYWHERE, fallback=page, health="/livez"))
        async with talking(server.url) as kept:
            await kept.ask("GET", "/livez")
            assert await kept.body()
            server.end()
            await wait_all_tasks_blocked()
            await kept.ask("GET", "/page")
            assert (kept.status, await kept.body()) == (200, b"a page")
        await server.over.wait()


async def test_a_batch_with_a_request_is_refused_too() -> None:
    served = Served()
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(served.handle, HttpServer(ANYWHERE, drain=0.5))
            client = await initialized(server.url, "2025-03-26")
            del client.fields["mcp-protocol-version"]
            server.end()
            await wait_all_tasks_blocked(0.05)
            for batch, status in (([request("hello"), notification("note")], 503), ([notification("note")], 202)):
                async with client.post(batch) as reply:
                    assert reply.status == status


async def test_http_sse_drains_likewise() -> None:
    served = Served()
    stream = {"accept": "text/event-stream"}
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(served.handle, HttpServer(ANYWHERE, sse="/sse", drain=0.5))
            async with asking(server.url, "GET", stream, path="/sse") as events:
                endpoint = await events.raw_event()
                assert endpoint is not None
                post = partial(asking, server.url, "POST", JSON_OR_EVENTS, path=endpoint.data.decode())
                async with post(body=request("wait", 1)) as reply:
                    assert reply.status == 202
                await served.until(lambda: served.received)
                server.end()
                await wait_all_tasks_blocked(0.05)
                async with post(body=request("hello", 2)) as reply:
                    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                async with post(body=notification("note")) as reply:
                    assert reply.status == 202
                async with asking(server.url, "GET", stream, path="/sse") as reply:
                    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                await trio.sleep(0.6)
                served.go.set()
                assert (await events.event())["id"] == 1
                assert await events.event() is None
            await server.over.wait()
    assert served.cancelled == []


async def test_an_answer_can_be_fetched_by_a_client_that_comes_back_while_the_server_drains() -> None:
    served = Served()
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(served.handle, HttpServer(ANYWHERE, events=MemoryEvents(), drain=0.5))
            client = await initialized(server.url)
            async with client.post(request("notify", 5, count=1, wait=True)) as reply:
                assert (await reply.event())["method"] == "note"
                event_id = reply.last_event_id
            server.end()
            await wait_all_tasks_blocked(0.05)
            async with client.get(last_event_id=event_id) as reply:
                served.go.set()
                assert (await reply.event())["id"] == 5
            await server.over.wait()


async def test_new_websockets_are_refused_and_open_ones_go_on() -> None:
    async def echo(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await connection.tx.send(Response(message.id, None))

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(echo, HttpServer(ANYWHERE, websocket=True, drain=0.5))
            target = WebSocket(server.url.replace("http", "ws"))
            async with open_transport(target) as (tx, rx):
                await tx.send(Request(1, "hello"))
                assert await rx.receive() == Response(1, None)
                server.end()
                await wait_all_tasks_blocked(0.05)
                with pytest.raises((HTTPStatusError, ConnectError), match="503"):
                    async with open_transport(target):
                        raise AssertionError("it was opened")
                await tx.send(Request(2, "hello"))
                assert await rx.receive() == Response(2, None)
            await server.over.wait()


async def test_a_session_whose_requests_were_cancelled_holds_up_no_end(jumping_clock: trio.abc.Clock) -> None:
    served = Served()
    async with trio.open_nursery() as nursery:
        server = Ending(nursery)
        await server.start(served.handle, HttpServer(ANYWHERE, drain=10), close_timeout=1000)
        client = await initialized(server.url)
        async with talking(server.url) as reply:
            await reply.send("POST", "/mcp", client.fields, request("silent", 1))
            await served.until(lambda: len(served.received) == 3)
            server.end()
            assert await client.tell(notification("notifications/cancelled", requestId=1)) == 202
            began = trio.current_time()
            await server.over.wait()
        assert trio.current_time() - began == pytest.approx(10, abs=2)


async def test_a_call_of_a_server_of_the_official_sdk_is_answered() -> None:
    from mcp.server.mcpserver import MCPServer

    server, calling, go, over = MCPServer("slow"), trio.Event(), trio.Event(), trio.Event()

    @server.tool()
    async def wait() -> str:
        calling.set()
        await go.wait()
        return "waited"

    async def serve(scope: trio.CancelScope, task_status: trio.TaskStatus[list[str]]) -> None:
        with scope:
            await serve_sdk(server, ANYWHERE, task_status=task_status)
        over.set()

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            [url] = await nursery.start(serve, scope)
            client = await initialized(url)
            async with talking(url) as reply:
                call = request("tools/call", 1, name="wait", arguments={})
                await reply.send("POST", "/mcp", client.fields, call)
                await calling.wait()
                scope.cancel()
                await wait_all_tasks_blocked(0.05)
                go.set()
                await reply.head()
                answer = await (reply.json() if "json" in reply.headers["content-type"] else reply.event())
                assert answer["result"]["content"][0]["text"] == "waited"
            await over.wait()


async def test_probes_ask_by_any_name_and_need_no_token() -> None:
    """The probes of Kubernetes ask for the address of the pod."""
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, health="/livez", ready="/readyz")) as served:
            for path in PROBES.values():
                assert await status_of(served.url, path, host="10.1.2.3:8000") == 200
            assert await status_of(served.url, "/mcp", host="10.1.2.3:8000") == 421


async def test_an_application_that_is_started_again_answers_again() -> None:
    served = Served()
    app = McpApplication(served.handle, HttpServer(ANYWHERE, ready="/readyz"))
    statuses: list[int] = []

    async def probe() -> None:
        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def nothing() -> Any:
            raise AssertionError("the probe has no body")

        scope = {"type": "http", "method": "GET", "path": "/readyz", "headers": [], "scheme": "http"}
        await app(scope, nothing, note)

    for _ in range(2):
        async with app.lifespan():
            await probe()
    assert statuses == [200, 200]


# A rolling restart.


class Balancer:
    """A load balancer of the simplest kind: it asks where the last probe was fine, and elsewhere after a 503.

    Attributes:
        urls: The servers.
        ready: Those whose readiness page said so last.
        retried: How many requests were refused by one server and answered by another.
    """

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.ready: list[str] = []
        self.retried = 0

    async def probe(self) -> None:
        while True:
            found = []
            for url in list(self.urls):
                try:
                    if await status_of(url, "/readyz") == 200:
                        found.append(url)
                except OSError:
                    continue
            self.ready = found
            await trio.sleep(0.02)

    async def ask(self, number: int) -> None:
        """Ask until a server takes the request; each but a 503 with ``Retry-After`` has to be the answer."""
        for attempt in itertools.count():
            url = self.ready[(number + attempt) % len(self.ready)]
            async with calling(url, modern("tools/list", number)) as reply:
                if reply.status != 503:
                    assert (await reply.json())["id"] == number
                    return
                assert reply.headers["retry-after"] == "1"
                self.retried += 1


@pytest.fixture
def virtual_clock() -> MockClock:
    """A clock that stands still while messages are on their way, so that a busy machine outlasts no drain."""
    return MockClock(autojump_threshold=0.005)


@pytest.mark.deadline(60)
async def test_a_rolling_restart_of_two_servers_under_load_fails_no_request(virtual_clock: trio.abc.Clock) -> None:
    balancer = Balancer()
    answered = itertools.count()
    stop = trio.Event()

    async def slow(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await trio.sleep(0.01)
                await connection.tx.send(Response(message.id, {}))

    async def load(first: int) -> None:
        number = first
        while not stop.is_set():
            await balancer.ask(number)
            next(answered)
            number += 100

    with trio.fail_after(50):
        async with trio.open_nursery() as nursery, trio.open_nursery() as probing:
            servers = [Ending(nursery) for _ in range(2)]
            config = HttpServer(ANYWHERE, ready="/readyz", drain=0.3)
            for server in servers:
                await server.start(slow, config, close_timeout=5)
                balancer.urls.append(server.url)
                balancer.ready.append(server.url)
            probing.start_soon(balancer.probe)
            async with trio.open_nursery() as clients:
                for number in range(8):
                    clients.start_soon(load, number)
                for _ in range(2):
                    await trio.sleep(0.2)
                    old, successor = servers.pop(0), Ending(nursery)
                    await successor.start(slow, config, close_timeout=5)
                    servers.append(successor)
                    balancer.urls.append(successor.url)
                    old.end()
                    await old.over.wait()
                    balancer.urls.remove(old.url)
                await trio.sleep(0.1)
                stop.set()
            probing.cancel_scope.cancel()
            for server in servers:
                server.end()
    assert next(answered) > 50
