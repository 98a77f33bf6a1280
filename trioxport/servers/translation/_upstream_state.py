"""The state that a legacy server keeps for its one client: the handshake and the log level; and requests without it.

Specification 2025-11-25, basic/lifecycle and server/utilities/logging; 2026-07-28, basic/index and server/discover.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Final

from trioxport.messages import NOTHING, ErrorResponse, Notification, Request, RequestId, Response, Undelivered
from trioxport.metadata import metadata_of
from trioxport.protocol import (
    INITIALIZE,
    INITIALIZED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    LEGACY_VERSIONS,
    METHOD_NOT_FOUND,
    MODERN_VERSIONS,
    UNSUPPORTED_VERSION,
    members_of,
    meta_of,
)
from trioxport.servers.translation._calls import ModernCall
from trioxport.servers.translation._link import AskServer, Link
from trioxport.servers.translation._members import (
    CAPABILITIES_KEY,
    COMPLETE,
    LEVEL_KEY,
    LEVELS,
    PING,
    SERVER_KEY,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    VERSION_KEY,
    is_level,
    to_modern_capabilities_of_server,
    with_meta,
    without,
)

_REMOVED: Final = (PING, SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE)
"""Requests of the legacy era that a modern server does not know."""


def refusal_of(request: Request) -> ErrorResponse | None:
    """The error for a request that no modern server takes, or None."""
    version = meta_of(request.params).get(VERSION_KEY)
    if request.method == INITIALIZE:
        return _unsupported(request, members_of(request.params).get("protocolVersion"))
    if version is None or not isinstance(meta_of(request.params).get(CAPABILITIES_KEY), dict):
        reason = f"Invalid params: _meta has to have {VERSION_KEY} and {CAPABILITIES_KEY}"
        return ErrorResponse(request.id, INVALID_PARAMS, reason)
    if version not in MODERN_VERSIONS:
        return _unsupported(request, version)
    if request.method in _REMOVED:
        return ErrorResponse(request.id, METHOD_NOT_FOUND, f"Method not found: {request.method}")
    level = meta_of(request.params).get(LEVEL_KEY)
    if level is not None and not is_level(level):
        return ErrorResponse(request.id, INVALID_PARAMS, f"Invalid log level: {level!r}")
    return None


def _unsupported(request: Request, requested: object) -> ErrorResponse:
    data = {"supported": list(MODERN_VERSIONS), "requested": requested}
    return ErrorResponse(request.id, UNSUPPORTED_VERSION, "Unsupported protocol version", data)


class ServerHandshake:
    """The initialization of the server, which happens when it is first needed.

    Args:
        link: The channels.
        params: The ``capabilities`` and the ``clientInfo`` of the request.
        ask: Sends a request to the server.

    Attributes:
        is_done: Whether the server is initialized.
    """

    def __init__(self, link: Link, params: Mapping[str, Any], ask: AskServer) -> None:
        self._link = link
        self._params = params
        self._ask = ask
        self._is_asked = False
        self._result: Mapping[str, Any] = NOTHING
        self.is_done = False

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """The server's capabilities, for modern clients."""
        return to_modern_capabilities_of_server(self._result.get("capabilities"))

    @property
    def server_info(self) -> Mapping[str, Any]:
        return members_of(self._result.get("serverInfo"))

    def begin(self, then: Callable[[], Awaitable[None]], refused: Callable[[ErrorResponse], object]) -> None:
        """Initialize the server, unless that has begun.

        Args:
            then: Runs in a task as soon as the server is initialized.
            refused: Called with the error if it does not initialize; the next call of this method tries again.
        """
        if self._is_asked:
            return
        self._is_asked = True
        params = {"protocolVersion": LEGACY_VERSIONS[0], **self._params}
        self._ask(INITIALIZE, params, lambda answer: self._take(answer, then, refused))

    def discovered(self) -> dict[str, Any]:
        """The result of ``server/discover``, which may not be cached."""
        members = without(self._result, "protocolVersion", "serverInfo", "capabilities")
        info = {} if not self.server_info else with_meta(members, **{SERVER_KEY: self.server_info})
        return {
            "resultType": COMPLETE,
            "supportedVersions": list(MODERN_VERSIONS),
            "capabilities": self.capabilities,
            **members,
            **info,
            "ttlMs": 0,
            "cacheScope": "private",
        }

    def _take(
        self,
        answer: Response | ErrorResponse,
        then: Callable[[], Awaitable[None]],
        refused: Callable[[ErrorResponse], object],
    ) -> None:
        refusal = self._refusal_in(answer)
        if refusal is not None:
            self._is_asked = False
            refused(refusal)
            return
        assert isinstance(answer, Response)
        self._result = members_of(answer.result)
        self.is_done = True
        self._link.post(Notification(INITIALIZED))
        self._link.start(self._continue, then)

    async def _continue(self, then: Callable[[], Awaitable[None]]) -> None:
        await self._link.posted()
        await then()

    def _refusal_in(self, answer: Response | ErrorResponse) -> ErrorResponse | None:
        if isinstance(answer, Undelivered):
            return answer
        if isinstance(answer, ErrorResponse):
            reason = f"The server behind this one did not initialize: {answer.message} (code {answer.code})"
            return ErrorResponse(None, INTERNAL_ERROR, reason, answer.data)
        version = members_of(answer.result).get("protocolVersion")
        if version in LEGACY_VERSIONS:
            return None
        return ErrorResponse(None, INTERNAL_ERROR, f"The server behind this one speaks an unknown revision: {version}")


class LogLevels:
    """The one log level of a server that many clients share, and the requests that its messages are for."""

    def __init__(self, link: Link, ask: AskServer) -> None:
        self._link = link
        self._ask = ask
        self._level: str | None = None

    async def want(self, call: ModernCall, calls: Iterable[ModernCall], capabilities: Mapping[str, Any]) -> None:
        """Set the server's level to the lowest that a request in flight wants, if ``call`` wants one."""
        if call.level is None or "logging" not in capabilities:
            return
        lowest = min((each.level for each in calls if each.level is not None), key=LEVELS.index)
        if lowest != self._level:
            self._level = lowest
            self._ask(SET_LEVEL, {"level": lowest}, self._note_answer)
            await self._link.posted()

    def readers(self, notification: Notification, calls: Mapping[RequestId, ModernCall]) -> list[ModernCall]:
        """The requests whose clients get a log message.

        One of unknown origin is for all that want its level, unless they are of several principals.
        """
        related = metadata_of(notification).get("related_request")
        origin = calls.get(related) if related is not None else None
        candidates: Collection[ModernCall] = calls.values() if origin is None else (origin,)
        if len({call.principal for call in candidates}) > 1:
            return []
        severity = members_of(notification.params).get("level")
        return [call for call in candidates if call.is_awaited and _is_wanted(severity, call.level)]

    def _note_answer(self, answer: Response | ErrorResponse) -> None:
        if isinstance(answer, ErrorResponse):
            self._level = None


def _is_wanted(severity: object, level: str | None) -> bool:
    if level is None:
        return False
    return not isinstance(severity, str) or severity not in LEVELS or LEVELS.index(severity) >= LEVELS.index(level)
