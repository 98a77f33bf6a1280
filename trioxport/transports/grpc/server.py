"""The server's side: its connections, and the way of each call to its method."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.auth.tls import about_target, server_contexts
from trioxport.errors import ConnectError
from trioxport.transports._access.policy import AccessPolicy
from trioxport.transports._access.request import AccessRefused
from trioxport.transports._http2 import Http2Connection, Http2Error, Http2Settings, Http2Stream
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._sockets import peer_of, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.byte_stream import ByteStream
from trioxport.transports.grpc.channel import ALPN
from trioxport.transports.grpc.health import HealthService, service_in, status_message
from trioxport.transports.grpc.incoming_call import IncomingCall, malformed
from trioxport.transports.grpc.metadata import CALL, CONNECT, HEALTH_CHECK, HEALTH_WATCH, STREAM, services_of
from trioxport.transports.grpc.options import GrpcOptions, tls_of
from trioxport.transports.grpc.served_calls import ServedCalls
from trioxport.transports.grpc.status import CallRefused, CallStatus, StatusCode

HANDSHAKE_SECONDS: Final = 10.0
LAST_SECONDS: Final = 0.25
"""Seconds to send the status of a call that is cancelled."""
GOODBYE_SECONDS: Final = 0.5
"""Seconds for the last frames on the connections of a server that is stopped."""


class GrpcServer:
    """The server of some listeners.

    Args:
        options: The options of the server.
        acceptor: Takes the connections of admitted clients.
        settings: The settings of the connections.

    Raises:
        UsageError: There is no certificate for ``grpcs``.
    """

    def __init__(self, options: GrpcOptions, acceptor: Acceptor, settings: ConnectionSettings) -> None:
        self._target = str(options)
        self._contexts = _contexts(options) if options.is_encrypted else None
        keepalive = math.inf if options.keepalive is None else options.keepalive
        self._http2 = attrs.evolve(Http2Settings.of(settings), keepalive=keepalive)
        hosts = ("*",) if options.hosts is None else options.hosts
        self._policy = AccessPolicy(attrs.evolve(options, hosts=hosts), options.url, publishes_metadata=False)
        self._refusals = settings.refusals
        self._streams = frozenset((CONNECT, STREAM, options.method)) - {CALL}
        self._health = HealthService(services_of(self._streams | {CALL}))
        self._calls = ServedCalls(options, acceptor, self._policy, settings)
        self._free_places = options.max_connections

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serve the clients of ``listeners`` until cancelled; then tell them."""
        try:
            await trio.serve_listeners(self._serve_socket, list(listeners))
        finally:
            self._health.stop()

    async def _serve_socket(self, socket: trio.SocketStream) -> None:
        peer = peer_of(socket)
        async with socket:
            if not self._free_places:
                self._refusals.note("too many connections", peer, "max_connections is reached")
                return
            self._free_places -= 1
            try:
                stream, tls = await self._secured(socket)
                await self._serve_connection(stream, peer, tls)
            except ConnectError as error:
                self._refusals.note_error(error, peer)
            except Exception:
                logger.exception("a client's connection could not be served")
            finally:
                self._free_places += 1

    async def _secured(self, socket: trio.SocketStream) -> tuple[ByteStream, str | None]:
        """The byte stream of a connection, and the version of TLS. Raises ``ConnectError``."""
        if self._contexts is None:
            return PromptSocket(socket), None
        context = self._contexts()
        context.set_alpn_protocols([ALPN])
        stream = TLSStream(socket, context)
        with trio.move_on_after(HANDSHAKE_SECONDS):
            await secure(stream, self._target)
            return stream, stream.version
        raise ConnectError("the TLS handshake took too long", target=self._target)

    async def _serve_connection(self, stream: ByteStream, peer: str | None, tls: str | None) -> None:
        """Serve the calls of a connection. Cancelled, its calls end first, and then the connection, in order."""
        connection = Http2Connection(stream, self._http2, role="server")
        life = trio.CancelScope(shield=True)  # ends with the calls, each of which gets LAST_SECONDS
        async with trio.open_nursery() as tasks:
            tasks.start_soon(_run, connection, life)
            try:
                async with trio.open_nursery() as calls:
                    async for call in connection.requests:
                        calls.start_soon(self._serve_call, call, peer, tls)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_SECONDS):
                    await connection.aclose()
                life.cancel()

    async def _serve_call(self, stream: Http2Stream, peer: str | None, tls: str | None) -> None:
        call = IncomingCall.of(stream, peer, tls)
        with stream, suppress(Http2Error):  # the client is gone
            if not call.is_of_grpc:
                await stream.send_headers([(b":status", b"415")], end_stream=True)
                return
            try:
                with trio.move_on_at(call.deadline()) as life:
                    await self._route(call, life)
                if life.cancelled_caught:
                    await call.end(CallStatus(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed"))
            except CallRefused as refused:
                self._refusals.note(refused.counted_as, peer, refused.detail)
                await call.end(refused.status)
            except trio.Cancelled:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_SECONDS):
                    await call.end(CallStatus(StatusCode.UNAVAILABLE, "the server is being stopped"))
                raise
            except Http2Error:
                raise
            except Exception:
                logger.exception("a call could not be served")
                await call.end(CallStatus(StatusCode.INTERNAL, "the call could not be served"))

    async def _route(self, call: IncomingCall, life: trio.CancelScope) -> None:
        if call.called == HEALTH_CHECK:
            await self._check_health(call)
        elif call.called == HEALTH_WATCH:
            await self._watch_health(call)
        elif call.called == CALL:
            await self._admit(call)
            await self._calls.serve_unary(call, life)
        elif call.called in self._streams:
            await self._admit(call)
            await self._calls.serve_stream(call)
        else:
            text = f"this server has no method {call.called[:80]}"
            raise CallRefused(CallStatus(StatusCode.UNIMPLEMENTED, text), "UNIMPLEMENTED", text)

    async def _admit(self, call: IncomingCall) -> None:
        """Check a call by the access policy. Raises ``CallRefused``."""
        self._policy.identify(call)
        try:
            await self._policy.check(call)
        except AccessRefused as refused:
            delays = (int(value) for name, value in refused.fields if name.lower() == b"retry-after")
            code = CallStatus.of_http(refused.status)
            status = CallStatus(code, refused.reason, next(delays, None))
            raise CallRefused(status, refused.counted_as, refused.detail) from None

    async def _check_health(self, call: IncomingCall) -> None:
        service = await _service_of(call)
        status = self._health.status_of(service)
        if status == status.SERVICE_UNKNOWN:
            text = "this server has no such service"
            raise CallRefused(CallStatus(StatusCode.NOT_FOUND, text), "NOT_FOUND", f"{text}: {service[:80]}")
        await call.send_small(status_message(status))
        await call.end(CallStatus(StatusCode.OK))

    async def _watch_health(self, call: IncomingCall) -> None:
        """Send the status of a service, and each change of it, until the client or the server ends the call."""
        service = await _service_of(call)
        with trio.CancelScope() as scope:
            call.stream.cancel_on_failure(scope)
            while True:
                await call.send_small(status_message(self._health.status_of(service)))
                await self._health.changed()


async def _run(connection: Http2Connection, life: trio.CancelScope) -> None:
    with life:
        await connection.run()


async def _service_of(call: IncomingCall) -> str:
    request = await call.read_small()
    try:
        return service_in(request)
    except ValueError as error:
        raise malformed(str(error)) from None


def _contexts(options: GrpcOptions) -> Callable[[], ssl.SSLContext]:
    with about_target(str(options)):
        return server_contexts(tls_of(options))
