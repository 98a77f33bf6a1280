"""``trioxport call``: one request to one server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import click

from trioxport import UsageError
from trioxport.cli._commands import cli_command
from trioxport.cli._errors import complain_in_json
from trioxport.cli._output import complain, one_line, open_status, pretty, readable, texts_of, write
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions, connection_options, json_option, target_argument
from trioxport.peer import Client, Negotiated, ProgressCallback
from trioxport.protocol import DISCOVER, INITIALIZE, members_of

ABOUT_THE_SERVER: Final = (DISCOVER, INITIALIZE)
"""The methods that negotiation has called already, so that its result is printed."""


@cli_command
@target_argument
@click.argument("method", metavar="METHOD")
@click.argument("params", metavar="[PARAMS-JSON]", required=False)
@connection_options
@json_option
async def command(target: str, method: str, params: str | None, options: ConnectionOptions, as_json: bool) -> int:
    """Call a method of a server and print the result.

    METHOD is such as tools/list or tools/call; server/discover and initialize print the server's description.
    PARAMS-JSON are its parameters, a JSON object; - reads them from standard input.
    """
    given = _parameters(params)
    async with open_session(target, options) as client, open_status() as tell:
        result = await _ask(client, method, given, options.timeout, _progress_shown(tell))
    return _print(result, as_json)


def _parameters(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        params = json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except ValueError as error:
        raise UsageError(f"PARAMS-JSON is not JSON: {error}") from error
    if not isinstance(params, dict):
        raise UsageError("PARAMS-JSON is not a JSON object")
    return cast("dict[str, Any]", params)


async def _ask(
    client: Client, method: str, params: dict[str, Any] | None, seconds: float, on_progress: ProgressCallback
) -> Any:
    if method in ABOUT_THE_SERVER:
        return _described(client.server)
    return await client.peer.request(method, params, timeout=seconds, on_progress=on_progress)


def _described(server: Negotiated) -> dict[str, Any]:
    return {
        "era": server.era,
        "protocolVersion": server.protocol_version,
        "serverInfo": server.server_info,
        "capabilities": server.capabilities,
        "instructions": server.instructions,
    }


def _progress_shown(tell: Callable[[str], None]) -> ProgressCallback:
    """The callback that prints progress. Every call has one, because progress extends the timeout."""

    def on_progress(progress: float, total: float | None, message: str | None) -> None:
        of = "" if total is None else f" of {total:g}"
        tell(f"  {progress:g}{of}{f': {message}' if message else ''}")

    return on_progress


def _print(result: Any, as_json: bool) -> int:
    failed = members_of(result).get("isError") is True
    if as_json:
        write(one_line(result), sys.stdout)
    elif not failed:
        write(readable(result), sys.stdout)
    if failed:
        _complain_of_tool("\n".join(texts_of(result) or [pretty(result)]), as_json)
    return 1 if failed else 0


def _complain_of_tool(text: str, as_json: bool) -> None:
    if as_json:
        complain_in_json({"type": "ToolError", "message": text})
    else:
        complain(f"the tool failed: {text}")
