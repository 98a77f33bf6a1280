"""An MCP endpoint as an ASGI application, to run or to mount in one that runs on Trio.

::

    mcp = McpApplication(handler, HttpServer("https://mcp.example.com/mcp"))
    app = Starlette(routes=[Mount("/", app=mcp)], lifespan=mcp.lifespan)

A program that serves nothing else gives ``mcp`` itself to its server, for instance ``hypercorn -k trio module:mcp``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

from trioxport._core.nursery import open_bare_nursery, require_trio, sole_exception
from trioxport._diagnostics.refusal_log import RefusalLog
from trioxport._diagnostics.validators import instance_of, kind_of
from trioxport.abc import CLOSE_TIMEOUT, CONNECT_TIMEOUT, ConnectionSettings, Layer
from trioxport.codecs.json import JSON
from trioxport.connection import Connection
from trioxport.errors import UsageError
from trioxport.frames import Limits
from trioxport.opening import DEFAULT_LIMITS, HandlerAcceptor, event_counter, refusal_counter
from trioxport.transports.http.server import HttpServer
from trioxport.transports.http.server.application import Endpoint
from trioxport.transports.http.server.asgi import AsgiRequest
from trioxport.transports.http.server.request import Receive, Scope, Send

__all__ = ["McpApplication"]

_CONFIG: Final = instance_of(HttpServer, "an HttpServer(...)")


class McpApplication:
    """An ASGI application that runs ``handler`` for each connection: each legacy session, each modern request.

    The connections live in the application's lifespan. The outermost application gets lifespan events from its server;
    a mounted one does not: the surrounding application has to enter :meth:`lifespan` in its own. Leaving the lifespan
    ends the sessions in order, within ``close_timeout``.

    Args:
        handler: As for :func:`trioxport.serve_transport`, and so are the others.
        config: The URL and the options of the endpoint; ``tls`` and ``bounds`` are the responsibility of
            the server that runs the application, and ``drain`` begins when the lifespan is left.
        layers: The layers of the connections.
        limits: Limits for both directions.
        close_timeout: Seconds that connections get to end.
        within: Makes a context manager that is entered around all connections, for the time of the lifespan.

    Raises:
        TypeError: ``handler`` is no function.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[object]],
        config: HttpServer,
        *,
        layers: Sequence[Layer] = (),
        limits: Limits = DEFAULT_LIMITS,
        close_timeout: float = CLOSE_TIMEOUT,
        within: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        _CONFIG.option("config", config)
        if not callable(handler):
            raise TypeError(
                f"handler has to be an async function, and is {kind_of(handler)}: a server of the official SDK or of "
                "FastMCP becomes an application by trioxport.interop.mcp_sdk.sdk_application(server, config)"
            )
        refusals = RefusalLog(str(config), refusal_counter(layers))
        settings = ConnectionSettings(
            "server", str(config), JSON, limits, CONNECT_TIMEOUT, close_timeout, True, refusals, event_counter(layers)
        )
        self._endpoint = Endpoint(config, settings)
        self._acceptor = HandlerAcceptor(handler, settings, layers)
        self._within = within
        self._running = False

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Serve for the time of a block. It takes the surrounding application as argument, for frameworks that pass it.

        Raises ``UsageError`` if it is running already.
        """
        require_trio("McpApplication")
        if self._running:
            raise UsageError("this application is running already")
        self._running = True
        try:
            async with self._within(), open_bare_nursery() as tasks:
                await tasks.start(self._endpoint.run, self._acceptor)
                yield
                tasks.cancel_scope.cancel()
        finally:
            self._running = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application. Raises ``UsageError`` for a request outside its lifespan, or under asyncio."""
        if scope["type"] == "lifespan":
            await self._follow_lifespan(receive, send)
        elif scope["type"] != "http":
            raise UsageError(f"this application answers HTTP, not {scope['type']!r}")
        elif not self._running:
            require_trio("McpApplication")
            raise UsageError(
                "the application got a request before its lifespan began",
                hint="Mounted in another application, its lifespan() has to be entered in that one's lifespan",
            )
        else:
            request = AsgiRequest(scope, receive, send)
            with request.scope:
                await self._endpoint.answer(request)

    async def _follow_lifespan(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        answer: dict[str, Any] = {"type": "lifespan.startup.failed"}
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                answer = {"type": "lifespan.shutdown.failed"}
                await receive()
        except Exception as error:
            await send({**answer, "message": str(sole_exception(error))})
        else:
            await send({"type": "lifespan.shutdown.complete"})
