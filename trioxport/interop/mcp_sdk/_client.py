"""A target as a transport of the SDK's ``Client``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ClientMessageMetadata, MessageMetadata

from trioxport._core.nursery import sole_exception
from trioxport.interop.mcp_sdk._convert import mcp_error
from trioxport.interop.mcp_sdk._streams import SDKReadStream, SDKWriteStream
from trioxport.messages import NOTHING, Incoming
from trioxport.metadata import Metadata
from trioxport.opening import open_transport
from trioxport.targets import Target

Options = ParamSpec("Options")
Streams: TypeAlias = tuple[SDKReadStream, SDKWriteStream]

_PROTOCOL_HEADER_PREFIX: Final = "mcp-"
"""The prefix of the headers that the SDK writes for its own HTTP transport; ours come from the messages."""


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

    Arguments and exceptions are those of :func:`trioxport.open_transport`. A request that cannot be delivered raises
    ``MCPError`` in the caller: its code is the one of the SDK's own transports, its ``data`` has the ``error``, the
    ``outcome``, whether it is ``retryable``, and the ``exit_code`` of a process. A ``Client`` that is left because the
    connection was lost raises that ``MCPError`` too, in place of an exception group around "Connection closed".
    Per-message headers of the SDK reach the wire; the transport itself writes those of the protocol. Leaving sends
    accepted messages, within ``close_timeout`` seconds.
    """
    async with open_transport(target, **options) as (tx, rx):
        read = SDKReadStream(rx, tx, _no_metadata)
        try:
            yield read, SDKWriteStream(tx, _metadata_of)
        except (MCPError, BaseExceptionGroup) as raised:
            closed = sole_exception(raised)
            if read.loss is None or not isinstance(closed, MCPError) or closed.error.code != types.CONNECTION_CLOSED:
                raise
            if closed.error.data is not None:
                raise closed from read.loss
            raise mcp_error(read.loss) from read.loss


def _no_metadata(message: Incoming) -> MessageMetadata:
    return None


def _metadata_of(metadata: MessageMetadata) -> Mapping[str, Any]:
    if not isinstance(metadata, ClientMessageMetadata):
        return NOTHING
    noted: Metadata = {}
    own = {
        name: value
        for name, value in (metadata.headers or {}).items()
        if not name.lower().startswith(_PROTOCOL_HEADER_PREFIX)
    }
    if own:
        noted["headers"] = own
    if metadata.resumption_token:
        noted["resume_after"] = metadata.resumption_token
    if metadata.on_resumption_token_update:
        noted["on_event_id"] = metadata.on_resumption_token_update
    return noted
