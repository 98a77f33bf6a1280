"""Scopes: those that a message needs, and those that a token has (RFC 6750, section 3.1).

Specification 2026-07-28, basic/authorization, section Scope Challenge Handling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from trioxport.messages import Message, Notification, Request
from trioxport.protocol import NAMED_BY, members_of

RequiredScopes: TypeAlias = Mapping[str, Sequence[str]] | Callable[[Request | Notification], Sequence[str]]
"""The scopes that messages need, besides those of the whole server: by method, as ``"tools/call"``, and by method and
name, as ``"tools/call:delete_file"``, which add up; or a function of the message."""

OFFLINE_ACCESS: Final = "offline_access"
"""The scope that asks for a refresh token, which is no matter of a resource server."""


class Scopes:
    """The scopes of one server.

    Args:
        base: The scopes that every request needs.
        required: The further scopes of messages.
        hierarchy: The narrower scopes that a broader one implies, by the broader one.
    """

    def __init__(
        self, base: Sequence[str], required: RequiredScopes | None, hierarchy: Mapping[str, Sequence[str]]
    ) -> None:
        self._base = tuple(base)
        self._required = required
        self._hierarchy = hierarchy

    @property
    def depends_on_message(self) -> bool:
        """Whether some messages need more scopes than others."""
        return self._required is not None

    def missing_from(self, granted: Iterable[str], message: Message | None = None) -> Sequence[str]:
        """All scopes that are needed, for a challenge, if one of them is missing; none if the token suffices.

        Args:
            granted: The scopes of the token.
            message: A message of a client whose token was checked already; None to check the token itself.
        """
        own = () if message is None else self._of(message)
        needed = list(dict.fromkeys((*self._base, *own)))
        if not needed or (message is not None and not own):
            return ()
        implied = self._implied_by(granted)
        return () if all(scope in implied for scope in needed) else needed

    def _of(self, message: Message) -> Sequence[str]:
        required = self._required
        if required is None or not isinstance(message, Request | Notification):
            return ()
        if callable(required):
            return required(message)
        scopes = [*required.get(message.method, ())]
        name = members_of(message.params).get(NAMED_BY.get(message.method, ""))
        if isinstance(name, str):
            scopes += required.get(f"{message.method}:{name}", ())
        return scopes

    def _implied_by(self, granted: Iterable[str]) -> set[str]:
        """The scopes of a token, and those that they imply."""
        found: set[str] = set()
        waiting = list(granted)
        while waiting:
            scope = waiting.pop()
            if scope not in found:
                found.add(scope)
                waiting += self._hierarchy.get(scope, ())
        return found
