"""One connection in the sequence that the lasting channels use."""

from __future__ import annotations

import trio

from trioxport._core.states import Signal
from trioxport._core.supervisor import Supervisor
from trioxport.abc import FrameChannels
from trioxport.errors import ConnectionLost, TransportError
from trioxport.frames import Frame


class LinkedConnection:
    """One connection, and the number of tasks that use its channels.

    Attributes:
        received: Whether a message has arrived.
        failing: Whether one of its channels has ended or broken.
        senders: The number of tasks that are sending.
        receivers: The number of the application's tasks that are receiving.
        released: Set when a task stops using a failing connection.
    """

    def __init__(self, supervisor: Supervisor, channels: FrameChannels) -> None:
        self.supervisor = supervisor
        self.channels = channels
        self.send = channels.send.send
        self.receive = channels.receive.receive
        self.received = False
        self.failing = False
        self.senders = 0
        self.receivers = 0
        self.released = Signal()
        self._opened_at = trio.current_time()

    @property
    def age(self) -> float:
        """Seconds since the connection was opened."""
        return trio.current_time() - self._opened_at

    def fail(self) -> None:
        self.failing = True
        self.supervisor.changed.notify()

    async def wait_for_end(self, *, at_peers_end: bool) -> None:
        """Wait until the connection fails, is lost or closed; with ``at_peers_end``, also until the peer is done."""
        supervisor = self.supervisor
        while not self.failing and supervisor.state == "open" and not (at_peers_end and supervisor.peer_is_done):
            await supervisor.changed.wait()
        self.failing = True

    async def finished(self) -> None:
        """Wait until the connection is lost or closed."""
        while self.supervisor.state == "open":
            await self.supervisor.changed.wait()

    async def no_senders(self) -> None:
        """Wait until no task is sending: then each message is either accepted or not."""
        while self.senders:
            await self.released.wait()

    async def send_first(self, frame: Frame) -> None:
        """Send before the application may. Raises the ``TransportError`` of a failed connection."""
        try:
            await self.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise await self.failure() from None

    async def receive_first(self) -> Frame:
        """Receive before the application may. Raises the ``TransportError`` of a failed connection."""
        try:
            return await self.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise await self.failure() from None

    async def failure(self) -> TransportError:
        return await self.supervisor.verdict() or ConnectionLost("the peer ended the connection")

    async def close(self) -> None:
        await self.supervisor.close(self.channels.send, self.channels.receive)
