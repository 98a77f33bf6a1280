"""The application's channels, which outlast the connections behind them.

They call the channels of the current connection directly, without a task or a buffer in between.
"""

from __future__ import annotations

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.ending import SelfEnding
from trioxport.errors import TransportError
from trioxport.frames import Frame
from trioxport.messages import Request
from trioxport.transports.reconnecting.state import ReconnectState


class LastingSend(SelfEnding, SendChannel[Frame]):
    """Sends on the current connection, or waits for the next."""

    def __init__(self, state: ReconnectState) -> None:
        self._state = state

    async def send(self, value: Frame) -> None:
        state = self._state
        message = value.message
        deadline: float | None = None
        while True:
            if type(message) is not Request and state.peer_requests.is_stale(message):
                return await trio.lowlevel.checkpoint()
            connection = state.writing
            if connection is None or connection.supervisor.failure is not None:
                if deadline is None:
                    deadline = trio.current_time() + state.policy.send_timeout
                await state.wait_to_send(message, deadline)
                continue
            frame = state.sending(value)
            connection.senders += 1
            try:
                await connection.send(frame)
                if type(message) is not Request:
                    state.sent(message)
                return None
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                if state.send_closed or isinstance(error, TransportError):
                    raise
                if state.writing is connection:
                    state.writing = None
                connection.fail()
            finally:
                connection.senders -= 1
                if connection.failing:
                    connection.released.notify()

    async def aclose(self) -> None:
        state = self._state
        state.send_closed = True
        state.reopening.cancel()
        state.changed.notify()
        if state.writing is None:
            await trio.lowlevel.checkpoint()
        else:
            await state.writing.channels.send.aclose()


class LastingReceive(SelfEnding, ReceiveChannel[Frame]):
    """Receives the frames left over from lost connections, then those of the current connection."""

    def __init__(self, state: ReconnectState) -> None:
        self._state = state

    async def receive(self) -> Frame:
        state = self._state
        while True:
            connection = state.reading
            if connection is None or state.inbox:
                kept = await state.next_kept()
                if kept is not None:
                    return kept
                continue
            connection.receivers += 1
            try:
                frame = await connection.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                if state.receive_closed:
                    raise trio.ClosedResourceError from None
                if state.reading is connection:
                    state.reading = None
                connection.fail()
                continue
            finally:
                connection.receivers -= 1
                if connection.failing:
                    connection.released.notify()
            known = state.received(frame, connection)
            if known is not None:
                return known

    async def aclose(self) -> None:
        state = self._state
        state.receive_closed = True
        state.inbox.clear()
        state.changed.notify()
        if state.reading is None:
            await trio.lowlevel.checkpoint()
        else:
            await state.reading.channels.receive.aclose()
