"""OAuth for commands: their options, the login that they share, and the challenge of a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, Final

import attrs
import click
import httpx

from trioxport import InteractionRequired, __version__
from trioxport.auth import TLSOptions
from trioxport.auth.addresses import canonical, fault_of
from trioxport.auth.oauth import Consent, FileStore, NetworkPolicy, OAuth
from trioxport.auth.oauth.file_store import default_directory, file_name
from trioxport.auth.oauth.logins import login_key
from trioxport.errors import ConnectError
from trioxport.protocol import DISCOVER

PROBE_SECONDS: Final = 15.0
MODERN: Final = "2026-07-28"


@attrs.frozen
class NoPerson:
    """The interaction of commands that ask for nothing: without a login they fail."""

    def open(self, registered: object) -> AbstractAsyncContextManager[Consent]:
        raise InteractionRequired("there is no login for this server, or it has ended", hint="Run trioxport login URL")


def stored_login(url: str, ca: str | None = None) -> OAuth | None:
    """The login that ``trioxport login`` has stored for the server at ``url``; None if there is none.

    ``ca`` is the file of the certificates to trust.
    """
    path = default_directory() / f"{file_name(login_key(canonical(url, keep_query=True)))}.json"
    if not path.exists():
        return None
    return OAuth(store=FileStore(), interaction=NoPerson(), network=NetworkPolicy(tls=TLSOptions(ca=ca)))


def server_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument ``url`` of an MCP server."""

    def check(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
        if fault := fault_of(url):
            raise click.BadParameter(f"{fault} (the server is written https://HOST/PATH)")
        return url

    return click.argument("url", metavar="URL", callback=check)(function)


_NETWORK_OPTIONS: Final = (
    click.option("--ca", type=click.Path(dir_okay=False), metavar="FILE",
                 help="Trust the certificates in this file, and no others."),
    click.option("--proxy", metavar="URL", help="Send the requests to authorization servers through this proxy."),
    click.option("--allow-host", "allowed_hosts", multiple=True, metavar="HOST",
                 help="Allow this host to be in a private network; may be repeated."),
)  # fmt: skip


def network_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of requests to authorization servers; the parameter ``network`` gets a ``NetworkPolicy``."""

    @wraps(function)
    def with_policy(ca: str | None, proxy: str | None, allowed_hosts: tuple[str, ...], **given: Any) -> Any:
        policy = NetworkPolicy(proxy=proxy, tls=TLSOptions(ca=ca), allowed_hosts=allowed_hosts)
        return function(network=policy, **given)

    decorated: Callable[..., Any] = with_policy
    for option in reversed(_NETWORK_OPTIONS):
        decorated = option(decorated)
    return decorated


async def challenge_of(url: str, network: NetworkPolicy) -> tuple[int, str | None]:
    """The status of a request without a token to the server at ``url``, and its ``WWW-Authenticate``.

    Raises ``ConnectError`` if the server cannot be reached.
    """
    names: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": DISCOVER, "params": {"_meta": names}}
    fields = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": DISCOVER,
        "user-agent": f"trioxport/{__version__}",
    }
    context: Any = network.tls.client_context("http/1.1") if url.startswith("https:") else False
    try:
        async with (
            httpx.AsyncClient(verify=context, timeout=PROBE_SECONDS) as client,
            client.stream("POST", url, json=message, headers=fields) as response,
        ):
            return response.status_code, response.headers.get("www-authenticate")
    except httpx.TransportError as error:
        raise ConnectError(f"the server cannot be reached: {type(error).__name__}", target=url) from error
