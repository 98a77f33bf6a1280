"""Stores: what they keep, who may read it, and their fences within a program and across processes."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import keyring.backend
import keyring.errors
import pytest
import trio
from trio.testing import MockClock

from trioxport import OAuthError, UsageError
from trioxport.auth.oauth import CredentialStore, FileStore, KeychainStore, MemoryStore, OAuthClient
from trioxport.auth.oauth.file_store import default_directory, file_name
from trioxport.auth.oauth.logins import client_in, login_in, to_text
from trioxport.auth.secret import Secret


class Keyring(keyring.backend.KeyringBackend):
    """A keychain in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring is not typed here
        self.texts: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def _open(self) -> None:
        if self.is_locked:
            raise keyring.errors.KeyringLocked("hunter2")

    def get_password(self, service: str, username: str) -> str | None:
        self._open()
        return self.texts.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._open()
        self.texts[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._open()
        del self.texts[service, username]


MAKE: dict[str, Callable[[Path], CredentialStore]] = {
    "memory": lambda _: MemoryStore(),
    "file": FileStore,
    "keychain": lambda directory: KeychainStore(keyring=Keyring(), locks=directory),
}


@pytest.fixture(params=MAKE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CredentialStore:
    return MAKE[request.param](tmp_path / "store")


def held_locks() -> list[str]:
    """The lock files that this process has open: also those of threads whose task no longer waits for the lock."""
    found = list[str]()
    for number in os.listdir("/dev/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/dev/fd/{number}"))
    return [each for each in found if each.endswith(".lock")]


async def threads_are_over() -> None:
    """Wait until each abandoned thread has got its lock, and has given it back."""

    def poll() -> None:
        until = time.monotonic() + 10
        while held_locks() and time.monotonic() < until:
            time.sleep(0.01)

    await trio.to_thread.run_sync(poll)
    assert held_locks() == []


# All stores.


async def test_a_store_keeps_texts_by_key(store: CredentialStore) -> None:
    assert await store.read("a") is None
    await store.write("a", Secret("1 \ud7ff ü"))
    await store.write("b", Secret("2"))
    await store.write("a", Secret("3"))
    assert [await store.read(key) for key in ("a", "b", "c")] == [Secret("3"), Secret("2"), None]
    for key in ("a", "a", "c"):
        await store.write(key, None)
    assert await store.read("a") is None


async def test_a_fence_excludes_others(store: CredentialStore) -> None:
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with store.fence("a", 10):
            inside += 1
            most = max(most, inside)
            await trio.lowlevel.checkpoint()
            inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(work)
    assert most == 1


async def test_fences_of_different_keys_do_not_meet(store: CredentialStore) -> None:
    async with store.fence("a", 1), store.fence("b", 1):
        pass


async def test_a_fence_that_is_held_too_long_fails_closed(store: CredentialStore) -> None:
    async with store.fence("a", 1):

        async def second() -> None:
            with pytest.raises(OAuthError, match=r"has held the lock on the credentials for 0\.05 s") as caught:
                async with store.fence("a", 0.05):
                    pytest.fail("two are inside")
            assert caught.value.retryable

        async with trio.open_nursery() as nursery:
            nursery.start_soon(second)
    async with store.fence("a", 1):
        pass
    await threads_are_over()


async def test_a_cancelled_wait_leaves_the_fence_open(store: CredentialStore) -> None:
    async def wait() -> None:
        async with store.fence("a", 60):
            pytest.fail("two are inside")

    async with store.fence("a", 1), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        for _ in range(10):
            async with store.fence("a", 5):
                pass
    await threads_are_over()


async def test_an_exception_opens_the_fence(store: CredentialStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.fence("a", 1):
            raise ZeroDivisionError
    async with store.fence("a", 1):
        pass


# Files.


async def test_a_file_is_the_users_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "deep" / "store")
    await store.write("login:https://a.test", Secret("hunter2"))
    path = tmp_path / "deep" / "store" / f"{file_name('login:https://a.test')}.json"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    first = os.stat(path).st_ino
    await store.write("login:https://a.test", Secret("hunter3"))
    assert os.stat(path).st_ino != first
    assert os.listdir(path.parent) == [path.name]
    assert "hunter" not in repr(store)


async def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    await store.write("a", Secret("old"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OAuthError, match=r"No space left on device.*Check its permissions"):
        await store.write("a", Secret("new"))
    assert await store.read("a") == Secret("old")
    assert len(os.listdir(tmp_path)) == 1


async def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    with pytest.raises(OAuthError, match=r"other users can change .*Run chmod 700"):
        await FileStore(tmp_path).write("a", Secret("x"))
    with pytest.raises(OAuthError, match="other users can change"):
        async with FileStore(tmp_path).fence("a", 1):
            pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "b", "text": "x"}', b'{"key": "a"}', b'{"a":"\xff"}'])
async def test_a_damaged_file_says_so(tmp_path: Path, content: bytes) -> None:
    await trio.Path(tmp_path / f"{file_name('a')}.json").write_bytes(content)
    with pytest.raises(OAuthError, match=r"is damaged.*Delete it, and log in again"):
        await FileStore(tmp_path).read("a")


def test_the_directory_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_directory() == Path("/state/trioxport/credentials")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_directory() == Path("/home/me/.local/state/trioxport/credentials")


def test_a_system_without_flock_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fcntl", None)
    with pytest.raises(UsageError, match="has no flock"):
        FileStore()


async def test_a_lock_that_arrives_too_late_is_given_back(tmp_path: Path) -> None:
    """The thread may get the lock in the moment in which its task has stopped waiting."""
    from trioxport.auth.oauth.file_store import FileFences, _LockAttempt

    fences = FileFences(tmp_path / "s")
    late = _LockAttempt(fences._acquire)
    late.give_up()
    assert late.run("a") is None
    early = _LockAttempt(fences._acquire)
    assert early.run("a") is not None
    early.give_up()
    async with fences.fence("a", 1):
        pass


async def test_a_lock_that_cannot_be_taken_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OAuthError, match="No locks available"):
        async with FileStore(tmp_path / "s").fence("a", 1):
            pass


