"""The endpoint as an ASGI application: by itself on hypercorn, mounted in Starlette, and what it does of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests.support.raw_http import calling, initialized, modern, modern_fields, notification, request, talking
from tests.support.recording_handler import Served
from trioxport import Limits, UsageError
from trioxport.interop.asgi import McpApplication
from trioxport.layers import Logging
from trioxport.transports.http.server import HttpServer, MemoryEvents
from trioxport.transports.http.server.disconnects import WATCH_AFTER_SECONDS

BOUND: Final = 15.0


@asynccontextmanager
async def on_hypercorn(app: Any) -> AsyncGenerator[str]:
    """The origin under which hypercorn's Trio worker serves an application."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 1
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
        [origin] = await nursery.start(serve)
        yield origin
        stop.set()


def application(served: Served, path: str = "/mcp", **options: Any) -> McpApplication:
    return McpApplication(served.handle, HttpServer(f"http://127.0.0.1:0{path}", **options), layers=[Logging()])


async def a_conversation(url: str, served: Served) -> None:
    """Both eras, in JSON and in streams; a client that leaves; a session that ends."""
    async with calling(url, modern("hello", 1)) as reply:
        assert (await reply.json())["id"] == 1
    async with calling(url, modern("notify", 2, count=2)) as reply:
        assert [(await reply.event()).get("method") for _ in range(3)] == ["note", "note", None]
    async with talking(url) as reply:
        await reply.send("POST", "/mcp", modern_fields(modern("wait")), modern("wait"))
        await served.until(lambda: len(served.received) == 3)
    await served.until(lambda: served.cancelled == ["wait"])
    client = await initialized(url)
    async with client.get() as standalone, client.post(request("notify", 5, count=1)) as reply:
        assert (await reply.event())["method"] == "note"
        assert (await reply.event())["id"] == 5
        async with client.post(request("announce", 6)):
            assert (await standalone.event())["method"] == "announced"
    assert await client.delete() == 204
    assert await client.tell(notification("note")) == 404


async def test_by_itself() -> None:
    served = Served()
    with trio.fail_after(BOUND):
        async with on_hypercorn(application(served)) as origin:
            await a_conversation(f"{origin}/mcp", served)


async def test_the_client_behind_a_trusted_proxy_is_the_peer() -> None:
    served = Served()
    with trio.fail_after(BOUND):
        async with (
            on_hypercorn(application(served, trusted_proxies=["127.0.0.1"])) as origin,
            calling(f"{origin}/mcp", modern("hello"), **{"X-Forwarded-For": "203.0.113.1"}) as reply,
        ):
            assert reply.status == 200
    assert served.infos[0].peer == "203.0.113.1"


@pytest.mark.parametrize("mount", ["/", "/outer"])
async def test_mounted(mount: str) -> None:
    served = Served()
    mcp = application(served)

    async def page(_: object) -> PlainTextResponse:
        return PlainTextResponse("a page")

    app = Starlette(routes=[Route("/page", page), Mount(mount, app=mcp)], lifespan=mcp.lifespan)
    with trio.fail_after(BOUND):
        async with on_hypercorn(app) as origin:
            url = f"{origin}{mount.rstrip('/')}/mcp"
            async with calling(url, modern("hello", 1)) as reply:
                assert (await reply.json())["id"] == 1
            client = await initialized(url)
            assert await client.tell(notification("note")) == 202
            async with talking(url) as reply:
                await reply.ask("GET", "/page")
                assert await reply.body() == b"a page"
        await served.until(lambda: served.over == 2)


