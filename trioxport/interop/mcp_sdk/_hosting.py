"""Hosting of servers of the SDK and of FastMCP: their own authentication and custom routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable
from urllib.parse import urlsplit

import attrs
from mcp.server import MCPServer, Server
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
from mcp.server.auth.routes import create_auth_routes
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from trioxport._diagnostics import logger
from trioxport.auth import VerifiedToken
from trioxport.errors import PermissionDenied, UsageError
from trioxport.interop.mcp_sdk._tokens import verified_token
from trioxport.targets import Target, describe, to_listener
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, ProtectedResource
from trioxport.transports.memory import Memory
from trioxport.transports.stdio import StdioServer

Routes: TypeAlias = Callable[[str], Sequence[BaseRoute]]
"""The routes beside an endpoint at the given path."""

TRUSTED_LISTENERS: Final = (StdioServer, Memory)
"""Listeners whose clients are the program itself, or the program that started it. Specification 2026-07-28,
basic/authorization: authorization is for HTTP, and implementations on stdio should not use it."""


@runtime_checkable
class FastMCPServer(Protocol):
    """A server of the package ``fastmcp``, as far as it is used here."""

    auth: Any

    @property
    def _mcp_server(self) -> Server[Any]: ...
    def _get_additional_http_routes(self) -> list[BaseRoute]: ...


AnyServer: TypeAlias = Server[Any] | MCPServer | FastMCPServer


def is_sdk_server(found: object) -> bool:
    """Whether :func:`serve_sdk` can serve an object: a server of the SDK, or of the package ``fastmcp``."""
    return not isinstance(found, type) and isinstance(found, MCPServer | Server | FastMCPServer)


@attrs.frozen
class Hosting:
    """A server, with the authentication and the routes that its target has to provide.

    Args:
        server: The low-level server.
        protected: The token check of the server, for an endpoint at a path; None if it has none.
        routes: The server's other routes.
    """

    server: Server[Any]
    protected: Callable[[str], ProtectedResource] | None = None
    backend: BearerAuthBackend | None = None
    routes: Routes = lambda path: ()

    @classmethod
    def of(cls, server: AnyServer) -> Hosting:
        """The hosting of ``server``. Raises ``TypeError`` for any other object."""
        match server:
            case MCPServer():
                return _of_mcp_server(server)
            case Server():
                return cls(server)
            case FastMCPServer():
                return _of_fastmcp(server)
        raise TypeError(f"{server!r} is no server: pass an MCPServer, a Server of the SDK, or a FastMCP server")

    def on(self, target: Target) -> Target:
        """``target``, with the server's authentication and routes. Raises ``UsageError`` if it cannot have them."""
        listener = to_listener(target)
        if isinstance(listener, Http):
            listener = listener.server()
        if isinstance(listener, HttpServer):
            return self.on_http(listener)
        if self.protected is not None and not isinstance(listener, TRUSTED_LISTENERS):
            raise UsageError(
                "the server checks bearer tokens, and this target has no place for them",
                target=describe(target),
                hint="Serve it over https:// or http://, with WebSockets by HttpServer(..., websocket=True); or take "
                "auth and token_verifier from the server, and protect the channel by other means",
            )
        if self.routes(""):
            logger.info("%s: the server's further HTTP routes cannot be reached here", describe(target))
        return target

    def on_http(self, config: HttpServer) -> HttpServer:
        """``config``, with the server's authentication and routes. Raises ``UsageError`` if both configure them."""
        path = urlsplit(config.http_url).path or "/"
        changes: dict[str, Any] = {}
        if self.protected is not None:
            if config.verify is not None:
                raise UsageError(
                    "both the server and HttpServer check bearer tokens",
                    target=str(config),
                    hint="Keep one: auth of the server, or verify= of HttpServer (--token-file of a command)",
                )
            changes["verify"] = self.protected(path)
        if routes := self.routes(path):
            if config.fallback is not None:
                raise UsageError(
                    "both the server and HttpServer answer further paths",
                    target=str(config),
                    hint="Keep one: fallback= of HttpServer, or the server's own routes",
                )
            changes["fallback"] = Starlette(routes=routes, middleware=self._middleware())
        return attrs.evolve(config, **changes)

    def _middleware(self) -> list[Middleware]:
        if self.backend is None:
            return []
        return [Middleware(AuthenticationMiddleware, backend=self.backend), Middleware(AuthContextMiddleware)]


def _of_mcp_server(server: MCPServer) -> Hosting:
    lowlevel = server._lowlevel_server  # pyright: ignore[reportPrivateUsage] # no public name
    verifier = server._token_verifier  # pyright: ignore[reportPrivateUsage] # no public name
    provider = server._auth_server_provider  # pyright: ignore[reportPrivateUsage] # no public name
    routes: list[BaseRoute] = list(server._custom_starlette_routes)  # pyright: ignore[reportPrivateUsage] # likewise
    auth = server.settings.auth
    if auth is None or verifier is None:
        return Hosting(lowlevel, routes=lambda path: routes)
    if provider is not None:
        routes[:0] = create_auth_routes(
            provider=provider,
            issuer_url=auth.issuer_url,
            service_documentation_url=auth.service_documentation_url,
            client_registration_options=auth.client_registration_options,
            revocation_options=auth.revocation_options,
            identity_assertion_enabled=auth.identity_assertion_enabled,
        )
    audience = auth.resource_server_url if auth.validate_token_resource else None
    backend = BearerAuthBackend(verifier, resource_server_url=audience)
    resource = None if auth.resource_server_url is None else str(auth.resource_server_url)
    protected = _protected(backend, [str(auth.issuer_url)], auth.required_scopes or (), resource)
    return Hosting(lowlevel, lambda path: protected, backend, lambda path: routes)


def _of_fastmcp(server: FastMCPServer) -> Hosting:
    lowlevel = server._mcp_server  # pyright: ignore[reportPrivateUsage] # no public name
    custom_routes = server._get_additional_http_routes  # pyright: ignore[reportPrivateUsage] # likewise
    auth = server.auth
    if auth is None:
        return Hosting(lowlevel, routes=lambda path: custom_routes())
    backend = BearerAuthBackend(auth)

    def protected(path: str) -> ProtectedResource:
        resource = auth._get_resource_url(path)
        return _protected(
            backend, _issuers(auth), auth.required_scopes or (), None if resource is None else str(resource)
        )

    def routes(path: str) -> Sequence[BaseRoute]:
        return [*auth.get_routes(mcp_path=path), *custom_routes()]

    return Hosting(lowlevel, protected, backend, routes)


def _issuers(auth: Any) -> list[str]:
    """The authorization servers that a provider of FastMCP names."""
    named = getattr(auth, "authorization_servers", None) or [getattr(auth, "issuer_url", None)]
    return [str(url) for url in named if url is not None]


def _protected(
    backend: BearerAuthBackend, issuers: Sequence[str], required: Iterable[str], resource: str | None
) -> ProtectedResource:
    scopes = tuple(required)

    async def verify(token: str) -> VerifiedToken | None:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        found = await backend.authenticate(HTTPConnection({"type": "http", "headers": headers}))
        if found is None:
            return None
        credentials, user = found
        missing = [scope for scope in scopes if scope not in credentials.scopes]
        if missing:
            raise PermissionDenied(f"the token lacks the scopes {' '.join(missing)}")
        return verified_token(user.access_token)

    return ProtectedResource(verify, authorization_servers=issuers, scopes=scopes, resource=resource)
