"""``trioxport call``: one request to one server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import trio

from trioxport import RequestTimeout, UsageError, __version__, open_transport
from trioxport.abc import CONNECT_TIMEOUT, Era
from trioxport.cli._errors import complain_in_json
from trioxport.cli._output import complain, one_line, open_status, pretty, readable, texts_of, write
from trioxport.peer import Negotiated, Peer, ProgressCallback, open_peer
from trioxport.protocol import DISCOVER, INITIALIZE, members_of

CLIENT_INFO: Final = {"name": "trioxport", "version": __version__}
ABOUT_THE_SERVER: Final = (DISCOVER, INITIALIZE)
"""The methods that negotiation has called already, so that its result is printed."""


async def call(options: argparse.Namespace) -> int:
    """Open, negotiate, call and print; return the exit code. Raises ``TransportError`` and ``JSONRPCError``."""
    params = _parameters(options.params)
    late: RequestTimeout | None = None
    result: Any = None
    with trio.CancelScope() as patience:
        async with _opened(options) as (peer, deadline), open_status() as tell:
            try:
                result = await _ask(peer, options, params, deadline, _progress_shown(tell))
            except RequestTimeout as error:  # do not wait for a silent server on leaving either
                late = error
                patience.cancel()
    if late is not None:
        raise late
    return _print(result, options.json)


@asynccontextmanager
async def _opened(options: argparse.Namespace) -> AsyncGenerator[tuple[Peer, float]]:
    """A peer, and the deadline of the negotiation with its server."""
    deadline = trio.current_time() + options.timeout
    async with (
        open_transport(
            options.target,
            allow_plaintext=options.allow_plaintext,
            connect_timeout=min(CONNECT_TIMEOUT, options.timeout),
        ) as connection,
        open_peer(connection) as peer,
    ):
        yield peer, deadline


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
    peer: Peer,
    options: argparse.Namespace,
    params: dict[str, Any] | None,
    deadline: float,
    on_progress: ProgressCallback,
) -> Any:
    negotiated = await _negotiate(peer, options, deadline)
    if options.method in ABOUT_THE_SERVER:
        return {
            "era": negotiated.era,
            "protocolVersion": negotiated.protocol_version,
            "serverInfo": negotiated.server_info,
            "capabilities": negotiated.capabilities,
            "instructions": negotiated.instructions,
        }
    return await peer.request(options.method, params, timeout=options.timeout, on_progress=on_progress)


async def _negotiate(peer: Peer, options: argparse.Namespace, deadline: float) -> Negotiated:
    era = cast("Era | None", None if options.era == "auto" else options.era)
    with trio.move_on_at(deadline):
        return await peer.negotiate(client_info=CLIENT_INFO, era=era, probe_timeout=min(5.0, options.timeout / 2))
    raise RequestTimeout(
        f"the server did not open the conversation within {options.timeout:g} s",
        target=peer.target,
        hint="Check that it is an MCP server, or raise --timeout",
    )


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
