"""Failing listeners of other authors: ``serve_transport`` raises one error with the target and the reason."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from trioxport import Connection, ServerUnreachable, TransportError, UsageError, open_transport, serve_transport
from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.testing import MemoryWire


async def nothing(connection: Connection) -> None:
    await trio.sleep_forever()


async def fail(error: Exception) -> None:
    raise error


async def fail_in_a_nursery(error: Exception) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail, error)


@attrs.frozen
class Broker:
    """A listener that fails before or after it listens.

    Args:
        error: How.
        how: In which way it raises it.
        listens_first: Whether it listens before.
    """

    error: Exception | None
    how: Callable[[Exception], Awaitable[None]] = fail
    listens_first: bool = False

    def __str__(self) -> str:
        return "broker://host"

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if self.listens_first:
            task_status.started(["broker://host"])
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            await self.how(self.error)


IN_USE = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@pytest.mark.parametrize("how", [fail, fail_in_a_nursery])
@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (IN_USE, UsageError, "cannot listen: Address already in use. Choose another port, or 0"),
        (PermissionError(errno.EACCES, "Permission denied"), UsageError, "cannot listen: Permission denied"),
        (socket.gaierror(-2, "Name or service not known"), UsageError, "cannot listen: Name or service not known"),
        (KeyError("bug"), UsageError, r"cannot listen: the listener failed: KeyError\('bug'\)"),
        (ServerUnreachable("no broker"), ServerUnreachable, "no broker. Check that the server runs"),
        (UsageError("not like this"), UsageError, "not like this"),
    ],
)
async def test_an_exception_before_it_listens_is_a_usage_error(
    how: Any, error: Exception, kind: type[TransportError], reason: str
) -> None:
    with pytest.raises(TransportError, match=f"^broker://host: {reason}") as caught:
        await serve_transport(nothing, Broker(error, how))
    assert type(caught.value) is kind
    assert caught.value is error or isinstance(caught.value.__cause__, type(error))


async def test_an_exception_before_it_listens_is_raised_by_start() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_transport, nothing, Broker(IN_USE))
    [error] = caught.value.exceptions
    assert isinstance(error, UsageError)


@pytest.mark.parametrize("how", [fail, fail_in_a_nursery])
@pytest.mark.parametrize("error", [ServerUnreachable("the broker left"), KeyError("bug"), OSError(5, "I/O error")])
async def test_a_later_exception_is_raised_as_it_is(how: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await serve_transport(nothing, Broker(error, how, listens_first=True))
    assert caught.value is error
    if isinstance(error, TransportError):
        assert error.target == "broker://host"


async def test_one_that_returns_without_listening_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="broker://host: cannot listen: the listener ended before it listened"):
        await serve_transport(nothing, Broker(None))


async def test_one_that_returns_after_it_listened_ends_the_server() -> None:
    await serve_transport(nothing, Broker(None, listens_first=True))


@attrs.frozen
class Single:
    """A listener with one connection to serve."""

    wire: MemoryWire

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([])
        await acceptor.serve_only(self.wire.server)


@pytest.mark.parametrize("error", [OSError(5, "mine"), ExceptionGroup("mine", [ValueError("mine")])])
async def test_the_exception_of_the_only_connections_handler_stays_the_same_object(error: Exception) -> None:
    async def handler(connection: Connection) -> None:
        raise error

    wire = MemoryWire(1)
    async with open_transport(wire.client):
        with pytest.raises(type(error)) as caught:
            await serve_transport(handler, Single(wire))
    assert caught.value is error
