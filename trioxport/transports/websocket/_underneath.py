"""The stream that is put under trio-websocket: it adds what that library leaves out, and costs it less.

- The closing handshake. The library ends both directions with the first close frame, whoever sent it; RFC 6455 lets the
  other side finish what it is at (section 5.5.1). So close frames pass it by, in both directions.
- Bounds. A message that is announced too large ends the connection before it is read, and so does a handshake.
- What is written goes out together, and what has arrived is read together.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from trioxport._states import LazyEvent
from trioxport.framing.websocket import CLOSE, NO_CODE, CloseReason, Violation, close_payload, frame
from trioxport.framing.websocket_boundaries import Boundaries
from trioxport.transports._prompt import PromptSocket
from trioxport.transports.bytestream import ByteStream

KEY: Final = 4
PROMPT: Final = 16 * 1024
"""Bytes up to which a write may be tried without waiting."""
BACKLOG: Final = 64
"""Writes that may wait behind one that is going on."""

Opening: TypeAlias = Callable[[], Awaitable[tuple[bytes, bytes]]]
"""Reads the peer's part of the opening handshake; returns it, and what was read beyond."""


class Underneath(trio.abc.Stream):
    """A stream of one WebSocket from its opening handshake on. Closing it is left to whoever made it.

    Args:
        inner: What it is spoken over.
        opening: Reads the peer's part of the opening handshake.
        max_size: Bytes of a message that is within the limits.
        client: Whether this side is the client.

    Attributes:
        inner: The same.
        agreed: To be set once the opening handshake is done.
        boundaries: Where the frames of the peer are.
        end: What the peer's end was, once the library has read everything before it.
        on_end: Called then.
        failure: What broke it.
        reading: Whether the library waits for the peer.
        heard: When the peer last sent anything.
        held: Whether what is written is kept for the next ``flush``.
        close_sent: Whether this side has said that it sends no more.
        torn: Whether a write was given up in the middle.
        used: Whether anything was written.
    """

    def __init__(
        self,
        inner: ByteStream,
        opening: Opening,
        max_size: int,
        *,
        client: bool,
    ) -> None:
        self.inner = PromptSocket(inner) if isinstance(inner, trio.SocketStream) else inner
        self.agreed = LazyEvent()
        self.boundaries = Boundaries(max_size, masked=not client)
        self.end: CloseReason | Violation | None = None
        self.on_end: Callable[[], object] | None = None
        self.failure: Exception | None = None
        self.reading = False
        self.heard = trio.current_time()
        self.held = False
        self.close_sent = False
        self.torn = False
        self.used = False
        self._opening: Opening | None = opening
        self._early = b""
        self._client = client
        self._closed = False
        self._writing = trio.Lock()
        self._waiting: list[bytes] = []

    # Sending.

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.close_sent:
            return
        self.used = True
        self._waiting.append(bytes(data))
        if not (self.held or (self.writing and len(self._waiting) <= BACKLOG)):
            await self.flush()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def writing(self) -> bool:
        """Whether a write is going on."""
        return self._writing.locked()

    async def flush(self) -> None:
        """Write what waits, and wait for what is being written."""
        if not self._waiting and not self._writing.locked():
            return
        try:
            self._writing.acquire_nowait()  # which is no checkpoint; the library has had one
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            while self._waiting:
                data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
                self._waiting = []
                await self._write(data)
        except BaseException:
            self.torn = True
            raise
        finally:
            self._writing.release()

    async def _write(self, data: bytes) -> None:
        sent = 0
        if len(data) <= PROMPT and isinstance(self.inner, PromptSocket):
            sent = self.inner.send_now(data)
        if sent < len(data):
            await self.inner.send_all(data[sent:])

    async def send_close(self, code: int, reason: str = "") -> None:
        """Tell the peer that no more comes; from then on nothing is written."""
        if self.close_sent:
            return
        payload = b"" if code == NO_CODE else close_payload(code, reason)
        self._waiting += frame(CLOSE, payload, os.urandom(KEY) if self._client else None)
        self.close_sent = True
        await self.flush()

    # Receiving.

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        if self._opening is not None:
            opening, self._opening = self._opening, None
            head, self._early = await opening()
            return head
        if not self.agreed.is_set():  # until then the library takes everything for HTTP
            await self.agreed.wait()
        try:
            while self.boundaries.end is None:
                data, self._early = self._early or await self._read(), b""
                if not data or (data := self.boundaries.feed(data)):
                    return data
        except Exception as error:
            self.failure = error
            raise
        self.end = self.boundaries.end
        if self.on_end is not None:
            self.on_end()
        return await trio.sleep_forever()

    async def _read(self) -> bytes:
        self.reading = True
        data = bytes(await self.inner.receive_some())
        self.reading = False
        self.heard = trio.current_time()
        if not data:
            self.failure = trio.BrokenResourceError("the peer ended it without a close frame")
        return data

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()
