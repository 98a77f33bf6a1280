"""One structured event on the standard ``logging`` for each message, without credentials."""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Final, Literal, TypeAlias

import attrs

from trioxport._diagnostics.message_redaction import Redaction, as_paths
from trioxport._diagnostics.text_redaction import redact_text
from trioxport._diagnostics.validators import COUNT_OR_0, FLAG, TEXT
from trioxport.abc import MessageChannels, Scope
from trioxport.codecs.json import JSON
from trioxport.errors import UsageError
from trioxport.layers._support import PassingReceive, PassingSend
from trioxport.messages import ErrorResponse, Incoming, Message, Notification, Request, Undelivered

Direction: TypeAlias = Literal["sent", "not sent", "received"]

MAX_PAYLOAD_CHARS: Final = 4096
"""Characters of a payload that are logged."""


@attrs.frozen
class Logging:
    """Logs every message that passes, in both directions.

    An event's text has the target, the direction, the kind, the method and the id; for structured handlers the record
    has them as the attributes ``mcp_target``, ``mcp_direction``, ``mcp_kind``, ``mcp_method`` and ``mcp_id``. An
    ``Undelivered`` is logged at WARNING at least, with its cause. A message is logged as ``sent`` before it is passed
    on; one that is then not accepted is logged as ``not sent`` too.

    With ``payloads`` the text and the attribute ``mcp_payload`` have the first 4096 characters of the message as JSON,
    without credentials: members with the name of one (``password``, ``apiKey`` ...), bearer tokens, passwords in URLs.

    Args:
        logger: The name of the logger.
        log_level: The level of ordinary events.
        payloads: Whether to log parameters, results and errors.
        redact: Further values to hide, by their place in the message: names of members joined by dots, as
            ``"params.arguments.customer"``, where ``*`` is any member or element.
    """

    level: ClassVar[Literal["message"]] = "message"

    logger: str = attrs.field(default="trioxport.messages", validator=TEXT)
    log_level: int = attrs.field(default=logging.DEBUG, validator=COUNT_OR_0)
    payloads: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    redact: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=as_paths)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        redaction = Redaction.of(self.redact) if self.payloads else None
        events = _Events(logging.getLogger(self.logger), self.log_level, scope.settings.target, redaction)
        return MessageChannels(
            PassingSend(channels.send, events.sent, events.not_sent), PassingReceive(channels.receive, events.received)
        )


@attrs.frozen
class _Events:
    logger: logging.Logger
    log_level: int
    target: str
    redaction: Redaction | None

    def sent(self, message: Message) -> Message:
        self._log("sent", message)
        return message

    def not_sent(self, message: Message, _error: BaseException) -> None:
        self._log("not sent", message)

    def received(self, message: Incoming) -> Incoming:
        self._log("received", message)
        return message

    def _log(self, direction: Direction, message: Incoming) -> None:
        undelivered = isinstance(message, Undelivered)
        level = max(self.log_level, logging.WARNING) if undelivered else self.log_level
        if not self.logger.isEnabledFor(level):
            return
        kind, method, request_id = describe(message)
        text = " ".join(_plain(part) for part in (direction, kind, method, request_id) if part is not None)
        if isinstance(message, Undelivered):
            text += f" ({message.outcome}: {redact_text(str(message.cause))})"
        extra: dict[str, Any] = {
            "mcp_target": self.target,
            "mcp_direction": direction,
            "mcp_kind": kind,
            "mcp_method": method,
            "mcp_id": request_id,
        }
        if self.redaction is not None and not isinstance(message, Undelivered):
            extra["mcp_payload"] = _payload(self.redaction.message(message))
            text += f" {extra['mcp_payload']}"
        self.logger.log(level, "%s: %s", self.target, text, extra=extra)


def _plain(part: str | int) -> str:
    """Text from the peer, escaped for one line of a log."""
    text = str(part)
    return text if text.isprintable() else ascii(text)


def _payload(message: Message) -> str:
    try:
        text = JSON.encode(message).decode()
    except UsageError:  # the caller of send() gets this error from the codec
        return "(no JSON)"
    return text if len(text) <= MAX_PAYLOAD_CHARS else f"{text[:MAX_PAYLOAD_CHARS]}…"


def describe(message: Incoming) -> tuple[str, str | None, str | int | None]:
    """The kind, the method and the id of a message."""
    match message:
        case Request(id=request_id, method=method):
            return "request", method, request_id
        case Notification(method=method):
            return "notification", method, None
        case Undelivered():
            return "undelivered", *describe(message.original)[1:]
        case ErrorResponse(id=request_id):
            return "error", None, request_id
        case _:
            return "response", None, message.id
