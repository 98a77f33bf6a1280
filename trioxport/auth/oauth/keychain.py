"""A store in the keychain of the system: Keychain on macOS, Secret Service on Linux, Credential Locker on Windows."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from trioxport._diagnostics.hints import install_hint
from trioxport.auth.oauth.file_store import FileFences, default_directory
from trioxport.auth.oauth.logins import STORE_STEP
from trioxport.auth.secret import Secret
from trioxport.errors import OAuthError, UsageError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE: Final = "trioxport"
WRITE_SECONDS: Final = 60
"""Seconds for a change of the keychain, which cancelling does not cut short: a person may have to unlock it."""
STORE_HINT: Final = "Unlock it, or use a FileStore"


class KeychainStore:
    """Credentials in the keychain of the system, by ``keyring``, which runs in threads. Needs the extra ``keychain``.

    Refreshes are fenced across processes as those of a :class:`FileStore` are: the keychain has no locks, so their
    files are in a directory.

    Args:
        service: The name of the service in the keychain.
        keyring: The backend; by default the one that ``keyring`` chooses.
        locks: The directory of the locks, which hold no secrets; by default that of the command line.

    Raises:
        UsageError: ``keyring`` is not installed, or the system has no ``flock``.
    """

    def __init__(
        self,
        service: str = SERVICE,
        *,
        keyring: KeyringBackend | None = None,
        locks: str | os.PathLike[str] | None = None,
    ) -> None:
        if find_spec("keyring") is None:
            raise UsageError("the keychain needs a library that is not installed", hint=install_hint("keychain"))
        self._service = service
        self._keyring = keyring
        self._fences = FileFences(default_directory() if locks is None else Path(locks))
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def read(self, key: str) -> Secret | None:
        text = await self._call(lambda backend: backend.get_password(self._service, key))
        return None if text is None else Secret(text)

    async def write(self, key: str, text: Secret | None) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_SECONDS) as scope:
            if text is not None:
                await self._call(lambda backend: _set(backend, self._service, key, text))
            elif await self.read(key) is not None:
                await self._call(lambda backend: backend.delete_password(self._service, key))
        if scope.cancelled_caught:
            raise OAuthError(
                f"the keychain did not take a login within {WRITE_SECONDS} s", step=STORE_STEP, hint=STORE_HINT
            )

    @asynccontextmanager
    async def fence(self, key: str, seconds: float) -> AsyncGenerator[None]:
        async with self._fences.fence(key, seconds):
            yield

    async def _call(self, use: _Use) -> str | None:
        """Use the backend in a thread; it may ask the person to unlock the keychain. Raises ``OAuthError``."""
        from keyring import get_keyring
        from keyring.errors import KeyringError

        try:
            return await trio.to_thread.run_sync(
                lambda: use(self._keyring or get_keyring()), limiter=self._one_at_a_time, abandon_on_cancel=True
            )
        except KeyringError as error:
            reason = f"the keychain cannot be used: {type(error).__name__}"
            raise OAuthError(reason, step=STORE_STEP, hint=STORE_HINT) from error


def _set(backend: KeyringBackend, service: str, key: str, text: Secret) -> None:
    backend.set_password(service, key, text.reveal())  # pyright: ignore[reportUnknownMemberType] # untyped


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    _Use: TypeAlias = Callable[[KeyringBackend], str | None]
