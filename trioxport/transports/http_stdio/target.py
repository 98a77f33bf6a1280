"""The client's side: a command to run as a server of HTTP/2 on its standard streams."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import ClassVar

import attrs

from trioxport._diagnostics.hints import install_hint
from trioxport._diagnostics.validators import COUNT, TEXT
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports.http.client.options import HttpOptions, check_codec
from trioxport.transports.http.unix_endpoint import AUTHORITY
from trioxport.transports.stdio.command import CommandOptions


def _http_options(options: HttpStdio) -> HttpOptions:
    if not options.endpoint.startswith("/") or "#" in options.endpoint:
        raise UsageError(f"endpoint is {options.endpoint!r}, and a path begins with a slash", target=str(options))
    return HttpOptions(
        f"http://{AUTHORITY}{options.endpoint}",
        headers=options.headers,
        binding="streamable",
        idle_timeout=math.inf,
        total_timeout=math.inf,
        pool_timeout=math.inf,
        max_concurrency=options.max_concurrency,
    )


@attrs.frozen
class HttpStdio(CommandOptions):
    """A command to run as a server of Streamable HTTP, which speaks HTTP/2 on its standard input and output.

    Experimental: no revision of the specification defines it yet. It needs ``trioxport[http2]``.

    Args:
        command: The program. It, ``args``, ``env``, ``cwd``, ``stderr`` and the life of the child are as for
            :class:`~trioxport.transports.stdio.Stdio`.
        args: Its arguments.
        env: Variables for the child, besides the few that it inherits.
        cwd: Its working directory.
        stderr: The destination of its standard error.
        endpoint: The path of the endpoint.
        headers: Headers of every request; they never appear in errors or logs.
        max_concurrency: Requests in flight at the same time; more wait. Subscriptions do not count.

    Entering waits for the server's first frame. Requests have no timeout of their own, as over ``stdio:``. The end of
    the child, or of its output, is the end of the connection.

    Raises:
        UsageError: For options that cannot work.
    """

    client_begins: ClassVar[bool] = True

    endpoint: str = attrs.field(default="/mcp", validator=TEXT, kw_only=True)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, repr=False, kw_only=True)
    max_concurrency: int = attrs.field(default=100, validator=COUNT, kw_only=True)
    http: HttpOptions = attrs.field(
        init=False, default=attrs.Factory(_http_options, takes_self=True), repr=False, eq=False
    )

    def __str__(self) -> str:
        return f"http+stdio:{self.shown}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        if find_spec("h2") is None:
            raise UsageError("HTTP/2 is not installed", target=scope.settings.target, hint=install_hint("http2"))
        from trioxport.transports.http_stdio.client import open_requests

        check_codec(scope)
        async with (
            self.run(scope) as child,
            open_requests(child, scope) as requests,
            requests.channels(self.http, child.peer) as channels,
        ):
            yield channels
            child.terminate_after(scope.settings.close_timeout / 2)
