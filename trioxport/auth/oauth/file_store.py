"""A store in files: one for each entry, for this user alone, and fenced across processes by locks of the kernel."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from trioxport.auth.oauth.logins import STORE_STEP
from trioxport.auth.oauth.stores import fence_timeout
from trioxport.auth.secret import Secret
from trioxport.errors import OAuthError, UsageError

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_WAITING: Final = 100
"""Threads that wait for locks at the same time; they do not count among those that read and write."""

Result = TypeVar("Result")


def default_directory() -> Path:
    """The directory that the command line uses: ``trioxport/credentials`` in ``XDG_STATE_HOME``."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "trioxport" / "credentials"


class FileStore:
    """Credentials in a directory, in files that only this user can read (mode 0600).

    A file is replaced as a whole, and synced to the disk, or not at all. Refreshes are fenced across processes by
    ``flock``, which the kernel releases when a process ends, also by SIGKILL. The texts are not encrypted; a
    :class:`KeychainStore` keeps them in the keychain of the system.

    Args:
        directory: The directory; it is made when something is written. By default that of the command line.

    Raises:
        UsageError: The system has no ``flock``.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = default_directory() if directory is None else Path(directory)
        self._fences = FileFences(self._directory)

    def __repr__(self) -> str:
        return f"FileStore({str(self._directory)!r})"

    async def read(self, key: str) -> Secret | None:
        return await _in_thread(lambda: self._read(key))

    async def write(self, key: str, text: Secret | None) -> None:
        with trio.CancelScope(shield=True):  # a thread on the disk, which ends by itself
            await _in_thread(lambda: self._write(key, text))

    @asynccontextmanager
    async def fence(self, key: str, seconds: float) -> AsyncGenerator[None]:
        async with self._fences.fence(key, seconds):
            yield

    def _path(self, key: str) -> Path:
        return self._directory / f"{file_name(key)}.json"

    def _read(self, key: str) -> Secret | None:
        try:
            with self._path(key).open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            entry = msgspec.json.decode(text, type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            entry = {}
        if entry.get("key") != key or "text" not in entry:
            hint = "Delete it, and log in again"
            raise OAuthError(f"the file {self._path(key)} is damaged", step=STORE_STEP, hint=hint)
        return Secret(entry["text"])

    def _write(self, key: str, text: Secret | None) -> None:
        if text is None:
            self._path(key).unlink(missing_ok=True)
            return
        make_private(self._directory)
        file, name = tempfile.mkstemp(dir=self._directory, prefix=".new-")  # mode 0600
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(msgspec.json.encode({"key": key, "text": text.reveal()}))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, self._path(key))
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        _sync_directory(self._directory)


class FileFences:
    """Fences across processes: locks of the kernel on files in a directory.

    Args:
        directory: The directory of the locks; it is made when the first one is needed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            import fcntl
        except ImportError:
            raise UsageError("this system has no flock; use a MemoryStore, or a store of your own") from None
        self._flock = fcntl.flock
        self._exclusive = fcntl.LOCK_EX
        self._directory = directory
        self._waiting = trio.CapacityLimiter(MAX_WAITING)

    @asynccontextmanager
    async def fence(self, key: str, seconds: float) -> AsyncGenerator[None]:
        """Hold the lock of ``key``. Raises ``OAuthError`` after ``seconds``."""
        attempt = _LockAttempt(self._acquire)
        descriptor: int | None = None
        with trio.move_on_after(seconds):
            descriptor = await _in_thread(lambda: attempt.run(key), waiting=self._waiting, on_cancel=attempt.give_up)
        if descriptor is None:
            raise fence_timeout(seconds)
        try:
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, key: str) -> int:
        make_private(self._directory)
        path = self._directory / f"{file_name(key)}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._flock(descriptor, self._exclusive)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class _LockAttempt:
    """An attempt to get a lock in a thread, which may be given up while the thread still waits for it."""

    def __init__(self, acquire: Callable[[str], int]) -> None:
        self._acquire = acquire
        self._given_up = False
        self._descriptor: int | None = None
        self._guard = threading.Lock()

    def run(self, key: str) -> int | None:
        descriptor = self._acquire(key)
        with self._guard:
            if self._given_up:
                os.close(descriptor)
                return None
            self._descriptor = descriptor
        return descriptor

    def give_up(self) -> None:
        with self._guard:
            self._given_up = True
            if self._descriptor is not None:
                os.close(self._descriptor)


async def _in_thread(
    work: Callable[[], Result],
    *,
    waiting: trio.CapacityLimiter | None = None,
    on_cancel: Callable[[], None] | None = None,
) -> Result:
    try:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=waiting is not None, limiter=waiting)
    except trio.Cancelled:
        if on_cancel is not None:
            on_cancel()
        raise
    except OSError as error:
        path = error.filename or "the directory of the credentials"
        raise OAuthError(f"{path}: {error.strerror}", step=STORE_STEP, hint="Check its permissions") from error


def file_name(key: str) -> str:
    """A name of a file for ``key``, which may hold any character."""
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def make_private(directory: Path) -> None:
    """Make a directory that only this user can enter; one that others can change is an ``OAuthError``."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = directory.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        hint = f"Run chmod 700 {directory}"
        raise OAuthError(f"other users can change {directory}", step=STORE_STEP, hint=hint)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
