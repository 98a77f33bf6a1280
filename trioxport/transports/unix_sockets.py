"""Unix sockets: the file of a server's socket, its permissions, and its end."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import trio

from trioxport._diagnostics.validators import OptionCheck, whole_between
from trioxport.errors import ServerUnreachable, UsageError
from trioxport.transports.listening import take_inherited

_ACCOUNT: Final = OptionCheck(
    "a name or a number", lambda value: isinstance(value, str | int) and not isinstance(value, bool)
)


@attrs.frozen
class SocketFile:
    """The permissions of a server's socket file: a client needs the one to write.

    Args:
        mode: The permissions, as ``0o660``; by default only the file's owner may connect.
        user: The owner, by name or number; by default the user of this process. Another one takes privileges.
        group: The group, by name or number; by default that of this process.
    """

    mode: int = attrs.field(default=0o600, validator=whole_between(0, 0o777), repr=oct)
    user: str | int | None = attrs.field(default=None, validator=_ACCOUNT.or_none())
    group: str | int | None = attrs.field(default=None, validator=_ACCOUNT.or_none())

    @property
    def query(self) -> dict[str, str]:
        """The options that are not the default, as the query of a URL has them."""
        members = {"mode": f"{self.mode:o}", "user": self.user, "group": self.group}
        default = {"mode": "600", "user": None, "group": None}
        return {name: str(value) for name, value in members.items() if value != default[name]}

    def apply(self, path: str) -> None:
        """Set the permissions of a file. Raises ``OSError``, or ``UsageError`` for a name that is unknown."""
        if (self.user, self.group) != (None, None):
            os.chown(path, _number(self.user, "user"), _number(self.group, "group"))
        os.chmod(path, self.mode)


@attrs.frozen
class SocketFileOptions:
    """The options of a socket file in the query of a URL."""

    mode: str = "600"
    user: str | None = None
    group: str | None = None

    def socket_file(self) -> SocketFile:
        """The options as an object. Raises ``UsageError``."""
        try:
            mode = int(self.mode, 8)
        except ValueError:
            raise UsageError("mode is no number in octal", hint="Write ?mode=660") from None
        return SocketFile(mode, self.user, self.group)


def _number(account: str | int | None, kind: str) -> int:
    """The number of a user or a group; -1 leaves it as it is."""
    if account is None or isinstance(account, int):
        return -1 if account is None else account
    if account.isdecimal():
        return int(account)
    import grp
    import pwd

    try:
        return pwd.getpwnam(account).pw_uid if kind == "user" else grp.getgrnam(account).gr_gid
    except KeyError:
        raise UsageError(f"there is no {kind} {account!r} on this machine") from None


def check_platform(target: str) -> None:
    """Raise ``UsageError`` where Python has no Unix sockets."""
    if not hasattr(socket, "AF_UNIX"):
        scheme = "http" if "http+unix:" in target else "tcp"
        raise UsageError("this platform has no Unix sockets", target=target, hint=f"Use {scheme}://127.0.0.1")


async def connect_unix(path: str, target: str) -> trio.SocketStream:
    """Connect to a Unix socket. Raises ``ServerUnreachable``, about ``target``."""
    check_platform(target)
    try:
        return await open_connected(path)
    except OSError as error:
        raise ServerUnreachable(f"cannot connect: {error.strerror or error}", target=target) from error


async def open_connected(path: str) -> trio.SocketStream:
    """Connect to a Unix socket. Raises ``OSError``, also where more clients wait than the server takes.

    Linux refuses those with EAGAIN, and Trio takes that for a connection that is under way.
    """
    stream = await trio.open_unix_socket(path)
    try:
        stream.socket.getpeername()
    except OSError as error:
        stream.socket.close()
        raise OSError(errno.EAGAIN, "too many clients wait for the server to accept them") from error
    return stream


@asynccontextmanager
async def listening_at(path: str, file: SocketFile, target: str) -> AsyncGenerator[trio.SocketListener]:
    """Listen at ``path`` for the time of the block, or yield the socket that this process has inherited for it.

    A file without a listener is replaced. The permissions are set before a client can connect; at the end the file is
    removed, unless another server has replaced it. Raises ``UsageError``.
    """
    check_platform(target)
    inherited = take_inherited()
    if inherited:  # the file belongs to the process that has made it
        yield inherited[0]
        return
    await _remove_stale(path, target)
    listener = await _bind(path, file, target)
    mine = os.stat(path).st_ino
    try:
        yield listener
    finally:
        listener.socket.close()
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == mine:
                os.unlink(path)


async def _bind(path: str, file: SocketFile, target: str) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(path)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise UsageError(f"cannot listen: {error.strerror or error}", target=target) from error
        raise
    try:
        file.apply(path)
        sock.listen(socket.SOMAXCONN)
    except (OSError, UsageError) as error:
        sock.close()
        os.unlink(path)
        reason = error.reason if isinstance(error, UsageError) else error.strerror or str(error)
        raise UsageError(f"cannot set the permissions of the socket file: {reason}", target=target) from error
    return trio.SocketListener(sock)


async def _remove_stale(path: str, target: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise UsageError("the file exists and is no socket", target=target)
        stream = await trio.open_unix_socket(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError as error:
        raise UsageError(f"cannot listen: {error.strerror or error}", target=target) from error
    else:
        await stream.aclose()
        raise UsageError("a server listens on this socket already", target=target, hint="Choose another path")
