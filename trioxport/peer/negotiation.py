"""Negotiation: the client finds the era and the version that its server speaks.

Specification 2026-07-28, basic/versioning, and the sections Backward Compatibility of the transports; for the legacy
handshake 2025-11-25, basic/lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeGuard, cast

import attrs

from trioxport._diagnostics.validators import TEXT
from trioxport.abc import Era
from trioxport.connection import Connection
from trioxport.errors import DecodeError, HTTPStatusError, ProtocolViolation, RequestTimeout, VersionMismatch
from trioxport.messages import ErrorResponse, Incoming, Undelivered
from trioxport.protocol import (
    DISCOVER,
    HEADER_MISMATCH,
    INITIALIZE,
    INITIALIZED,
    INVALID_PARAMS,
    LEGACY_VERSIONS,
    META,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    MODERN_VERSIONS,
    UNSUPPORTED_VERSION,
    JSONRPCError,
    members_of,
    meta_of,
)

ANSWER_SECONDS: Final = 60.0
"""Seconds for an answer where there is nothing to fall back to."""

_REFUSAL_STATUSES: Final = range(400, 500)
"""HTTP statuses of a legacy server that does not know ``server/discover``."""

_MODERN_CODES: Final = (UNSUPPORTED_VERSION, HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY)


def _names_a_program(_client: object, _field: object, info: Mapping[str, Any]) -> None:
    for member in ("name", "version"):
        TEXT.option(f"client_info[{member!r}]", info.get(member))


@attrs.frozen
class ClientIdentity:
    """The client's description of itself: its name and version, and its capabilities."""

    info: Mapping[str, Any] = attrs.field(validator=_names_a_program)
    capabilities: Mapping[str, Any]

    def meta(self, version: str) -> dict[str, Any]:
        """The ``_meta`` members of every modern request (2026-07-28, basic/index, section _meta)."""
        return {
            META + "protocolVersion": version,
            META + "clientInfo": self.info,
            META + "clientCapabilities": self.capabilities,
        }


@attrs.frozen
class Negotiated:
    """The result of a negotiation, and the server's description of itself.

    Args:
        era: ``"modern"`` or ``"legacy"``.
        protocol_version: The revision that both speak.
        server_info: The server's name and version; empty if it gives none.
        capabilities: The server's capabilities.
        instructions: The server's advice on its use, or None.
    """

    era: Era
    protocol_version: str
    server_info: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    instructions: str | None


class Requester(Protocol):
    """The part of a :class:`trioxport.peer.Peer` that a negotiation uses."""

    @property
    def connection(self) -> Connection: ...
    @property
    def target(self) -> str: ...

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None,
    ) -> Any: ...

    async def notify(self, method: str) -> None: ...


async def negotiate(peer: Requester, client: ClientIdentity, era: Era | None, probe_timeout: float) -> Negotiated:
    """The exchange behind :meth:`trioxport.peer.Peer.negotiate`."""
    if era == "legacy":
        return await _initialize(peer, client)
    if era == "modern":
        return await _discover_or_explain(peer, client)
    if peer.connection.info.era == "legacy":  # its server was, on an earlier connection
        return await _initialize_or_discover(peer, client)
    try:
        return await _discover(peer, client, probe_timeout)
    except JSONRPCError as error:
        if error.code in _MODERN_CODES:
            raise
        return await _initialize_instead(peer, client, error)
    except (ProtocolViolation, DecodeError) as error:
        return await _initialize_instead(peer, client, error)
    except HTTPStatusError as error:
        if error.status not in _REFUSAL_STATUSES:
            raise
        return await _initialize_instead(peer, client, error)
    except RequestTimeout:
        return await _initialize_or_discover(peer, client)


async def speaks_modern(peer: Requester, client: ClientIdentity, probe_timeout: float) -> bool | None:
    """Whether the server is modern, by ``server/discover`` alone: a legacy server can still be initialized.

    None if it does not answer: it may be a legacy one, or still starting.

    Raises a ``TransportError`` that says nothing about the era, such as a loss of the connection.
    """
    try:
        await _discover(peer, client, probe_timeout, may_fall_back=False)
    except JSONRPCError as error:
        return error.code in _MODERN_CODES
    except VersionMismatch:
        return False
    except RequestTimeout:
        return None
    except (ProtocolViolation, DecodeError):
        return False
    except HTTPStatusError as error:
        if error.status not in _REFUSAL_STATUSES:
            raise
        return False
    return True


def refuses_legacy(answer: Incoming) -> bool:
    """Whether an answer to ``initialize`` shows that the server may be modern, and no legacy one."""
    if isinstance(answer, Undelivered):
        return isinstance(answer.cause, HTTPStatusError) and answer.cause.status in _REFUSAL_STATUSES
    return isinstance(answer, ErrorResponse) and answer.code in (*_MODERN_CODES, METHOD_NOT_FOUND, INVALID_PARAMS)


async def _initialize_instead(peer: Requester, client: ClientIdentity, refusal: Exception) -> Negotiated:
    """Initialize after a refused ``server/discover``; if the server proves to be modern, raise that refusal."""
    try:
        return await _initialize(peer, client)
    except (JSONRPCError, VersionMismatch) as error:
        if _is_of_modern_server(error, refusal):
            raise refusal from None
        raise


