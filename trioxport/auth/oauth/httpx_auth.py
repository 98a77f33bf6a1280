"""Authorization by OAuth as an ``Auth`` of ``httpx``, or of a library with the same interface, such as ``httpx2``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from trioxport.auth.addresses import origin_of
from trioxport.auth.oauth.session import RequestAttempt


def flow_for(library: Any, server: str, attempt: Callable[[str, str], RequestAttempt]) -> Any:
    """An ``Auth`` of ``library`` that authorizes requests to the origin of ``server``.

    Args:
        library: The module of the library.
        server: The URL of the MCP server.
        attempt: Begins the authorization of one request, given the server and the operation.
    """

    class OAuthFlow(library.Auth):  # type: ignore[misc]  # the library is known at run time only
        """The flow of each request: its token, and its repetition after 401 and 403."""

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            url = str(request.url)
            if origin_of(url) != origin_of(server) or "authorization" in request.headers:
                yield request
                return
            current = attempt(server, operation_of(request.headers))
            while True:
                request.headers.update(await current.fields(request.method, url))
                response = yield request
                if not await current.answered(response.status_code, url, response.headers):
                    return

        def __repr__(self) -> str:
            return f"OAuthFlow({server!r})"

    return OAuthFlow()


def operation_of(headers: Any) -> str:
    """The operation of a request, by the headers that name it (2026-07-28, streamable HTTP)."""
    method, name = headers.get("mcp-method", ""), headers.get("mcp-name")
    return str(method if name is None else f"{method} {name}")
