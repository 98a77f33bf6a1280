"""``trioxport call``: one request to one server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import trio

from trioxport import RequestTimeout, UsageError, __version__, open_transport
from trioxport._rpc import members_of
from trioxport.abc import Era
from trioxport.cli._output import complain, one_line, open_status, pretty, readable, texts_of, write
from trioxport.peer import JSONRPCError, Negotiated, Peer, ProgressCallback, open_peer

CLIENT_INFO: Final = {"name": "trioxport", "version": __version__}
ABOUT_THE_SERVER: Final = ("server/discover", "initialize")
"""The methods whose answers are what negotiation finds out."""


async def call(options: argparse.Namespace) -> int:
    """Open, negotiate, call, print; the exit code. Raises ``TransportError``."""
    params = _parameters(options.params)
    try:
        async with (
            open_transport(options.target, allow_plaintext=options.allow_plaintext) as connection,
            open_peer(connection) as peer,
            open_status() as tell,
        ):
            result = await _ask(peer, options, params, _progress_shown(tell))
    except JSONRPCError as error:
        complain(f"the server answered with error {error.code}: {error.message}")
        if error.data is not None:
            complain(f"details: {one_line(error.data)}")
        return 1
    return _print(result, options.json)


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
    peer: Peer, options: argparse.Namespace, params: dict[str, Any] | None, on_progress: ProgressCallback
) -> Any:
    negotiated = await _negotiate(peer, options)
    if options.method in ABOUT_THE_SERVER:
        return {
            "era": negotiated.era,
            "protocolVersion": negotiated.protocol_version,
            "serverInfo": negotiated.server_info,
            "capabilities": negotiated.capabilities,
            "instructions": negotiated.instructions,
        }
    return await peer.request(options.method, params, timeout=options.timeout, on_progress=on_progress)


async def _negotiate(peer: Peer, options: argparse.Namespace) -> Negotiated:
    era = cast("Era | None", None if options.era == "auto" else options.era)
    with trio.move_on_after(options.timeout):
        return await peer.negotiate(client_info=CLIENT_INFO, era=era, probe_timeout=min(5.0, options.timeout / 2))
    raise RequestTimeout(
        f"the server did not open the conversation within {options.timeout:g} s",
        target=peer.target,
        hint="Check that it is an MCP server, or raise --timeout",
    )


def _progress_shown(tell: Callable[[str], None]) -> ProgressCallback:
    """Asked for in every case, because it extends the timeout."""

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
        complain("the tool failed: " + "\n".join(texts_of(result) or [pretty(result)]))
    return 1 if failed else 0