def _is_of_modern_server(error: Exception, refusal: Exception) -> bool:
    """Whether a refused ``initialize`` shows that the server is modern, so that ``refusal`` is the error to raise."""
    cause = error.__cause__
    if isinstance(error, VersionMismatch):
        return isinstance(cause, JSONRPCError) and _any_in(_supported_by(cause), MODERN_VERSIONS)
    unknown = isinstance(error, JSONRPCError) and error.code == METHOD_NOT_FOUND
    return unknown and isinstance(refusal, JSONRPCError) and refusal.code != METHOD_NOT_FOUND


async def _initialize_or_discover(peer: Requester, client: ClientIdentity) -> Negotiated:
    """Initialize with a server that seems to be legacy; if it refuses, send ``server/discover`` once more."""
    try:
        return await _initialize(peer, client)
    except (JSONRPCError, VersionMismatch, HTTPStatusError) as refusal:
        if isinstance(refusal, HTTPStatusError) and refusal.status not in _REFUSAL_STATUSES:
            raise
        try:
            return await _discover(peer, client, ANSWER_SECONDS)
        except (JSONRPCError, ProtocolViolation, DecodeError, RequestTimeout, HTTPStatusError) as error:
            raise (error if _is_of_modern_server(refusal, error) else refusal) from None


async def _discover_or_explain(peer: Requester, client: ClientIdentity) -> Negotiated:
    try:
        return await _discover(peer, client, ANSWER_SECONDS, may_fall_back=False)
    except JSONRPCError as error:
        if error.code != METHOD_NOT_FOUND:  # the only code that says something about versions
            error.add_note("With era=None negotiate() may fall back to the legacy era after this refusal")
            raise
        raise VersionMismatch(
            f"the server does not speak {MODERN_VERSIONS[0]}: it refused server/discover, {error}",
            target=peer.target,
            hint="Do not insist on the modern era",
        ) from error


async def _discover(
    peer: Requester, client: ClientIdentity, probe_timeout: float, *, may_fall_back: bool = True
) -> Negotiated:
    version = MODERN_VERSIONS[0]
    tried: set[str] = set()
    while True:
        try:
            result = await peer.request(DISCOVER, {"_meta": client.meta(version)}, timeout=probe_timeout)
        except JSONRPCError as error:
            if error.code != UNSUPPORTED_VERSION:
                raise
            tried.add(version)
            version = _common(peer, _supported_by(error), tried, error)
        else:
            break
    members = members_of(result)
    versions = members.get("supportedVersions")
    if not _are_versions(versions):
        raise ProtocolViolation("the answer to server/discover names no versions", target=peer.target)
    if may_fall_back and not _any_in(versions, MODERN_VERSIONS) and _any_in(versions, LEGACY_VERSIONS):
        return await _initialize(peer, client)
    version = _common(peer, versions, set(), None)
    return _settle(peer, "modern", version, members, meta_of(members).get(META + "serverInfo"))


async def _initialize(peer: Requester, client: ClientIdentity) -> Negotiated:
    params = {"protocolVersion": LEGACY_VERSIONS[0], "capabilities": client.capabilities, "clientInfo": client.info}
    try:
        result = await peer.request(INITIALIZE, params, timeout=ANSWER_SECONDS)
    except JSONRPCError as error:
        if supported := _supported_by(error):
            raise _mismatch(peer, supported, LEGACY_VERSIONS) from error
        raise
    members = members_of(result)
    version = members.get("protocolVersion")
    if not isinstance(version, str):
        raise ProtocolViolation("the answer to initialize names no version", target=peer.target)
    if version not in LEGACY_VERSIONS:
        raise _mismatch(peer, [version], LEGACY_VERSIONS)
    negotiated = _settle(peer, "legacy", version, members, members.get("serverInfo"))
    await peer.notify(INITIALIZED)
    return negotiated


def _settle(peer: Requester, era: Era, version: str, result: Mapping[str, Any], server_info: Any) -> Negotiated:
    peer.connection.info.era = era
    peer.connection.info.protocol_version = version
    instructions = result.get("instructions")
    return Negotiated(
        era,
        version,
        dict(members_of(server_info)),
        dict(members_of(result.get("capabilities"))),
        instructions if isinstance(instructions, str) else None,
    )


def _common(peer: Requester, theirs: Sequence[str], tried: set[str], error: JSONRPCError | None) -> str:
    """The best modern version that both have and that was not refused yet. Raises ``VersionMismatch``."""
    for version in MODERN_VERSIONS:
        if version in theirs and version not in tried:
            return version
    raise _mismatch(peer, theirs, MODERN_VERSIONS) from error


def _mismatch(peer: Requester, theirs: Sequence[str], ours: Sequence[str]) -> VersionMismatch:
    return VersionMismatch(
        f"no protocol version in common: the server has {', '.join(theirs) or 'none'}; this side has {', '.join(ours)}",
        target=peer.target,
    )


def _supported_by(error: JSONRPCError) -> list[str]:
    """The versions that an error's data lists; empty if it lists none."""
    supported = members_of(error.data).get("supported")
    return supported if _are_versions(supported) else []


def _are_versions(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))


def _any_in(versions: Sequence[str], known: Sequence[str]) -> bool:
    return any(version in known for version in versions)
