"""The application's channels, which outlive the connections behind them.

The way from them to the connection of the moment is a call: there is no task and no buffer in between.
"""

from __future__ import annotations

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.ending import SelfEnding
from trioxport.errors import TransportError
from trioxport.frames import Frame
from trioxport.messages import Request
from trioxport.transports.reconnecting.switch import ReconnectState


class LastingSend(SelfEnding, SendChannel[Frame]):
    """Sends on the connection of the moment, or waits for the next."""

    def __init__(self, switch: ReconnectState) -> None:
        self._switch = switch

    async def send(self, value: Frame) -> None:
        switch = self._switch
        message = value.message
        deadline: float | None = None
        while True:
            if type(message) is not Request and switch.asked.is_stale(message):
                return await trio.lowlevel.checkpoint()
            link = switch.writing
            if link is None or link.supervisor.failure is not None:
                if deadline is None:
                    deadline = trio.current_time() + switch.policy.send_timeout
                await switch.wait_to_send(message, deadline)
                continue
            frame = switch.sending(value)
            link.senders += 1
            try:
                await link.send(frame)
                if type(message) is not Request:
                    switch.sent(message)
                return None
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                if switch.half_closed or isinstance(error, TransportError):
                    raise
                if switch.writing is link:
                    switch.writing = None
                link.fail()
            finally:
                link.senders -= 1
                if link.failing:
                    link.released.notify()

    async def aclose(self) -> None:
        switch = self._switch
        switch.half_closed = True
        switch.reopening.cancel()
        switch.changed.notify()
        if switch.writing is None:
            await trio.lowlevel.checkpoint()
        else:
            await switch.writing.channels.send.aclose()


class LastingReceive(SelfEnding, ReceiveChannel[Frame]):
    """Receives what is left of lost connections, then from the connection of the moment."""

    def __init__(self, switch: ReconnectState) -> None:
        self._switch = switch

    async def receive(self) -> Frame:
        switch = self._switch
        while True:
            link = switch.reading
            if link is None or switch.inbox:
                kept = await switch.next_kept()
                if kept is not None:
                    return kept
                continue
            link.receivers += 1
            try:
                frame = await link.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                if switch.deaf:
                    raise trio.ClosedResourceError from None
                if switch.reading is link:
                    switch.reading = None
                link.fail()
                continue
            finally:
                link.receivers -= 1
                if link.failing:
                    link.released.notify()
            known = switch.received(frame, link)
            if known is not None:
                return known

    async def aclose(self) -> None:
        switch = self._switch
        switch.deaf = True
        switch.inbox.clear()
        switch.changed.notify()
        if switch.reading is None:
            await trio.lowlevel.checkpoint()
        else:
            await switch.reading.channels.receive.aclose()
