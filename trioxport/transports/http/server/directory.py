"""The directory of legacy sessions of several servers: each finds the one that has a session, and asks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from trioxport.transports._resources import ServerResource
from trioxport.transports.http.server.request import ServerRequest


class Replica(ServerResource, Protocol):
    """One of several servers of the same sessions."""

    def new_session_id(self) -> str:
        """Return the id of a new session of this server. Raises ``Refusal`` (503) if others could not find it."""
        ...

    def owns(self, session_id: str) -> bool:
        """Whether this server has the session, if there is one with this id."""
        ...

    async def forward(self, request: ServerRequest, session_id: str, body: bytes) -> bool:
        """Let the owner of a session answer a request. Returns whether there is an owner.

        Raises:
            Refusal: The owner was not reached (503), or was lost before it answered (502): it may have acted then.
            ClientGone: The response was cut off: its client left, or the owner was lost.
        """
        ...

    def leave(self) -> None:
        """End the ownership of all sessions: others forward no new request here."""
        ...

    async def close(self) -> None:
        """Wait until no other server can find this one."""
        ...

    def stop(self) -> None:
        """End the streams that this server forwards, whose clients resume them elsewhere."""
        ...


@runtime_checkable
class SessionDirectory(Protocol):
    """A directory of sessions, which all servers in it share."""

    def replica(self, serve: Callable[[ServerRequest], Awaitable[None]]) -> Replica:
        """Make the part of one server, which answers the forwarded requests of its own sessions by ``serve``."""
        ...