async def test_a_server_that_is_slow_to_take_the_end_of_an_answer_ends_no_session() -> None:
    """Each response is followed by ``http.disconnect`` (ASGI, HTTP, Disconnect), be the client there or not."""
    served = Served()
    mcp = application(served)
    over = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await mcp(scope, receive, send)
            return
        more, answered = True, trio.Event()

        async def receive_to_the_end() -> Any:
            nonlocal more
            if more:
                part = await receive()
                more = part.get("more_body", False)
                return part
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send_slowly(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()
                await trio.sleep(4 * WATCH_AFTER_SECONDS)

        await mcp(scope, receive_to_the_end, send_slowly)
        over.set()

    with trio.fail_after(BOUND):
        async with on_hypercorn(slow) as origin:
            client = await initialized(f"{origin}/mcp")
            await over.wait()
            assert await client.tell(notification("note")) == 202
            assert await client.delete() == 204


async def test_an_application_beside_the_endpoint_gets_bodies_within_the_limit() -> None:
    async def beside(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.upper()})

    served = Served()
    mcp = McpApplication(
        served.handle, HttpServer("http://127.0.0.1:0/mcp", fallback=beside), limits=Limits(max_message_size=100)
    )
    with trio.fail_after(BOUND):
        async with on_hypercorn(mcp) as origin:
            async with talking(origin) as reply:
                await reply.ask("POST", "/other", body=b"abc")
                assert (reply.status, await reply.body()) == (200, b"ABC")
            async with talking(origin) as reply:
                await reply.ask("POST", "/other", body=b"a" * 101)
                assert reply.status == 413
            async with talking(origin) as reply:
                head = b"POST /other HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
                await reply.stream.send_all(head + b"65\r\n" + b"a" * 101 + b"\r\n0\r\n\r\n")
                assert (await reply.stream.receive_some()).startswith(b"HTTP/1.1 413 ")


async def test_sessions_end_in_order_with_the_lifespan() -> None:
    served = Served()
    with trio.fail_after(BOUND):
        async with on_hypercorn(application(served, events=MemoryEvents())) as origin:
            await initialized(f"{origin}/mcp")
        assert served.over == 1
        assert served.cancelled == []


async def nothing() -> Mapping[str, Any]:
    raise AssertionError("nobody asked for more")


async def dropped(_message: Mapping[str, Any]) -> None:
    pass


@pytest.mark.parametrize("broken", ["receive", "send"])
async def test_a_failure_of_the_surrounding_server_is_that_of_one_request(broken: str) -> None:
    """It is raised where that request is answered, though a task of the endpoint has met it."""
    served = Served()
    mcp = application(served, keep_alive=0.05)
    fault = LookupError("the surrounding server's own")
    asked = modern("wait")
    fields = [(name.encode(), value.encode()) for name, value in {**modern_fields(asked), "host": "127.0.0.1"}.items()]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": fields, "scheme": "http"}
    parts = [{"type": "http.request", "body": json.dumps(asked).encode()}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        if broken == "receive":
            raise fault
        return await trio.sleep_forever()

    async def send(_message: Mapping[str, Any]) -> None:
        if broken == "send":
            raise fault

    with trio.fail_after(BOUND):
        async with on_hypercorn(mcp) as origin:
            with pytest.raises(LookupError) as caught:
                await mcp(dict(scope), receive, send)
            assert caught.value is fault
            async with calling(f"{origin}/mcp", modern("hello")) as reply:
                assert reply.status == 200


SCOPE: Final = {"type": "http", "method": "GET", "path": "/mcp", "headers": [], "scheme": "http"}


async def test_outside_its_lifespan_it_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"lifespan\(\)"):
        await application(Served())(dict(SCOPE), nothing, dropped)  # type: ignore[arg-type]  # no scope, receive or send is asked for


async def test_it_runs_once_at_a_time() -> None:
    app = application(Served())
    async with app.lifespan():
        with pytest.raises(UsageError, match="running already"):
            async with app.lifespan():
                raise AssertionError("it ran twice")
    async with app.lifespan():
        with pytest.raises(UsageError, match="websocket"):
            await app({**SCOPE, "type": "websocket"}, nothing, dropped)  # type: ignore[arg-type]  # no scope, receive or send is asked for


async def test_a_lifespan_that_cannot_begin_is_told_to_the_server() -> None:
    app = application(Served())
    said: list[Any] = []

    async def startup() -> Any:
        return {"type": "lifespan.startup"}

    async def note(message: Any) -> None:
        said.append(message)

    async with app.lifespan():
        await app({"type": "lifespan"}, startup, note)
    assert said == [{"type": "lifespan.startup.failed", "message": "this application is running already"}]


async def test_the_configuration_is_checked_when_it_is_made() -> None:
    with pytest.raises(UsageError, match="hosts="):
        McpApplication(Served().handle, HttpServer("http://0.0.0.0:80/mcp"))
