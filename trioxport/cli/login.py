"""``trioxport login``: authorization by OAuth, whose tokens later commands use."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import click
import trio

from trioxport import UsageError
from trioxport.auth.oauth import (
    Browser,
    DeviceAuthorization,
    DeviceCode,
    FileStore,
    Login,
    NetworkPolicy,
    OAuth,
    OAuthClient,
    OutOfBand,
)
from trioxport.cli._commands import cli_command
from trioxport.cli._oauth import challenge_of, network_options, server_argument
from trioxport.cli._output import complain, one_line, write
from trioxport.cli.options import json_option

REDIRECT_URI: Final = "http://localhost:8765/callback"
"""The redirect URI of --no-browser: the person copies it from the address bar."""


@cli_command
@server_argument
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="Ask for this scope; may be repeated.")
@click.option("--client-id", metavar="ID", help="The id of a client that is registered by hand.")
@click.option("--client-secret-file", type=click.Path(dir_okay=False, exists=True), metavar="FILE",
              help="The file with its secret.")  # fmt: skip
@click.option("--client-document", metavar="URL", help="The URL of a client id metadata document.")
@click.option("--issuer", metavar="URL", help="Allow this authorization server only.")
@click.option("--no-browser", is_flag=True, help="Print the page, and read the address it leads to.")
@click.option("--device", is_flag=True, help="Print a page and a code to enter on another device.")
@network_options
@json_option
async def command(
    url: str,
    scopes: tuple[str, ...],
    client_id: str | None,
    client_secret_file: str | None,
    client_document: str | None,
    issuer: str | None,
    no_browser: bool,
    device: bool,
    network: NetworkPolicy,
    as_json: bool,
) -> int:
    """Log in at a server by OAuth, and store the tokens for later commands.

    The tokens are in files that only this user can read. trioxport call URL and the like use and refresh them.
    """
    if no_browser and device:
        raise click.UsageError("--no-browser and --device are two ways to a person: keep one of them")
    auth = OAuth(
        store=FileStore(),
        scopes=scopes,
        client=_client(client_id, client_secret_file, issuer),
        client_document=client_document,
        issuer=issuer,
        network=network,
        grant=DeviceAuthorization(_show_code) if device else None,
        interaction=None if device else OutOfBand(REDIRECT_URI, _prompt) if no_browser else Browser(show=_show_page),
    )
    _, challenge = await challenge_of(url, network)
    _report(url, await auth.login(url, challenge=challenge), as_json)
    return 0


def _client(client_id: str | None, secret_file: str | None, issuer: str | None) -> OAuthClient | None:
    if client_id is None:
        if secret_file is not None:
            raise click.UsageError("--client-secret-file is for --client-id: name the client as well")
        return None
    text = None
    if secret_file is not None:
        with open(secret_file, encoding="utf-8") as file:
            text = file.read().strip()
    return OAuthClient(client_id, client_secret=text, issuer=issuer)


async def _show_page(page: str) -> None:
    from trioxport.auth.oauth import open_browser
    from trioxport.errors import InteractionRequired

    complain(f"opening the browser; if nothing happens, open\n{page}")
    try:
        await open_browser(page)
    except InteractionRequired:  # the page may be opened on this machine by other means
        complain("no browser can be opened here: open the page by yourself, or use --no-browser or --device")


async def _prompt(page: str) -> str:
    complain(f"open this page in a browser\n{page}\nand paste the address that it leads to:")
    line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    if not line.strip():
        raise UsageError("no address was given", hint="Copy it from the browser, also if it shows an error")
    return str(line).strip()


async def _show_code(code: DeviceCode) -> None:
    await trio.lowlevel.checkpoint()
    complain(f"open {code.verification_uri} on any device, and enter the code {code.user_code}")


def _report(url: str, login: Login, as_json: bool) -> None:
    left = None if login.expires_at is None else max(0, round(login.expires_at - time.time()))
    found: dict[str, Any] = {
        "server": url,
        "issuer": login.server.issuer,
        "client_id": login.client.client_id,
        "scopes": list(login.scopes),
        "expires_in": left,
        "refreshes": login.refresh_token is not None,
    }
    if as_json:
        write(one_line(found), sys.stdout)
        return
    scopes = f", scopes {' '.join(login.scopes)}" if login.scopes else ""
    life = "" if left is None else f", for {left} s" + (", then refreshed" if found["refreshes"] else "")
    write(f"logged in at {url} by {login.server.issuer}, client {login.client.client_id}{scopes}{life}", sys.stdout)
