"""A file of bearer tokens: its lines, its changes, and nothing of it in any output."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import pytest

from trioxport import UsageError
from trioxport.auth import TokenFile, token_file
from trioxport.auth.token_file import MAX_FILE_BYTES

TOKEN: Final = "c2VjcmV0-of-ada=="


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of tokens, whose changes are looked for at each use."""
    monkeypatch.setattr(token_file, "CHECK_SECONDS", 0.0)
    path = tmp_path / "tokens"
    path.write_text(f"# the clients\n\n{TOKEN} ada lovelace\nsecond\n")
    return path


def write(path: Path, text: str | None) -> None:
    """Write the file, or remove it."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


async def test_tokens_and_their_principals(tokens: Path) -> None:
    verify = TokenFile(tokens)
    assert await verify(TOKEN) == "ada lovelace"
    assert await verify("second") == "line 4"
    assert await verify("third") is None
    assert await verify("#") is None
    assert TOKEN not in repr(verify) + str(vars(verify))


async def test_a_changed_file_is_read_again(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    verify = TokenFile(tokens)
    write(tokens, "another bob\n")
    assert await verify("another") == "bob"
    assert await verify(TOKEN) is None
    assert f"read again: {tokens} (1 tokens)" in caplog.text


async def test_a_change_within_a_second_waits(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "CHECK_SECONDS", 3600.0)
    verify = TokenFile(tokens)
    assert await verify("second") == "line 4"
    write(tokens, "another bob\n")
    assert await verify("another") is None


async def test_a_file_that_became_unusable_leaves_the_tokens_of_before(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verify = TokenFile(tokens)
    write(tokens, "s3cret! ada\n")
    assert await verify(TOKEN) == "ada lovelace"
    assert "line 1 of the file of tokens begins with no bearer token" in caplog.text
    assert "s3cret" not in caplog.text


async def test_without_a_file_no_token_is_valid(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    verify = TokenFile(tokens)
    write(tokens, None)
    assert await verify(TOKEN) is None
    assert "the file of tokens is gone" in caplog.text
    write(tokens, TOKEN)
    assert await verify(TOKEN) == "line 1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no token"),
        (b"# only a comment\n", "has no token"),
        (b"good\nna\xc3\xafve s3cret\n", "line 2 of the file of tokens begins with no bearer token"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"#" * (MAX_FILE_BYTES - 6) + b"\nshort-is-no-token\n", "has more than 1048576 bytes"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        TokenFile(path)
    assert "s3cret" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the file of tokens: No such file or directory"):
        TokenFile(tmp_path / "none")
