"""The state of a connection to an MCP server: era, version, session and tools, and the headers that follow from them.

Specification 2026-07-28, basic/transports/streamable-http; for the legacy era 2025-11-25, basic/transports.
"""

from __future__ import annotations

import re
from typing import Final, cast

import attrs

from trioxport._diagnostics import logger
from trioxport.abc import ConnectionInfo, Era, Scope
from trioxport.errors import ProtocolViolation, UsageError
from trioxport.frames import Frame
from trioxport.messages import Notification, Request, Response
from trioxport.protocol import (
    DISCOVER,
    HEADER_MISMATCH,
    INITIALIZE,
    LAST_EVENT_HEADER,
    METHOD_HEADER,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    NAME_HEADER,
    SESSION_HEADER,
    UNSUPPORTED_VERSION,
    VERSION_HEADER,
    members_of,
)
from trioxport.transports._http_heads import ResponseHead, check_fields
from trioxport.transports.http.client import era_cache
from trioxport.transports.http.headers import ToolHeaders, encode_value, mirrored, version_of

_SESSION_ID: Final = re.compile(r"[!-~]+")
_RESERVED_HEADERS: Final = frozenset(
    name.lower()
    for name in (
        *("Accept", "Accept-Encoding", "Content-Length", "Content-Type", "Host", "Transfer-Encoding"),
        *(VERSION_HEADER, SESSION_HEADER, LAST_EVENT_HEADER, METHOD_HEADER, NAME_HEADER),
    )
)
OTHER_PROTOCOL_STATUSES: Final = (400, 404, 405)
"""Statuses of a server that may be of another era, or speak HTTP+SSE."""
MODERN_CODES: Final = (HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION)
"""JSON-RPC codes that only a modern server sends with such a status."""
POST_FIELDS: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
STREAM_FIELDS: Final = {"accept": "text/event-stream"}


def own_fields(fields: dict[str, str]) -> dict[str, str]:
    """The application's headers, by names in lower case. Raises ``UsageError`` for one that the transport sets."""
    check_fields(fields)
    for name in fields:
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("mcp-param-"):
            raise UsageError(f"the header {name} is set by the transport")
    return {name.lower(): value for name, value in fields.items()}


