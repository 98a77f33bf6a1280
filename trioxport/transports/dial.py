"""Dial-out: a server behind NAT connects to a hub, and serves the hub over that connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trioxport._core.error_mapping import as_connect_error
from trioxport._core.nursery import failure_in
from trioxport._diagnostics import logger
from trioxport._diagnostics.validators import instance_of
from trioxport.abc import Acceptor, ClientFirstTransport, ConnectionSettings, FrameChannels, Scope, Transport
from trioxport.errors import ConnectionLost, TransportError, UsageError
from trioxport.targets import Target, describe, to_transport
from trioxport.transports.reconnecting import Reconnect
from trioxport.transports.reconnecting.policy import Budget


def _without_bound() -> Reconnect:
    return Reconnect(attempts=None)


@attrs.frozen
class Dial:
    """A listener that connects outward: ``serve_transport(handler, Dial("wss://hub.example/servers"))``.

    The hub accepts the connection as it accepts any, and then acts as the MCP client on it. Any transport of clients
    serves on which both sides may begin to speak. It listens once the first connection is open; a connection that ends,
    in order or not, is followed by the next.

    Args:
        target: The hub.
        policy: When and how to connect again; ``attempts`` without a connection in between, by default without bound.
            ``retry_first`` says whether that holds for the first connection too.
    """

    target: Target
    policy: Reconnect = attrs.field(
        factory=_without_bound,
        validator=instance_of(Reconnect, "a Reconnect(...)"),
        kw_only=True,
    )

    def __str__(self) -> str:
        return f"dial-out to {describe(self.target)}"

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        """Serve one connection after another. Raises the failure after which the policy makes no further attempt.

        Raises:
            UsageError: Only the client, which is this side, may begin to speak over the transport of the target.
        """
        transport = to_transport(self.target)
        if isinstance(transport, ClientFirstTransport) and transport.client_begins:
            raise UsageError(
                "a hub cannot be dialled over this transport, since only the client may begin to speak on it",
                target=settings.target,
                hint="Let the hub accept ws, wss, tcp, tls, unix, grpc, grpcs or redis",
            )
        budget = Budget(self.policy)
        has_listened = False

        def note_open() -> None:
            nonlocal has_listened
            if not has_listened:
                has_listened = True
                task_status.started([])

        while True:
            dialled = _Dialled(transport, note_open)
            failure = await _serve_once(acceptor, dialled, describe(self.target))
            budget.lost(received=dialled.opened_at is not None, open_seconds=dialled.open_seconds)
            delay = budget.delay(failure) if has_listened or self.policy.retry_first else None
            if delay is None:
                raise failure
            logger.warning("%s: %s; connecting again in %.1f s", settings.target, failure.reason, delay)
            await trio.sleep(delay)


async def _serve_once(acceptor: Acceptor, dialled: _Dialled, target: str) -> TransportError:
    """Serve one connection to its end. Returns the reason of the end; what a handler raises is logged."""
    try:
        await acceptor.serve_only(dialled)
    except BaseException as raised:
        error = failure_in(raised)
        if dialled.opened_at is None:
            return as_connect_error(error)
        if isinstance(error, TransportError):
            return ConnectionLost(error.reason, target=target)
        logger.error("the handler of a connection to %s failed, and the connection was closed", target, exc_info=error)
    return ConnectionLost("the connection to the hub has ended", target=target)


@attrs.define(eq=False)
class _Dialled:
    """One connection to the hub."""

    _transport: Transport
    _on_open: Callable[[], None]
    opened_at: float | None = None

    @property
    def open_seconds(self) -> float:
        """Seconds since it was opened."""
        return 0.0 if self.opened_at is None else trio.current_time() - self.opened_at

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with self._transport(scope) as channels:
            self.opened_at = trio.current_time()
            self._on_open()
            yield channels
