"""The servers behind one endpoint: their prefixes, and the resources that each is known to have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import attrs

from trioxport.abc import Era, MessageChannels
from trioxport.errors import UsageError
from trioxport.messages import Message
from trioxport.servers.failure_log import FailureLog

SEPARATOR: Final = "__"
"""Between the name of a server and that of its tool or prompt."""
MAX_ROUTES: Final = 10_000
"""Resources whose server is remembered."""

_NOT_OF_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")


@attrs.frozen
class SessionChannels:
    """The channels to the server of one client.

    Args:
        channels: The channels.
        is_sent: Whether the first message of the client was sent already.
    """

    channels: MessageChannels
    is_sent: bool = False


class SharingMode(Protocol):
    """Gives each client its channels to one server.

    Attributes:
        name: The name of the server, for messages.
        failures: Its failures in the log, which its clients have together.
    """

    name: str
    failures: FailureLog

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that clients share."""
        ...

    def channels(self, era: Era, first: Message) -> AbstractAsyncContextManager[SessionChannels]:
        """The channels of one client of an era, for the time of a block. Raises the failure to connect."""
        ...


@attrs.define(eq=False)
class Member:
    """One of several servers behind an endpoint.

    Args:
        name: Its name.
        mode: Gives clients their channels.
        is_late: Whether a list has waited for it in vain, so that the next one does not.
    """

    name: str
    mode: SharingMode
    is_late: bool = False

    @property
    def prefix(self) -> str:
        """The beginning of the names of its tools and prompts."""
        return _NOT_OF_NAMES.sub("_", self.name) + SEPARATOR

    @property
    def is_waited_for(self) -> bool:
        """Whether lists wait for it."""
        return not self.is_late or self.mode.is_connected


class Directory:
    """The members, by the names of tools and prompts and by the addresses of resources.

    Args:
        modes: How the clients reach each server, by name.

    Raises:
        UsageError: Two servers have the same prefix.
    """

    def __init__(self, modes: Mapping[str, SharingMode]) -> None:
        self.members = [Member(name, mode) for name, mode in modes.items()]
        self._routes: dict[str, Member] = {}
        prefixes: dict[str, str] = {}
        for member in self.members:
            if (other := prefixes.setdefault(member.prefix, member.name)) != member.name:
                raise UsageError(f"the servers {other!r} and {member.name!r} have the same prefix {member.prefix}")

    def named(self, name: object) -> tuple[Member, str] | None:
        """The member with a tool or prompt, and the name there; the longest prefix counts."""
        if not isinstance(name, str):
            return None
        found = [member for member in self.members if name.startswith(member.prefix)]
        member = max(found, key=lambda each: len(each.prefix), default=None)
        return None if member is None else (member, name[len(member.prefix) :])

    def note(self, uri: object, member: Member) -> None:
        """Remember that a member has a resource, or the resources of a template."""
        if isinstance(uri, str):
            self._routes.pop(uri, None)
            self._routes[uri] = member
            if len(self._routes) > MAX_ROUTES:
                del self._routes[next(iter(self._routes))]

    def of_uri(self, uri: object) -> Member | None:
        """The member that is known to have a resource."""
        return self._routes.get(uri) if isinstance(uri, str) else None
