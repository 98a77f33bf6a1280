"""The connection of a client that makes many calls: replaced when the server lets it end."""

from __future__ import annotations

import attrs
import trio

from trioxport._core.error_mapping import as_connect_error
from trioxport.abc import Scope
from trioxport.errors import ConnectTimeout
from trioxport.transports.grpc.channel import Channel, open_channel
from trioxport.transports.grpc.options import GrpcOptions


@attrs.define(eq=False)
class HeldChannel:
    """A connection, and the number of its calls.

    Attributes:
        calls: The calls on it.
        released: The event at which it is closed: no call is on it, and no further one begins.
    """

    channel: Channel
    calls: int = 0
    released: trio.Event = attrs.Factory(trio.Event)

    @property
    def is_usable(self) -> bool:
        """Whether a call can begin on it."""
        return self.channel.connection.failure is None


class ChannelPool:
    """The connection for new calls; earlier ones stay open until their calls are over.

    Args:
        options: The server.
        scope: The connection of the application.
        nursery: Runs a task for each connection.
    """

    def __init__(self, options: GrpcOptions, scope: Scope, nursery: trio.Nursery) -> None:
        self._options = options
        self._scope = scope
        self._nursery = nursery
        self._current: HeldChannel | None = None
        self._connecting = trio.Lock()

    async def take(self) -> HeldChannel:
        """A connection for one call, which has to be put back. Raises ``TransportError``."""
        async with self._connecting:
            held = self._current
            if held is None or not held.is_usable:
                self._retire()
                held = self._current = await self._connect()
            held.calls += 1
            return held

    def put_back(self, held: HeldChannel) -> None:
        """Note the end of a call."""
        held.calls -= 1
        if not held.calls and (held is not self._current or not held.is_usable):
            held.released.set()

    def close(self) -> None:
        """Let the connection end once it has no call."""
        self._retire()

    async def _connect(self) -> HeldChannel:
        settings = self._scope.settings
        with trio.move_on_after(settings.connect_timeout):
            try:
                held: HeldChannel = await self._nursery.start(self._hold)
            except Exception as error:
                failure = as_connect_error(error)
                failure.target = failure.target or settings.target
                raise failure from error
            return held
        raise ConnectTimeout(f"no connection within {settings.connect_timeout:g} s", target=settings.target)

    def _retire(self) -> None:
        held, self._current = self._current, None
        if held is not None and not held.calls:
            held.released.set()

    async def _hold(self, *, task_status: trio.TaskStatus[HeldChannel]) -> None:
        async with open_channel(self._options, self._scope.settings) as channel:
            self._scope.info.tls = channel.tls
            held = HeldChannel(channel)
            task_status.started(held)
            await held.released.wait()
