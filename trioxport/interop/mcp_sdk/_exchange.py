"""A request of the modern era over HTTP: one connection each, run by the SDK's driver for single requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import anyio
import attrs
import mcp_types as types
import msgspec
import trio
from mcp.server import Server
from mcp.server.connection import Connection as SDKConnection
from mcp.server.runner import ServerRunner, aclose_shielded, modern_error_data
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import (
    X_MCP_HEADER_KEY,
    InboundLadderRejection,
    InboundModernRoute,
    classify_inbound_request,
    validate_mcp_param_headers,
)
from mcp.shared.message import MessageMetadata
from mcp.shared.transport_context import TransportContext
from trio.abc import SendChannel

from trioxport._diagnostics import logger
from trioxport.codecs.forwarding import with_deliveries
from trioxport.connection import Connection
from trioxport.interop.mcp_sdk._context import sdk_metadata_of
from trioxport.messages import ErrorResponse, Message, Notification, Request, Response
from trioxport.protocol import PROGRESS, as_id, meta_of

_ANNOTATION: Final = X_MCP_HEADER_KEY.encode()
_encode: Final = msgspec.json.Encoder().encode

MAX_LISTING_PAGES: Final = 100
"""Pages of a ``tools/list`` that are followed to find a tool."""


@attrs.define(eq=False)
class _SingleRequestContext:
    """The SDK's ``DispatchContext`` of one request: its handler may send notifications before the answer."""

    tx: SendChannel[Message]
    request: Request
    transport: TransportContext
    message_metadata: MessageMetadata
    can_send_request: bool = attrs.field(default=False, init=False)
    _cancel_requested: anyio.Event | None = attrs.field(default=None, init=False)

    @property
    def cancel_requested(self) -> anyio.Event:
        if self._cancel_requested is None:  # made late: few handlers look at it, and anyio looks for its backend
            self._cancel_requested = anyio.Event()
        return self._cancel_requested

    @property
    def request_id(self) -> types.RequestId:
        return self.request.id

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        await self.tx.send(Notification(method, None if params is None else dict(params)))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        token = as_id(meta_of(self.request.params).get("progressToken"))
        if token is None:
            return
        params = {"progressToken": token, "progress": progress, "total": total, "message": message}
        await self.notify(PROGRESS, {name: value for name, value in params.items() if value is not None})


async def serve_single_request(server: Server[Any], connection: Connection, lifespan: Any) -> None:
    """Answer the one request of ``connection``. A notification is ignored: there is no session that it could change."""
    try:
        request = await connection.rx.receive()
    except trio.EndOfChannel:
        return
    if isinstance(request, Request):
        await connection.tx.send(await _answer(server, connection, with_deliveries(request), lifespan))


async def _answer(
    server: Server[Any], connection: Connection, request: Request, lifespan: Any
) -> Response | ErrorResponse:
    headers = connection.info.headers
    params = request.params if isinstance(request.params, dict) else None
    route = classify_inbound_request({"method": request.method, "params": params})
    if isinstance(route, InboundLadderRejection):
        return _rejected(request, route)
    context = TransportContext(kind="streamable-http", can_send_request=False, headers=headers)
    dispatch = _SingleRequestContext(connection.tx, request, context, sdk_metadata_of(connection, request))
    call = _HandlerCall(server, dispatch, route, lifespan)
    if request.method == "tools/call" and params is not None:
        schema = await _input_schema(call, params)
        if schema is not None and _may_mirror(schema):
            rejection = validate_mcp_param_headers(schema, params.get("arguments") or {}, headers)
            if rejection is not None:
                return _rejected(request, rejection)
    try:
        return Response(request.id, await _serve(call, request.method, params))
    except Exception as error:
        failure = modern_error_data(error)
        return ErrorResponse(request.id, failure.code, failure.message, failure.data)


def _may_mirror(schema: Any) -> bool:
    """Whether a schema has the text of an annotation; to search its JSON takes less than the SDK's walk through it."""
    try:
        return _ANNOTATION in _encode(schema)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return True


def _rejected(request: Request, rejection: InboundLadderRejection) -> ErrorResponse:
    return ErrorResponse(request.id, rejection.code, rejection.message, rejection.data)


class _HandlerCall(NamedTuple):
    """The server and what its handlers get, for one request."""

    server: Server[Any]
    dispatch: _SingleRequestContext
    route: InboundModernRoute
    lifespan: Any


async def _serve(call: _HandlerCall, method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Call a handler, as the SDK's ``serve_one`` does, and leave nothing behind for the garbage collector."""
    server, dispatch, route, lifespan = call
    known = SDKConnection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
    runner = ServerRunner(server, known, lifespan)
    try:
        return await runner.on_request(dispatch, method, params)
    finally:
        vars(runner).pop("on_request", None)  # the runner keeps this method of its own
        if getattr(known.exit_stack, "_exit_callbacks", True):  # it is mostly empty; to close it takes 18 µs
            await aclose_shielded(known)


async def _input_schema(call: _HandlerCall, params: Mapping[str, Any]) -> Any:
    """The schema of the called tool, if headers have to agree with its arguments, and it can be found; else None."""
    name: object = params.get("name")
    arguments: object = params.get("arguments") or {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    headers = call.dispatch.transport.headers or {}
    if not arguments and not any(header.startswith("mcp-param-") for header in headers):
        return None
    look_up = call.server.get_tool_input_schema
    try:
        return await _listed(call, name, params) if look_up is None else look_up(name)
    except Exception:  # of the application; as in the SDK, the call goes on
        logger.exception("headers are not compared with the arguments of %r: there is no schema", name)
        return None


async def _listed(call: _HandlerCall, name: str, params: Mapping[str, Any]) -> Any:
    if call.server.get_request_handler("tools/list") is None:
        return None
    params_of_page: dict[str, Any] = {"_meta": params.get("_meta")}
    for _ in range(MAX_LISTING_PAGES):
        page = await _serve(call, "tools/list", params_of_page)
        for tool in page.get("tools", ()):
            if tool.get("name") == name:
                return tool.get("inputSchema")
        if "nextCursor" not in page:
            break
        params_of_page["cursor"] = page["nextCursor"]
    return None