# The keychain.


async def test_a_keychain_that_waits_for_a_person_holds_up_no_program_for_ever(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    unlocked = threading.Event()

    class Asking(Keyring):
        def set_password(self, service: str, username: str, password: str) -> None:
            unlocked.wait(20)
            super().set_password(service, username, password)

    backend = Asking()
    store = KeychainStore(keyring=backend, locks=tmp_path)
    with pytest.raises(OAuthError, match=r"did not take a login within 60 s\. .*Unlock it"):
        await store.write("key", Secret("text"))
    unlocked.set()
    assert await store.read("key") == Secret("text")  # behind the write, whose thread goes on


async def test_a_locked_keychain_says_what_to_do(tmp_path: Path) -> None:
    backend = Keyring()
    backend.is_locked = True
    store = KeychainStore(keyring=backend, locks=tmp_path)
    with pytest.raises(OAuthError, match=r"KeyringLocked.*Unlock it, or use a FileStore") as caught:
        await store.read("a")
    assert "hunter2" not in str(caught.value)


async def test_the_backend_of_the_system_is_the_default(tmp_path: Path) -> None:
    backend, before = Keyring(), keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        await KeychainStore("mine", locks=tmp_path).write("a", Secret("x"))
    finally:
        keyring.set_keyring(before)
    assert backend.texts == {("mine", "a"): "x"}


def test_without_keyring_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioxport.auth.oauth.keychain.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install .*keychain"):
        KeychainStore()


# Texts.


def test_a_client_survives_its_text() -> None:
    client = OAuthClient("me", client_secret="s", issuer="https://as.test", redirect_uris=["u"], expires_at=5.0)
    assert client_in(to_text(client)) == client
    assert client_in(None) is None
    assert "hunter2" not in repr(to_text(OAuthClient("hunter2")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "client_id": 7}',
        '{"format": 1, "client_id": [',
    ],
)
def test_a_text_of_another_version_says_so(text: str) -> None:
    for read in (client_in, login_in):
        with pytest.raises(OAuthError, match=r"damaged or of another version.*trioxport logout URL") as caught:
            read(Secret(text))
        assert caught.value.__cause__ is None


async def test_a_wait_for_a_fence_in_memory_can_be_driven_by_a_mock_clock(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with store.fence("a", 1), trio.open_nursery() as nursery:

        async def second() -> None:
            with pytest.raises(OAuthError, match="for 60 s"):
                async with store.fence("a", 60):
                    pass

        nursery.start_soon(second)
