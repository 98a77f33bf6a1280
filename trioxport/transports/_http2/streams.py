"""One stream: a request and its response, each with headers, data and trailers (RFC 9113, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import trio

from trioxport.errors import Outcome
from trioxport.transports._http2.errors import ErrorCodes, Http2Error
from trioxport.transports._http_heads import Fields


class Http2Wire(Protocol):
    """The connection, as far as its streams use it."""

    is_client: bool

    def send_headers(self, stream: Http2Stream, fields: Fields, *, end_stream: bool) -> None: ...
    async def send_data(self, stream: Http2Stream, data: bytes, *, end_stream: bool) -> None: ...
    def send_data_now(self, stream: Http2Stream, data: bytes, *, more: bool) -> bool: ...
    def fail(self, stream: Http2Stream, code: int, reason: str) -> None: ...
    def note_received(self, stream_id: int, size: int) -> None: ...
    def note_over(self, stream: Http2Stream) -> None: ...


class Http2Stream:
    """One stream of a connection. One task at a time receives, one sends.

    Every method that waits raises ``StreamReset`` or ``ConnectionEnded`` once the stream has failed; what arrived
    before can be received first.

    Attributes:
        id: The number of the stream.
        headers: The header of the request on a server; of the response on a client, empty until it arrives.
        status: The status of the response, on a client.
        trailers: The trailers of the peer; empty if there are none, or before the end.
        failure: The failure, once the stream has failed.
        has_ended: Whether the peer has sent its end.
        has_sent_end: Whether this side has sent its end.
        is_sent: Whether the beginning of the request may have left this process, on a client.
        body_left: Bytes of the peer's body that are announced and have not come yet; None if unknown.
        is_counted: Whether it is one of the streams that are not over.
        is_released: Whether the application is done with the stream.
        awaits_turn: Whether a task waits for room in the connection to send data.
        take_now: Takes data as it arrives, and returns True, or False if :meth:`receive_data` has to return it; it is
            called when no data waits. None if the application has no use for it.
    """

    __slots__ = (
        "_arrived",
        "_data",
        "_scopes",
        "_wire",
        "_writable",
        "awaits_turn",
        "body_left",
        "failure",
        "has_ended",
        "has_sent_end",
        "headers",
        "id",
        "is_counted",
        "is_released",
        "is_sent",
        "status",
        "take_now",
        "trailers",
    )

    def __init__(self, wire: Http2Wire, stream_id: int, headers: Fields = ()) -> None:
        self.id = stream_id
        self.headers = headers
        self.status = 0
        self.trailers: Fields = ()
        self.failure: Http2Error | None = None
        self.has_ended = self.has_sent_end = self.is_sent = self.is_released = self.awaits_turn = False
        self.is_counted = True
        self.body_left: int | None = None
        self.take_now: Callable[[bytes], bool] | None = None
        self._wire = wire
        self._data: bytes | bytearray = b""
        self._arrived: trio.lowlevel.ParkingLot | None = None
        self._writable: trio.lowlevel.ParkingLot | None = None
        self._scopes: set[trio.CancelScope] | None = None

    @property
    def is_received(self) -> bool:
        """Whether the application has received everything that the peer sends."""
        return self.has_ended and not self._data

    @property
    def has_arrived(self) -> bool:
        """Whether :meth:`receive_data` returns without waiting for the peer."""
        return bool(self._data) or self.has_ended

    @property
    def is_over(self) -> bool:
        """Whether both sides have ended, or the stream has failed."""
        return self.failure is not None or (self.has_ended and self.has_sent_end)

    # Receiving.

    async def response_head(self) -> Fields:
        """Wait for the header of the response, on a client; :attr:`status` is set then."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.status:
            self.raise_failure()
            await self._until_arrival()
        return self.headers

    async def receive_data(self) -> bytes:
        """Return the data that has arrived, at least a byte; ``b""`` at the end. Cancelled, it loses nothing.

        What it returns is given back to the peer's window, so that a peer sends no faster than the data is received.
        At the end it lets no other task run.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.is_received:
            return b""
        if self._data:
            await trio.lowlevel.checkpoint()
        while not self._data:
            if self.has_ended:
                return b""
            self.raise_failure()
            await self._until_arrival()
        data, self._data = self._data, b""
        self._wire.note_received(self.id, len(data))
        return bytes(data)

    async def _until_arrival(self) -> None:
        if self._arrived is None:
            self._arrived = trio.lowlevel.ParkingLot()
        await self._arrived.park()

    def raise_failure(self) -> None:
        """Raise the failure, if the stream has failed."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    # Sending.

    async def send_headers(self, fields: Fields, *, end_stream: bool = False) -> None:
        """Send the header of the response, on a server. Names are in lower case, and ``:status`` is the first.

        No other task runs meanwhile, so that the data that follows at once is written together with it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.raise_failure()
        self._wire.send_headers(self, fields, end_stream=end_stream)

    async def send_data(self, data: bytes, *, end_stream: bool = False) -> None:
        """Send data, as the peer makes room for it.

        It returns once the data is on its way, not written yet; other tasks run only if it waits for room, of which
        the buffer of the connection has little. Cancelled before any of it was, nothing is sent; after that the stream
        is reset with ``CANCEL``. If the peer makes no room within ``write_timeout``, likewise.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.raise_failure()
        await self._wire.send_data(self, data, end_stream=end_stream)

    def send_data_now(self, data: bytes, *, more: bool = False) -> bool:
        """Send data without waiting, and return whether it was sent; if not, :meth:`send_data` says why or waits.

        If ``more`` is likely to follow, it is written together with what follows within a few turns of the scheduler.
        """
        return self.failure is None and not self.has_sent_end and self._wire.send_data_now(self, data, more=more)

    async def send_trailers(self, fields: Fields) -> None:
        """Send trailers, which end this side of the stream."""
        await trio.lowlevel.checkpoint()
        self.raise_failure()
        self._wire.send_headers(self, fields, end_stream=True)

    async def until_writable(self) -> None:
        """Wait for a change of the peer's window for this stream."""
        if self._writable is None:
            self._writable = trio.lowlevel.ParkingLot()
        await self._writable.park()

    # The end.

    def reset(self, code: int = ErrorCodes.CANCEL) -> None:
        """End the stream at once; a stream that is over stays as it is."""
        self._wire.fail(self, code, "this side has reset the stream")

    def close(self) -> None:
        """Reset the stream unless it is over, and forget data that was not received. May be called twice."""
        is_answered = self.has_sent_end and not self._wire.is_client  # it needs no more of the request (section 8.1)
        self.reset(ErrorCodes.NO_ERROR if is_answered else ErrorCodes.CANCEL)
        self.take_now = None
        data, self._data = self._data, b""
        self._wire.note_received(self.id, len(data))
        if not self.is_released:
            self.is_released = True
            self._wire.note_over(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def gone(self) -> None:
        """Wait until the stream fails: the peer has reset it, or the connection has ended."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.failure is None:
            await self._until_arrival()

    def cancel_on_failure(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the stream fails, as a handler is when its client resets the request."""
        if self.failure is not None:
            scope.cancel()
        else:
            self._scopes = self._scopes or set()
            self._scopes.add(scope)

    # Events of the connection.

    def note_header(self, status: int, fields: Fields) -> None:
        self.status, self.headers = status, fields
        self.wake()

    def note_data(self, data: bytes) -> None:
        if not self._data:
            if self.take_now is not None and self.take_now(data):
                self._wire.note_received(self.id, len(data))
                return
            self._data = data
        elif isinstance(self._data, bytearray):
            self._data += data
        else:  # one buffer for many frames of few bytes
            self._data = bytearray(self._data) + data
        self.wake()

    def note_end(self) -> None:
        self.has_ended = True
        self.wake()
        self.wake_sender()

    def fail(self, failure: Http2Error) -> None:
        """Note the failure; the first one counts."""
        if self.failure is None:
            self.failure = failure
            self.wake()
            self.wake_sender()
            for scope in self._scopes or ():
                scope.cancel()

    def wake(self) -> None:
        if self._arrived is not None:
            self._arrived.unpark_all()

    def wake_sender(self) -> None:
        if self._writable is not None:
            self._writable.unpark_all()


def outcome_of(code: int, stream: Http2Stream) -> Outcome:
    """The outcome of a request whose stream the peer has reset (section 8.7)."""
    return "not_sent" if code == ErrorCodes.REFUSED_STREAM or not stream.is_sent else "unknown"
