"""Requests as the access policy sees them, and its refusals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from trioxport._diagnostics.refusal_log import status_reason
from trioxport.auth import VerifiedToken


class AccessRequest(Protocol):
    """A request to a server, as far as the access policy uses it.

    Attributes:
        method: The HTTP method.
        full_path: The path, with the prefix under which a surrounding application mounts the endpoint.
        fields: Headers of the answer.
        headers: The headers by names in lower case, ``host`` among them.
        peer: The client's address, as ``ConnectionInfo.peer`` has it.
        secure: Whether the client's connection is encrypted.
        principal: The authenticated client; None before the check of its token.
        token: The claims of its token, where the verifier returns them.
    """

    fields: list[tuple[bytes, bytes]]

    peer: str | None
    secure: bool
    principal: str | None
    token: VerifiedToken | None

    @property
    def method(self) -> str: ...
    @property
    def full_path(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class AccessRefused(Exception):
    """The refusal of a request by the access policy.

    Args:
        status: The HTTP status.
        reason: One sentence for the client.
        fields: Headers of the answer.
        about: The check that refused, where refusals with this status are counted apart.
        detail: More for the operator's log than the client gets.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        fields: Iterable[tuple[bytes, bytes]] = (),
        about: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.fields = tuple(fields)
        self.about = about
        self.detail = detail or reason

    @property
    def counted_as(self) -> str:
        """The reason under which refusals like this one are counted."""
        return status_reason(self.status, self.about)


def address_of(peer: str | None) -> str:
    """The address of a peer, without its port."""
    peer = peer or ""
    return peer.rpartition(":")[0] if peer.count(":") == 1 or "]:" in peer else peer


def client_of(request: AccessRequest) -> tuple[bool, str]:
    """The client for whom limits hold: its principal, or else its address; and whether it is a principal."""
    if request.principal is not None:
        return True, request.principal
    return False, address_of(request.peer)
