"""``trioxport token``: the access token of a login, for other programs."""

from __future__ import annotations

import sys
import time

from trioxport import InteractionRequired, UsageError
from trioxport.auth.oauth import FileStore, Login, NetworkPolicy, OAuth
from trioxport.cli._commands import cli_command
from trioxport.cli._oauth import NoPerson, network_options, server_argument
from trioxport.cli._output import one_line, write
from trioxport.cli.options import json_option


@cli_command
@server_argument
@network_options
@json_option
async def command(url: str, network: NetworkPolicy, as_json: bool) -> int:
    """Print a valid access token for a server, refreshed if that is needed.

    The token is a secret: pass it on by a pipe or a variable, as in
    curl -H "authorization: Bearer $(trioxport token URL)" URL.
    """
    auth = OAuth(store=FileStore(), interaction=NoPerson(), network=network)
    held = await auth.session(url).current(None)
    if held is None:
        hint = f"Run trioxport login {url}"
        raise InteractionRequired("there is no login for this server, or it has ended", target=url, hint=hint)
    if held.dpop is not None:
        reason = "the token is bound to a key, and is of no use without it"
        raise UsageError(reason, target=url, hint="Use trioxport call, or the library")
    _print(held.login, as_json)
    return 0


def _print(login: Login, as_json: bool) -> None:
    assert login.access_token is not None
    token, expires = login.access_token.reveal(), login.expires_at
    left = None if expires is None else max(0, round(expires - time.time()))
    write(one_line({"access_token": token, "expires_in": left}) if as_json else token, sys.stdout)
