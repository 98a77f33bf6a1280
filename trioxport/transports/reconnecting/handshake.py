"""The legacy handshake: recorded as it passes, replayed on the next connection.

Specification 2025-11-25, basic/lifecycle, section Initialization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from trioxport._core.reissues import new_request_id
from trioxport._diagnostics import logger
from trioxport.abc import Scope
from trioxport.errors import ConnectError, DecodeError, ProtocolViolation, VersionMismatch
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, Response
from trioxport.metadata import metadata_of
from trioxport.protocol import INITIALIZE, INITIALIZED, members_of
from trioxport.transports.reconnecting.linked_connection import LinkedConnection

HANDSHAKE: Final = frozenset((INITIALIZE, INITIALIZED))


def encoded(message: Message, scope: Scope, headers: Mapping[str, str] | None = None) -> Frame:
    return Frame(scope.settings.codec.encode(message), message, headers or metadata_of(message).get("headers"))


def message_of(frame: Frame, scope: Scope) -> Message | None:
    """Return a frame's message, or None if it holds none. The message is stored in the frame, to be decoded once."""
    if frame.message is None and frame.error is None and len(frame.payload) <= scope.settings.limits.max_message_size:
        try:
            frame.message = scope.settings.codec.decode(frame.payload)
        except (DecodeError, ProtocolViolation):
            return None  # the channels above decode it again, and report the error
    return frame.message


class Handshake:
    """The handshake between the application and its server.

    Attributes:
        pending: An ``initialize`` request that is not answered yet.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.pending: Request | None = None
        self._request: Request | None = None
        self._version: Any = None
        self._initialized: Notification | None = None

    # Recording.

    def sending(self, frame: Frame) -> None:
        """Record a message of the handshake (``HANDSHAKE``) that is about to be sent."""
        message = frame.message
        if isinstance(message, Notification):
            self._initialized = message
        elif isinstance(message, Request):
            if message_of(Frame(frame.payload), self._scope) is None:
                logger.warning(
                    "%s: a frame layer stands between the codec and the reconnecting transport, which therefore cannot "
                    "repeat the handshake; open_transport(reconnect=...) has them the other way round",
                    self._scope.settings.target,
                )
                return
            self.pending = message

    def received(self, answer: Message | None) -> None:
        """Record the answer to the pending ``initialize``, if ``answer`` is that."""
        if self.pending is None or not _answers(answer, self.pending):
            return
        if isinstance(answer, Response):
            self._request = self.pending
            self._version = members_of(answer.result).get("protocolVersion")
            self._initialized = None
        self.pending = None

    # Replaying.

    async def replay(self, connection: LinkedConnection, keep: Callable[[Frame], None]) -> None:
        """Replay the recorded handshake, if any, on a new connection.

        Args:
            connection: The new connection.
            keep: Called with each frame that arrives before the answer.

        Raises:
            VersionMismatch: The server agrees to another version than before.
            ConnectError: The server refuses ``initialize``.
            TransportError: The request is not delivered.
        """
        self.pending = None
        if self._request is None:
            return
        request = attrs.evolve(self._request, id=new_request_id())
        await connection.send_first(encoded(request, self._scope))
        while True:
            frame = await connection.receive_first()
            if frame.error is not None and isinstance(frame.message, Request) and frame.message.id == request.id:
                raise frame.error
            answer = message_of(frame, self._scope)
            if _answers(answer, request):
                break
            keep(frame)
        self._check(answer)
        if self._initialized is not None:
            await connection.send_first(encoded(self._initialized, self._scope))

    def _check(self, answer: Message | None) -> None:
        if isinstance(answer, ErrorResponse):
            raise ConnectError(
                f"the server refused the repeated initialize: {answer.message} (code {answer.code})",
                hint="Look at the server's log",
            )
        version = members_of(answer.result).get("protocolVersion") if isinstance(answer, Response) else None
        if version != self._version:
            raise VersionMismatch(
                f"the server agreed to version {self._version} before, and to {version} when initialize was repeated",
                hint="Open a new connection",
            )


def _answers(message: Message | None, request: Request) -> bool:
    return isinstance(message, Response | ErrorResponse) and message.id == request.id