class ClientSession:
    """The state of one connection. In the modern era there is no session on the wire: only tools and a version.

    Attributes:
        era: The era of messages now; None before the first message that shows it.
        legacy_only: Whether the binding is HTTP+SSE, which has no modern era.
        id: The id of the legacy session, if the server has sessions.
        version: The revision that headers name.
        initialize: The last ``initialize``.
        initialized: The notification after it, once it was accepted.

    Args:
        scope: The connection's scope.
        url: The endpoint, as the key of the era cache.
        info: The information to fill in; by default the connection's.
    """

    def __init__(self, scope: Scope, url: str, info: ConnectionInfo | None = None) -> None:
        self._scope = scope
        self._url = url
        self._info = scope.info if info is None else info
        self._tools = ToolHeaders()
        self.era: Era | None = None
        self.legacy_only = False
        self.id: str | None = None
        self.version: str | None = None
        self.initialize: Frame | None = None
        self.initialized: Frame | None = None

    def begin(self, frame: Frame) -> None:
        """Note that ``frame`` is about to be sent: an ``initialize`` begins anew, in the legacy era."""
        message = frame.message
        if isinstance(message, Request) and message.method == INITIALIZE:
            self.era, self.id, self.version = "legacy", None, None
            self.initialize, self.initialized = frame, None
            self._info.session_id = None
        elif isinstance(message, Request) and (version := version_of(message)):
            if self.era == "legacy" and self.version is None and not self.legacy_only:
                self.era = None  # initialize was refused: the era is open again
            if self.era != "legacy":
                self.version = version

    def anew(self) -> ClientSession:
        """The state for a repetition of this connection's handshake."""
        fresh = ClientSession(self._scope, self._url, attrs.evolve(self._info))
        fresh.era = "legacy"
        return fresh

    def adopt(self, fresh: ClientSession) -> None:
        """Continue in the session that a repeated handshake has begun."""
        self.id = self._info.session_id = fresh.id

    def fields(self) -> dict[str, str]:
        """The headers of every request."""
        found: dict[str, str] = {}
        if self.version is not None:
            found[VERSION_HEADER] = encode_value(self.version)
        if self.id is not None:
            found[SESSION_HEADER] = self.id
        return found

    def post_fields(self, frame: Frame) -> dict[str, str]:
        """The headers of a message's POST. Raises ``UsageError``."""
        message = frame.message
        own = dict(frame.headers or {})
        coding = own.pop("content-encoding", None)  # set by the layer that compressed the payload
        found = {**own_fields(own), **self.fields(), **POST_FIELDS}
        if coding is not None:
            check_fields({"content-encoding": coding})
            found["content-encoding"] = coding
        if self.era != "legacy" and isinstance(message, Request | Notification):
            found |= mirrored(message)
            if isinstance(message, Request) and message.method == "tools/call":
                found |= self._tools.headers(message)
        return found

    def note_codings(self, head: ResponseHead) -> None:
        """Note the content codings that the server accepts, according to a response (RFC 9110, section 12.5.3)."""
        accepted = head.headers.get("accept-encoding")
        info = self._info
        if accepted is not None and accepted != info.headers.get("accept-encoding"):
            info.headers = {**info.headers, "accept-encoding": accepted}

    def note_answer(self, request: Request, response: Response, head: ResponseHead) -> Response:
        """Learn from the result of ``request``; return the response for the application, without invalid tools.

        Raises ``ProtocolViolation`` for an invalid session id.
        """
        if request.method == INITIALIZE:
            session_id = head.headers.get(SESSION_HEADER.lower())
            if session_id is not None and not _SESSION_ID.fullmatch(session_id):
                raise ProtocolViolation("the session id has characters that none may have", outcome="unknown")
            self.note_initialize_result(response, session_id)
            era_cache.learn(self._url, "legacy")
        elif self.era != "legacy":
            self.era = self._info.era = "modern"
            self._info.protocol_version = self.version
            era_cache.learn(self._url, "modern")
            if request.method == "tools/list":
                return self._without_invalid_tools(response)
        return response

    def note_initialize_result(self, response: Response, session_id: str | None) -> None:
        """Note the version and the session with which an ``initialize`` was answered."""
        version = members_of(response.result).get("protocolVersion")
        self.id = self._info.session_id = session_id
        self.version = version if isinstance(version, str) and _SESSION_ID.fullmatch(version) else None
        self._info.era = "legacy"
        self._info.protocol_version = self.version

    def note_refusal(self, request: Request, status: int, code: int | None) -> None:
        """Learn the era from an error: only a modern server names the reason in the body."""
        if request.method == INITIALIZE and status in (200, *OTHER_PROTOCOL_STATUSES):
            era_cache.forget(self._url)
        elif self.era is None and status in OTHER_PROTOCOL_STATUSES and version_of(request) is not None:
            if code in MODERN_CODES or (code == METHOD_NOT_FOUND and request.method != DISCOVER):
                self._info.era = "modern"
            else:
                self._info.era = "legacy"
                era_cache.forget(self._url)

    def _without_invalid_tools(self, response: Response) -> Response:
        result = members_of(response.result)
        tools = result.get("tools")
        if not isinstance(tools, list):
            return response
        listed = cast("list[object]", tools)
        kept = [tool for tool in listed if self._learn(tool)]
        return response if len(kept) == len(listed) else attrs.evolve(response, result={**result, "tools": kept})

    def _learn(self, tool: object) -> bool:
        members = members_of(tool)
        try:
            self._tools.learn(members)
        except ValueError as error:
            logger.warning("%s: the tool %r is left out: %s", self._scope.settings.target, members.get("name"), error)
            return False
        return True
