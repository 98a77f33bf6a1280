"""The times of one connection: silence, unfinished frames, slow writes, idleness. One task watches over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from trioxport.transports._http2.carrier import StreamCarrier
from trioxport.transports._http2.frame_reader import FrameReader

PING_DATA: Final = b"trioxprt"


class ConnectionWatch:
    """The watch over one connection.

    Args:
        carrier: The streams.
        reader: The frames that arrive.
        end: Ends the connection at once, with a reason.
        retire: Ends a connection that has been idle, in order.
    """

    def __init__(
        self,
        carrier: StreamCarrier,
        reader: FrameReader,
        end: Callable[[str], object],
        retire: Callable[[], object],
    ) -> None:
        self._carrier = carrier
        self._reader = reader
        self._end = end
        self._retire = retire
        now = trio.current_time()
        self._heard_at = now
        self._idle_since = now
        self._begun_at = now
        self._units = reader.units
        self._was_within = reader.is_within
        self._pinged_at: float | None = None

    def note_arrival(self, now: float) -> None:
        """Note that bytes have arrived, and were read."""
        self._heard_at = now
        if self._units != self._reader.units or not self._was_within:
            self._units = self._reader.units
            self._begun_at = now
        self._was_within = self._reader.is_within

    def note_idle(self) -> None:
        """Note that the last stream is over."""
        self._idle_since = trio.current_time()

    def ping(self) -> None:
        """Ping the peer, which has ``keepalive_timeout`` seconds to answer."""
        if self._pinged_at is None:
            self._pinged_at = trio.current_time()
            self._carrier.machine.ping(PING_DATA)
            self._carrier.outgoing.collect()

    def note_ping_answer(self) -> None:
        self._pinged_at = None

    async def run(self) -> None:
        """Watch until cancelled."""
        settings = self._carrier.settings
        shortest = min(settings.frame_timeout, settings.idle_timeout, settings.write_timeout, settings.keepalive)
        while True:
            due = min(self._deadlines(), key=lambda each: each[0])
            now = trio.current_time()
            if due[0] > now:
                await trio.sleep_until(min(due[0], now + shortest))
            else:
                due[1]()
                await trio.lowlevel.checkpoint()

    def _deadlines(self) -> list[tuple[float, Callable[[], object]]]:
        """The times at which something is to be done, and the thing to do."""
        settings = self._carrier.settings
        found: list[tuple[float, Callable[[], object]]] = []
        if self._pinged_at is not None:
            found.append((self._pinged_at + settings.keepalive_timeout, self._silent))
        elif self._carrier.streams or not self._carrier.is_client:
            found.append((self._heard_at + settings.keepalive, self.ping))
        if self._reader.is_within:
            found.append((self._begun_at + settings.frame_timeout, self._unfinished))
        if self._carrier.outgoing.writing_since is not None:
            found.append((self._carrier.outgoing.writing_since + settings.write_timeout, self._stuck))
        if not self._carrier.streams:
            found.append((self._idle_since + settings.idle_timeout, self._retire_once))
        return found

    def _silent(self) -> None:
        self._pinged_at = math.inf
        self._end(f"the peer did not answer a ping within {self._carrier.settings.keepalive_timeout:g} s")

    def _unfinished(self) -> None:
        self._begun_at = math.inf
        self._end(f"the peer did not finish a frame within {self._carrier.settings.frame_timeout:g} s")

    def _stuck(self) -> None:
        self._carrier.outgoing.writing_since = math.inf
        self._end(f"the peer took no data for {self._carrier.settings.write_timeout:g} s")

    def _retire_once(self) -> None:
        self._idle_since = math.inf
        self._retire()
