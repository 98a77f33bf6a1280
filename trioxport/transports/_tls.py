"""TLS over a Trio stream, with the half-close that ``trio.SSLStream`` does not have.

The ``ssl`` module closes in one step, ``unwrap``, which fails if data of the peer arrives after this side's
close_notify. Over memory buffers the step can be divided: data that has arrived is read first, so that ``unwrap`` finds
none, writes the close_notify and asks to wait; reading then goes on as before (RFC 8446, section 6.1).
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

Result = TypeVar("Result")

RECEIVE_BYTES: Final = 64 * 1024
NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""OpenSSL's reasons for a peer whose first bytes are no TLS."""


class TLSStream:
    """One TLS connection over ``wire``, which stays the caller's to close.

    A write that was cancelled may have been cut off within a record: the stream then raises
    ``trio.BrokenResourceError`` for every further write, and can still be read.

    Args:
        wire: The stream underneath.
        context: Trust and certificates.
        server_hostname: The host that the server's certificate has to be for, on a client; None on a server.
    """

    def __init__(self, wire: trio.SocketStream, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self._wire = wire
        self.is_server = server_hostname is None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=self.is_server, server_hostname=server_hostname
        )
        self._early: deque[bytes] = deque()
        self._write_lock = trio.Lock()
        self._ended = False
        self._torn = False

    @property
    def version(self) -> str | None:
        """The version in use, as ``"TLSv1.3"``; None before the handshake is done."""
        return self._tls.version()

    @property
    def protocol(self) -> str | None:
        """The protocol that ALPN has chosen, as ``"h2"``; None if there is none."""
        return self._tls.selected_alpn_protocol()

    async def do_handshake(self) -> None:
        """Shake hands. Raises ``ssl.SSLError``, or ``trio.BrokenResourceError`` if the peer goes away."""
        try:
            while not self._attempt(self._tls.do_handshake):
                await self._flush()
                if not await self._fill():
                    raise trio.BrokenResourceError("the peer went away during the handshake")
        finally:
            with suppress(trio.BrokenResourceError):  # the first failure is the one to report
                await self._flush()  # if the handshake failed, an alert with the reason

    async def send_all(self, data: bytes) -> None:
        if data:  # the ssl module takes nothing for the end
            self._translate(self._tls.write, data)
        await self._flush()

    async def send_eof(self) -> None:
        """Send the close_notify; what has arrived before can still be received."""
        while chunk := self._read():
            self._early.append(chunk)
        self._attempt(self._tls.unwrap)
        await self._flush()

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._early or not self._ended:
            data = self._early.popleft() if self._early else self._read()
            if data:
                await trio.lowlevel.cancel_shielded_checkpoint()  # or a cancellation would lose it
                return data
            if not (self._write_lock.locked() or self._torn):  # a peer may have to read before a write can go on
                await self._flush()
            if self._ended:  # found by send_eof meanwhile
                continue
            if not await self._fill():
                raise trio.BrokenResourceError("the TLS stream ended without a close_notify")
        return b""

    async def take_in(self) -> bool:
        """Take the records that arrived on an idle connection; False for application data, or the end of the stream."""
        try:
            return await self._fill() and not self._read() and not self._ended
        except trio.BrokenResourceError:
            return False

    def _read(self) -> bytes:
        """The data that has arrived; empty without any, and at the peer's close_notify, which sets ``_ended``."""
        try:
            data = self._translate(self._tls.read, RECEIVE_BYTES)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:  # the peer's close_notify, after this side's own
            data = b""
        self._ended = not data
        return data

    def _attempt(self, step: Callable[[], object]) -> bool:
        """Whether a step of the TLS state machine is done; if not, it needs data from the peer."""
        try:
            step()
        except ssl.SSLWantReadError:
            return False
        return True

    def _translate(self, step: Callable[..., Result], *args: object) -> Result:
        try:
            return step(*args)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(f"the TLS stream broke: {tls_reason(error)}") from error

    async def _flush(self) -> None:
        async with self._write_lock:
            while data := self._outgoing.read():
                if self._torn:
                    raise trio.BrokenResourceError("an earlier write was cut off")
                self._torn = True
                await self._wire.send_all(data)
                self._torn = False

    async def _fill(self) -> bool:
        """Wait for data from the peer; False at the end of the stream underneath."""
        data = await self._wire.receive_some(RECEIVE_BYTES)
        self._incoming.write(data)
        return bool(data)


def tls_reason(error: ssl.SSLError) -> str:
    """The reason of a failure in the words of the ssl module, without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or str(error)).replace("_", " ").lower()
