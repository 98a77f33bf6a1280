"""A target as a transport of the SDK's ``Client``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ClientMessageMetadata, MessageMetadata

from trioxport._core.exception_groups import sole_exception
from trioxport.interop.mcp_sdk._convert import mcp_error
from trioxport.interop.mcp_sdk._streams import SDKReadStream, SDKWriteStream
from trioxport.messages import NOTHING, Incoming
from trioxport.metadata import Metadata
from trioxport.opening import open_transport
from trioxport.targets import Target

Options = ParamSpec("Options")
Streams: TypeAlias = tuple[SDKReadStream, SDKWriteStream]

_PROTOCOL: Final = "mcp-"
"""How the headers begin that the SDK writes for its own HTTP transport, and that ours knows from the messages."""


def _with_options_of(
    opener: Callable[Concatenate[Target, Options], object],
) -> Callable[
    [Callable[..., AbstractAsyncContextManager[Streams]]],
    Callable[Concatenate[Target, Options], AbstractAsyncContextManager[Streams]],
]:
    """Give a function the parameters of ``opener``, for type checkers."""
    return lambda function: function


@_with_options_of(open_transport)
@asynccontextmanager
async def sdk_transport(target: Target, **options: Any) -> AsyncGenerator[Streams]:
    """A transport for the SDK's ``Client`` or ``ClientSession``: ``Client(sdk_transport("wss://example.com/mcp"))``.

    Takes what :func:`trioxport.open_transport` takes, and raises what it raises. What cannot be delivered is an
    ``MCPError`` to the caller: its code is the one that the SDK's own transports use, its ``data`` says the error, the
    ``outcome``, whether a retry may help, and the ``exit_code`` of a process. A ``Client`` that is left because the
    connection was lost raises that ``MCPError`` too, in place of an exception group around "Connection closed".
    Per-message headers of the SDK reach the wire; those of the protocol
    are written by the transport. Leaving sends what was accepted, within ``close_timeout``.
    """
    async with open_transport(target, **options) as (tx, rx):
        read = SDKReadStream(rx, _nothing_known)
        try:
            yield read, SDKWriteStream(tx, _to_wire)
        except (MCPError, BaseExceptionGroup) as raised:
            closed = sole_exception(raised)
            if read.loss is None or not isinstance(closed, MCPError) or closed.error.code != types.CONNECTION_CLOSED:
                raise
            if closed.error.data is not None:
                raise closed from read.loss
            raise mcp_error(read.loss) from read.loss


def _nothing_known(message: Incoming) -> MessageMetadata:
    return None


def _to_wire(metadata: MessageMetadata) -> Mapping[str, Any]:
    if not isinstance(metadata, ClientMessageMetadata):
        return NOTHING
    noted: Metadata = {}
    own = {name: value for name, value in (metadata.headers or {}).items() if not name.lower().startswith(_PROTOCOL)}
    if own:
        noted["headers"] = own
    if metadata.resumption_token:
        noted["resume_after"] = metadata.resumption_token
    if metadata.on_resumption_token_update:
        noted["on_event_id"] = metadata.on_resumption_token_update
    return noted
