"""``trioxport logout``: the end of a login."""

from __future__ import annotations

import sys

import click

from trioxport.auth.addresses import canonical
from trioxport.auth.oauth import FileStore
from trioxport.auth.oauth.logins import client_key, login_in, login_key
from trioxport.auth.oauth.stores import LOCK_SECONDS
from trioxport.cli._commands import cli_command
from trioxport.cli._oauth import server_argument
from trioxport.cli._output import write
from trioxport.errors import OAuthError


@cli_command
@server_argument
@click.option("--client", "with_client", is_flag=True, help="Forget the registration of the client as well.")
async def command(url: str, with_client: bool) -> int:
    """Forget the tokens for a server that trioxport login has stored.

    They are deleted on this machine; the authorization server is not told.
    """
    store, key = FileStore(), login_key(canonical(url, keep_query=True))
    async with store.fence(key, LOCK_SECONDS):
        issuer = await _issuer(store, key)
        await store.write(key, None)
    if with_client and issuer is not None:
        await store.write(client_key(issuer), None)
    write(f"logged out at {url}" if issuer is not None else f"there was no login at {url}", sys.stdout)
    return 0


async def _issuer(store: FileStore, key: str) -> str | None:
    """The authorization server of a login; empty for one that cannot be read."""
    try:
        login = login_in(await store.read(key))
    except OAuthError:
        return ""
    return None if login is None else login.server.issuer
