"""The connection that ``open_transport`` yields and a server's handler gets."""

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
        discarded: The number of received things that were skipped, by the name of the error; ``"late"`` counts answers
            to cancelled requests.
    """

    discarded: Mapping[str, int]


class Connection(tuple[SendChannel[Message], ReceiveChannel[Incoming]]):
    """An open connection; it unpacks as ``(tx, rx)``.

    ``tx.send`` accepts a message or raises: :class:`~trioxport.ConnectionLost` if the connection is gone,
    :class:`~trioxport.MessageTooLarge`, :class:`~trioxport.UsageError` for a message that cannot be encoded, and
    ``trio.ClosedResourceError`` after ``tx.aclose()``. ``rx.receive`` is cancel-safe; after the last message it raises
    ``trio.EndOfChannel`` if the peer has ended in order, and ``ConnectionLost`` otherwise. Both channels may be used
    and closed from any task; closing ``tx`` is a half-close.
    """

    _supervisor: Supervisor

    def __new__(cls, channels: MessageChannels, supervisor: Supervisor) -> Self:
        connection = super().__new__(cls, (channels.send, channels.receive))
        connection._supervisor = supervisor
        return connection

    @property
    def tx(self) -> SendChannel[Message]:
        """The channel of messages to the peer."""
        return self[0]

    @property
    def rx(self) -> ReceiveChannel[Incoming]:
        """The channel of messages from the peer."""
        return self[1]

    @property
    def info(self) -> ConnectionInfo:
        """The known facts about the connection and its peer."""
        return self._supervisor.info

    @property
    def state(self) -> State:
        """``"open"``, ``"closing"``, ``"closed"`` or ``"failed"``; with ``reconnect`` also ``"waiting"`` for the next
        attempt, or ``"connecting"``."""
        return self._supervisor.state

    def state_changes(self) -> AsyncIterator[State]:
        """The state now and after each change, for any number of readers: ``async for state in ...``.

        The iterator ends after ``"closed"`` or ``"failed"``. A reader that is late gets the latest state only.
        """
        return StateChanges(self._supervisor)

    @property
    def unanswered(self) -> TransportError | None:
        """The error of requests that an orderly end of the peer leaves unanswered; None if the transport gives none."""
        return self._supervisor.unanswered

    @property
    def scope(self) -> Scope:
        """The part of this connection that layers and transports see."""
        return self._supervisor

    def statistics(self) -> Statistics:
        """The counts so far."""
        return Statistics(dict(self._supervisor.discarded))

    async def aclose(self) -> None:
        """Flush and close within ``close_timeout``, from any task; closing twice is fine.

        Cancelled, it closes at once. Raises a failure of the connection that neither ``tx`` nor ``rx`` has raised.
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
