"""HTTP/2 with a server process: its requests, and the end of the only connection, which is that of the process."""

from __future__ import annotations

import copy
import math
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final, Protocol

import attrs
import httpx
import trio

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectError, ConnectionLost, SpawnError, TransportError
from trioxport.transports._http2 import Http2Connection, Http2Error, Http2Settings
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.byte_stream import ByteStream
from trioxport.transports.http.client.connection import open_channels
from trioxport.transports.http.client.options import HttpOptions
from trioxport.transports.http.client.stack.assemble import endpoint_fields
from trioxport.transports.http.client.stack.decompression import Decompressing
from trioxport.transports.http.client.stack.http2_exchange import StreamBody, exchange, request_fields
from trioxport.transports.http.client.stack.redirects import FollowingRedirects
from trioxport.transports.http.client.stack.types import HTTPEndpoint, HTTPRequest, WireEnd
from trioxport.transports.http.unix_endpoint import AUTHORITY

ATTEMPTS: Final = 3
"""Attempts at a request that the server has certainly not acted on, while the connection lasts."""

_TEXT_HINT: Final = (
    "Let the program print to standard error: its standard output carries HTTP/2 alone. "
    "A server that speaks MCP in lines is written stdio:COMMAND"
)


class ServerProcess(ByteStream, Protocol):
    """The standard streams of a server process, which raise the loss of the process."""

    @property
    def ending(self) -> ConnectionLost | None:
        """The error of what the end of the process has left unanswered; None before the end is seen."""
        ...


class ProcessStream:
    """The standard streams of a server process; keeps the loss that they raise.

    Attributes:
        loss: The loss of the connection; None before it, and after an orderly end.
    """

    def __init__(self, process: ServerProcess) -> None:
        self.loss: ConnectionLost | None = None
        self._process = process

    async def send_all(self, data: bytes) -> None:
        with self._keeping_loss():
            await self._process.send_all(data)

    async def send_eof(self) -> None:
        await self._process.send_eof()

    async def receive_some(self) -> bytes | bytearray:
        with self._keeping_loss():
            return await self._process.receive_some()

    @contextmanager
    def _keeping_loss(self) -> Generator[None]:
        try:
            yield
        except ConnectionLost as error:
            self.loss = self.loss or error
            raise


class ProcessRequests:
    """The requests to one server process.

    Args:
        process: Its standard streams.
        scope: The connection.

    Attributes:
        connection: The connection of HTTP/2.
        end: The end of the connection.
    """

    def __init__(self, process: ServerProcess, scope: Scope) -> None:
        settings = attrs.evolve(Http2Settings.of(scope.settings), write_timeout=math.inf, frame_timeout=math.inf)
        self.end = WireEnd()
        self._process = process
        self._stream = ProcessStream(process)
        self.connection = Http2Connection(self._stream, settings, role="client")
        self._scope = scope

    async def run(self) -> None:
        """Carry the requests until the connection is over. Raises no ``Exception``."""
        await self.connection.run()
        self._report_end()

    def _report_end(self) -> None:
        """Report the end of the connection, once, before a request fails with it: what is sent then has no place."""
        if self.end.over.is_set():
            return
        loss = None if self._scope.leaving else self._loss()
        if loss is None:
            self._scope.peer_done()
        else:
            self._scope.lost(loss)
        self.end.set(loss)

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, StreamBody]:
        """Send a request, and return the response with its body unread. Raises ``ConnectionLost``."""
        fields = request_fields(request, b"http", AUTHORITY.encode())
        for left in reversed(range(ATTEMPTS)):
            try:
                return await exchange(self.connection, fields, request.content, self._explain, math.inf)
            except Http2Error as error:
                if error.outcome != "not_sent" or not left or self.connection.failure is not None:
                    raise self._explain(error) from error
        raise AssertionError  # the last attempt has raised

    def channels(self, options: HttpOptions, peer: str | None) -> AbstractAsyncContextManager[FrameChannels]:
        """Open the channels of the connection. Raises ``UsageError`` for headers that the transport sets."""
        base = httpx.URL(options.http_url)
        send = FollowingRedirects(Decompressing(self.send).send, base).send
        path = base.raw_path.decode("ascii")
        target, fields = self._scope.settings.target, endpoint_fields(options)
        endpoint = HTTPEndpoint(send, target, target, base, path, fields, peer, self.end)
        return open_channels(endpoint, self._scope, options)

    def refusal(self) -> TransportError:
        """The error of a process that ended, or wrote something else, before its first frame."""
        ending = self._process.ending
        if ending is not None and not self.connection.violation:
            return SpawnError(
                ending.reason,
                hint=ending.hint,
                retryable=True,
                exit_code=ending.exit_code,
                stderr_tail=ending.stderr_tail,
            )
        found = self._loss() or self._unanswered()
        return ConnectError(found.reason, hint=found.hint, retryable=False)

    def _explain(self, error: Http2Error) -> TransportError:
        """The error of a request that failed with its stream or with the connection."""
        if not self.connection.is_over:
            return ConnectionLost(f"the server broke the exchange off: {error.reason}", outcome=error.outcome)
        self._report_end()
        found = copy.copy(self._loss() or self._unanswered())
        found.outcome = error.outcome
        return found

    def _loss(self) -> ConnectionLost | None:
        """The loss of the connection, which is over; None for an orderly end."""
        text = self.connection.foreign_text
        if text:
            reason = f"the server process wrote {text!r} to its standard output, in place of HTTP/2"
            return ConnectionLost(reason, hint=_TEXT_HINT)
        if self.connection.violation:
            reason = f"the server process broke the rules of HTTP/2: {self.connection.violation}"
            return ConnectionLost(reason, hint=_TEXT_HINT)
        return self._stream.loss

    def _unanswered(self) -> ConnectionLost:
        """The error of what an orderly end leaves unanswered."""
        return self._process.ending or ConnectionLost("the server process closed its standard output")


@asynccontextmanager
async def open_requests(process: ServerProcess, scope: Scope) -> AsyncGenerator[ProcessRequests]:
    """Speak HTTP/2 with a server process for the time of a block, and then close its input.

    Raises ``SpawnError`` or ``ConnectError`` if its first frame does not come.
    """
    requests = ProcessRequests(process, scope)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.run)
        await requests.connection.until_heard()
        if requests.connection.is_over:
            raise requests.refusal()
        yield requests
        await requests.connection.aclose()
        await process.send_eof()
        nursery.cancel_scope.cancel()
