"""What ``open_transport`` yields and a server's handler gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Self

import attrs
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.states import State, StateChanges
from trioxport._core.supervisor import Supervisor
from trioxport.abc import ConnectionInfo, MessageChannels, Scope
from trioxport.errors import TransportError
from trioxport.messages import Incoming, Message


@attrs.frozen
class Statistics:
    """Counts of one connection.

    Args:
        discarded: How many received things were skipped, by the name of the error that says why; ``"late"`` are answers
            to requests that had been cancelled.
    """

    discarded: Mapping[str, int]


class Connection(tuple[SendChannel[Message], ReceiveChannel[Incoming]]):
    """An open connection; it unpacks as ``(tx, rx)``.

    ``tx.send`` accepts a message or raises: :class:`~trioxport.ConnectionLost` if the connection is gone,
    :class:`~trioxport.MessageTooLarge`, :class:`~trioxport.UsageError` for what cannot be encoded, and
    ``trio.ClosedResourceError`` after ``tx.aclose()``. ``rx.receive`` is cancel-safe; it raises ``trio.EndOfChannel``
    when the peer is done, or ``ConnectionLost`` after everything that had arrived. Both sides may be used and closed
    from any task; closing ``tx`` is a half-close.
    """

    _supervisor: Supervisor

    def __new__(cls, channels: MessageChannels, supervisor: Supervisor) -> Self:
        connection = super().__new__(cls, (channels.send, channels.receive))
        connection._supervisor = supervisor
        return connection

    @property
    def tx(self) -> SendChannel[Message]:
        """Where messages are sent."""
        return self[0]

    @property
    def rx(self) -> ReceiveChannel[Incoming]:
        """Where messages arrive."""
        return self[1]

    @property
    def info(self) -> ConnectionInfo:
        """What is known of the connection and its peer."""
        return self._supervisor.info

    @property
    def state(self) -> State:
        """``"open"``, ``"closing"``, ``"closed"`` or ``"failed"``; with ``reconnect`` also ``"waiting"`` for the next
        attempt, or ``"connecting"``."""
        return self._supervisor.state

    def state_changes(self) -> AsyncIterator[State]:
        """The state now and after each change, for any number of readers: ``async for state in …``.

        It ends after ``"closed"`` or ``"failed"``. A reader that is late gets the latest state only.
        """
        return StateChanges(self._supervisor)

    @property
    def unanswered(self) -> TransportError | None:
        """Why the peer, which ended in order, answers no more; None if its transport does not say."""
        return self._supervisor.unanswered

    @property
    def scope(self) -> Scope:
        """What layers and transports see of this connection."""
        return self._supervisor

    def statistics(self) -> Statistics:
        """The counts up to now."""
        return Statistics(dict(self._supervisor.discarded))

    async def aclose(self) -> None:
        """Flush and close within ``close_timeout``, from any task; closing twice is fine.

        Cancelled, it closes at once. Raises the connection's failure if nobody saw it at ``tx`` or ``rx``.
        """
        supervisor = self._supervisor
        await supervisor.close(self.tx, self.rx)
        if supervisor.failure is not None and not supervisor.failure_seen:
            supervisor.failure_seen = True
            raise supervisor.failure

    def __repr__(self) -> str:
        return f"<Connection {self.info.target} {self.state}>"

    __eq__ = object.__eq__
    __hash__ = object.__hash__
