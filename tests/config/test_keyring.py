"""References to a keyring, with keyrings made for the tests."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from trioxport.config import ConfigError, load_servers
from trioxport.transports.http import Http


class MemoryKeyring(keyring.backend.KeyringBackend):
    """Entries in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring is not typed here
        self.asked: list[tuple[str, str]] = []
        self._entries = {("search", "ada"): "a-secret-token", ("https://a.example/mcp", "bob"): "another-token"}

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append((service, username))
        return self._entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


class LockedKeyring(MemoryKeyring):
    """A keyring that cannot be read, as a desktop's is while it is locked."""

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError("a-secret-token is locked away")


@pytest.fixture(autouse=True)
def restored() -> Generator[None]:
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


def loaded(reference: str) -> Any:
    entry = {"url": "https://a.example/mcp", "headers": {"Authorization": f"Bearer {reference}", "X-Key": reference}}
    return load_servers({"mcpServers": {"search": entry}})["search"]


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("${keyring:search/ada}", "a-secret-token"),
        ("${keyring:https://a.example/mcp/bob}", "another-token"),
    ],
)
def test_an_entry_is_the_value_and_is_shown_nowhere(reference: str, value: str) -> None:
    keyring.set_keyring(MemoryKeyring())
    server = loaded(reference)
    transport = server.target.transport
    assert isinstance(transport, Http)
    assert transport.headers == {"Authorization": f"Bearer {value}", "X-Key": value}
    assert value not in f"{server} {server!r} {server.notes}"


@pytest.mark.parametrize(
    ("backend", "reference", "text"),
    [
        (MemoryKeyring, "${keyring:search/eve}", "the keyring has no entry search/eve. Add it: keyring set search eve"),
        (MemoryKeyring, "${keyring:search}", "names no service and user. Write ${keyring:SERVICE/USER}"),
        (LockedKeyring, "${keyring:search/ada}", "the keyring cannot be read: RuntimeError. Check that it is unlocked"),
        (keyring.backends.fail.Keyring, "${keyring:search/ada}", "the keyring cannot be read: NoKeyringError"),
    ],
)
def test_what_cannot_be_read_is_a_problem_of_its_field(backend: Any, reference: str, text: str) -> None:
    keyring.set_keyring(backend())
    with pytest.raises(ConfigError) as raised:
        loaded(reference)
    assert text in str(raised.value)
    fields = [(problem.server, problem.field) for problem in raised.value.problems]
    assert fields == [("search", "headers.Authorization"), ("search", "headers.X-Key")]
    assert "a-secret-token" not in str(raised.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="a keyring reference needs the package keyring"):
        loaded("${keyring:search/ada}")


def test_a_disabled_server_asks_for_nothing() -> None:
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    entry = {"command": "x", "env": {"KEY": "${keyring:search/ada}"}, "disabled": True}
    load_servers({"mcpServers": {"off": entry}})
    assert memory.asked == []
