"""The two ends of a connection in the shape that the SDK reads and writes: its messages, and anyio's exceptions."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
import trio
from mcp.shared.exceptions import MCPError
from mcp.shared.message import MessageMetadata, SessionMessage
from trio.abc import ReceiveChannel, SendChannel

from trioxport.errors import ConnectionLost, TransportError
from trioxport.interop.mcp_sdk._convert import code_of, data_of, from_sdk, to_sdk
from trioxport.messages import NOTHING, Incoming, Message

Inbound: TypeAlias = Callable[[Incoming], MessageMetadata]
"""The SDK's metadata of a message that was received."""

Outbound: TypeAlias = Callable[[MessageMetadata], Mapping[str, Any]]
"""The metadata here of a message that the SDK sends."""


class SDKReadStream:
    """What was received, as the SDK reads it.

    A failure that is no message is an item of its own, as the SDK has it; a lost connection is such an item and then
    the end. A cancelled ``receive`` loses nothing.
    """

    last_context: contextvars.Context | None = None

    def __init__(self, rx: ReceiveChannel[Incoming], inbound: Inbound) -> None:
        self._rx = rx
        self._inbound = inbound
        self._lost = False

    async def receive(self) -> SessionMessage | Exception:
        """The next item. Raises ``anyio.EndOfStream`` and ``anyio.ClosedResourceError``."""
        if self._lost:
            raise anyio.EndOfStream
        try:
            message = await self._rx.receive()
        except trio.EndOfChannel:
            raise anyio.EndOfStream from None
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except TransportError as error:
            self._lost = True
            return error
        try:
            return SessionMessage(to_sdk(message), self._inbound(message))
        except TransportError as error:
            return error

    async def aclose(self) -> None:
        await self._rx.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class SDKWriteStream:
    """Where the SDK writes.

    A connection that is gone is ``anyio.BrokenResourceError``; a message that cannot be sent is an ``MCPError``, which
    the SDK raises to whoever made the request, or answers a request with.
    """

    def __init__(self, tx: SendChannel[Message], outbound: Outbound) -> None:
        self._tx = tx
        self._outbound = outbound

    async def send(self, item: SessionMessage, /) -> None:
        metadata = NOTHING if item.metadata is None else self._outbound(item.metadata)
        try:
            await self._tx.send(from_sdk(item.message, metadata))
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None
        except ConnectionLost as error:
            raise anyio.BrokenResourceError from error
        except TransportError as error:
            raise MCPError(code_of(error), str(error), data_of(error)) from error

    async def aclose(self) -> None:
        await self._tx.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()
