"""A program that shares a login with others: each line on its standard input is a request with the shared token.

The line names the point at which it stops within the fence, to be killed there: ``read`` or ``written``, or ``-``.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import keyring.backend
import trio

from trioxport import TransportError
from trioxport.auth import Secret
from trioxport.auth.oauth import CredentialStore, FileStore, KeychainStore, OAuth, OutOfBand


class SharedKeyring(keyring.backend.KeyringBackend):
    """A keychain that several processes share: one file for each entry, replaced as a whole, without any lock."""

    priority = 1

    def __init__(self, directory: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring is not typed here
        self._directory = directory

    def _path(self, service: str, username: str) -> Path:
        return self._directory / hashlib.sha256(f"{service} {username}".encode()).hexdigest()

    def get_password(self, service: str, username: str) -> str | None:
        path = self._path(service, username)
        return path.read_text() if path.exists() else None

    def set_password(self, service: str, username: str, password: str) -> None:
        path = self._path(service, username)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(password)
        new.replace(path)

    def delete_password(self, service: str, username: str) -> None:
        self._path(service, username).unlink()


def shared_store(kind: str, directory: Path) -> CredentialStore:
    """A store in ``directory``: of files, or in a keychain."""
    if kind == "file":
        return FileStore(directory / "store")
    return KeychainStore(keyring=SharedKeyring(directory), locks=directory / "store")


class StoppingStore:
    """A store whose user can be stopped within the fence."""

    def __init__(self, inner: CredentialStore) -> None:
        self._inner = inner
        self._is_inside = False
        self.point = "-"

    async def read(self, key: str) -> Secret | None:
        text = await self._inner.read(key)
        await self._reach("read")
        return text

    async def write(self, key: str, text: Secret | None) -> None:
        await self._inner.write(key, text)
        await self._reach("written")

    @asynccontextmanager
    async def fence(self, key: str, seconds: float) -> AsyncGenerator[None]:
        async with self._inner.fence(key, seconds):
            self._is_inside = True
            yield
            self._is_inside = False

    async def _reach(self, point: str) -> None:
        if self._is_inside and self.point == point:
            say("inside")
            await trio.sleep_forever()


def say(*words: object) -> None:
    sys.stdout.write(f"{' '.join(map(str, words))}\n")
    sys.stdout.flush()


async def main(url: str, kind: str, directory: str) -> None:
    store = StoppingStore(shared_store(kind, Path(directory)))
    auth = OAuth(store=store, interaction=OutOfBand("http://localhost:9/callback"))
    async with httpx.AsyncClient(auth=auth.httpx_auth(url), trust_env=False, timeout=60) as client:
        say("ready")
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            store.point = line.strip()
            try:
                response = await client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
                say(response.status_code)
            except TransportError as error:
                say(type(error).__name__, error)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
