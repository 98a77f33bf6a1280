"""Bearer tokens of a file, for servers whose clients are known beforehand."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Final

from trioxport._diagnostics import logger
from trioxport.errors import UsageError

CHECK_SECONDS: Final = 1.0
"""Seconds, at least, between two checks whether the file has changed."""
MAX_FILE_BYTES: Final = 1024 * 1024
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

_Stamp = tuple[int, int, int]


class TokenFile:
    """A verifier of bearer tokens for ``HttpServer(url, verify=TokenFile(path))``: the valid ones are listed in a file.

    A line is ``TOKEN`` or ``TOKEN PRINCIPAL``; empty lines and lines that begin with ``#`` are left out. A token
    without a principal has that of its line, as ``"line 3"``. Tokens are kept as digests and compared in constant time.

    A changed file is read again, after a check at most once a second. If the new one cannot be used, that is logged and
    the tokens of before stay valid; without a file no token is valid.

    Args:
        path: The file.

    Raises:
        UsageError: The file cannot be read, has more than 1 MiB or no token, or has a line of another form.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._stamp = self._found_stamp()
        self._principals: Mapping[bytes, str] = self._read()
        self._checked_at = -math.inf

    def __repr__(self) -> str:
        return f"TokenFile({self._path!r})"

    async def __call__(self, token: str) -> str | None:
        """The principal of ``token``; None if it is not valid."""
        self._renew()
        wanted = _digest(token)
        found: str | None = None
        for digest, principal in self._principals.items():  # all of them: the time does not tell which one it was
            if hmac.compare_digest(digest, wanted):
                found = principal
        return found

    def _renew(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = now
        stamp = self._found_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            logger.error("the file of tokens is gone, and no token is valid: %s", self._path)
            self._principals = {}
            return
        try:
            self._principals = self._read()
        except UsageError as error:
            logger.error("the changed file of tokens is not used, and the tokens of before stay valid: %s", error)
        else:
            logger.info("the file of tokens was read again: %s (%d tokens)", self._path, len(self._principals))

    def _found_stamp(self) -> _Stamp | None:
        """A stamp of the file, which differs after it was replaced or written; None if there is no file."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> Mapping[bytes, str]:
        """The principals by the digests of their tokens. Raises ``UsageError``, which shows nothing of the file."""
        try:
            with open(self._path, "rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:  # its last line would be cut, and a part of a token would be valid
                raise UsageError(f"the file of tokens has more than {MAX_FILE_BYTES} bytes: {self._path}")
            lines = content.decode().splitlines()
        except UnicodeDecodeError:
            raise UsageError(f"the file of tokens is not UTF-8: {self._path}") from None
        except OSError as error:
            raise UsageError(f"cannot read the file of tokens: {error.strerror or error}: {self._path}") from error
        found: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            token, _, principal = line.strip().partition(" ")
            if token.startswith("#") or not token:
                continue
            if not _TOKEN.fullmatch(token):
                raise UsageError(
                    f"line {number} of the file of tokens begins with no bearer token: {self._path}",
                    hint="Write TOKEN or TOKEN PRINCIPAL; a token has letters, digits and - . _ ~ + / =",
                )
            found[_digest(token)] = principal.strip() or f"line {number}"
        if not found:
            raise UsageError(f"the file of tokens has no token: {self._path}", hint="Write one a line")
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
