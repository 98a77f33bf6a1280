"""Stores of credentials: their protocol, and a store in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import trio

from trioxport.auth.secret import Secret
from trioxport.errors import OAuthError

LOCK_SECONDS: Final = 60.0
"""The time to wait for a fence that another process holds."""


class CredentialStore(Protocol):
    """A store of credentials: secret texts by key. Several processes may share one.

    A refresh reads, asks the authorization server and writes within one :meth:`fence`, so that a refresh token is
    never used twice.
    """

    async def read(self, key: str) -> Secret | None:
        """The text of ``key``, or None. Raises ``OAuthError`` if the store cannot be read."""
        ...

    async def write(self, key: str, text: Secret | None) -> None:
        """Replace the text of ``key`` at once, or delete it for None. It is durable when this returns.

        Raises ``OAuthError`` if it cannot be written; then the old text is still there.
        """
        ...

    def fence(self, key: str, seconds: float) -> AbstractAsyncContextManager[None]:
        """Exclude all other users of the store from ``key``, in this and in other processes.

        The end of a process, of whatever kind, opens its fences.

        Args:
            key: The key, or any name.
            seconds: Seconds to wait.

        Raises:
            OAuthError: Another user holds it for longer than that.
        """
        ...


class MemoryStore:
    """A store for one program, in its memory: it is empty after the program ends."""

    def __init__(self) -> None:
        self._texts: dict[str, Secret] = {}
        self._locks: dict[str, trio.Lock] = {}

    async def read(self, key: str) -> Secret | None:
        await trio.lowlevel.checkpoint()
        return self._texts.get(key)

    async def write(self, key: str, text: Secret | None) -> None:
        if text is None:
            self._texts.pop(key, None)
        else:
            self._texts[key] = text

    @asynccontextmanager
    async def fence(self, key: str, seconds: float) -> AsyncGenerator[None]:
        lock = self._locks.setdefault(key, trio.Lock())
        with trio.move_on_after(seconds):
            await lock.acquire()
        if lock.statistics().owner is not trio.lowlevel.current_task():
            raise fence_timeout(seconds)
        try:
            yield
        finally:
            lock.release()


def fence_timeout(seconds: float) -> OAuthError:
    """The error for a fence that another user holds too long: nothing is refreshed or deleted."""
    reason = f"another process has held the lock on the credentials for {seconds:g} s"
    hint = "It may wait for its authorization server, or hang; end it, or try again"
    return OAuthError(reason, step="lock of the store", retryable=True, hint=hint)
