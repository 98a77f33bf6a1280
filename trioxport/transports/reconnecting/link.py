"""One of the connections that follow each other."""

from __future__ import annotations

import trio

from trioxport._core.events import Signal
from trioxport._core.supervisor import Supervisor
from trioxport.abc import FrameChannels
from trioxport.errors import ConnectionLost, TransportError
from trioxport.frames import Frame


class LinkedConnection:
    """One connection, and who uses its channels.

    Attributes:
        heard: Whether it brought a message.
        failing: Whether one of its channels has ended, or broke.
        senders: Tasks that are sending.
        receivers: Tasks of the application that are receiving.
        released: Told when there is one less of them and the link is failing.
    """

    def __init__(self, supervisor: Supervisor, channels: FrameChannels) -> None:
        self.supervisor = supervisor
        self.channels = channels
        self.send = channels.send.send
        self.receive = channels.receive.receive
        self.heard = False
        self.failing = False
        self.senders = 0
        self.receivers = 0
        self.released = Signal()
        self._opened_at = trio.current_time()

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return trio.current_time() - self._opened_at

    def fail(self) -> None:
        self.failing = True
        self.supervisor.changed.notify()

    async def ending(self, *, at_peers_end: bool) -> None:
        """Wait until it fails, is lost or over, or, if that counts, until the peer is done."""
        supervisor = self.supervisor
        while not self.failing and supervisor.state == "open" and not (at_peers_end and supervisor.peer_is_done):
            await supervisor.changed.wait()
        self.failing = True

    async def over(self) -> None:
        """Wait until it is lost or over."""
        while self.supervisor.state == "open":
            await self.supervisor.changed.wait()

    async def unused(self) -> None:
        """Wait until nobody is sending: then each message is either accepted, or is not."""
        while self.senders:
            await self.released.wait()

    async def say(self, frame: Frame) -> None:
        """Send, before the application may. Raises the ``TransportError`` if the link fails."""
        try:
            await self.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise await self.why() from None

    async def hear(self) -> Frame:
        """Receive, before the application may. Raises the ``TransportError`` if the link fails."""
        try:
            return await self.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise await self.why() from None

    async def why(self) -> TransportError:
        return await self.supervisor.verdict() or ConnectionLost("the peer ended the connection")

    async def close(self) -> None:
        await self.supervisor.close(self.channels.send, self.channels.receive)
