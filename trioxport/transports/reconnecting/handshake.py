"""The legacy handshake, noted as it passes and repeated on the next connection.

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
from trioxport.transports.reconnecting.link import LinkedConnection

HANDSHAKE: Final = frozenset((INITIALIZE, INITIALIZED))


def encoded(message: Message, scope: Scope, headers: Mapping[str, str] | None = None) -> Frame:
    return Frame(scope.settings.codec.encode(message), message, headers or metadata_of(message).get("headers"))


def message_of(frame: Frame, scope: Scope) -> Message | None:
    """A frame's message, which is noted in it, so that nobody decodes it again; None if it holds none."""
    if frame.message is None and frame.error is None and len(frame.payload) <= scope.settings.limits.max_message_size:
        try:
            frame.message = scope.settings.codec.decode(frame.payload)
        except (DecodeError, ProtocolViolation):
            return None  # who comes next meets it, too, and can say what it means
    return frame.message


class Handshake:
    """What the application and its server agreed on.

    Attributes:
        pending: An ``initialize`` whose answer is still to come.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.pending: Request | None = None
        self._request: Request | None = None
        self._version: Any = None
        self._initialized: Notification | None = None

    # Noting it.

    def sending(self, frame: Frame) -> None:
        """A message whose method is one of ``HANDSHAKE`` is about to be sent."""
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
        """Look whether a message is the answer to what is pending."""
        if self.pending is None or not _answers(answer, self.pending):
            return
        if isinstance(answer, Response):
            self._request = self.pending
            self._version = members_of(answer.result).get("protocolVersion")
            self._initialized = None
        self.pending = None

    # Repeating it.

    async def replay(self, link: LinkedConnection, keep: Callable[[Frame], None]) -> None:
        """Repeat it on a new connection, if there was one; ``keep`` is given what comes before the answer.

        Raises ``VersionMismatch`` if the server agrees to another version than before.
        """
        self.pending = None
        if self._request is None:
            return
        request = attrs.evolve(self._request, id=new_request_id())
        await link.say(encoded(request, self._scope))
        while True:
            frame = await link.hear()
            answer = message_of(frame, self._scope)
            if _answers(answer, request):
                break
            keep(frame)
        self._check(answer)
        if self._initialized is not None:
            await link.say(encoded(self._initialized, self._scope))

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
