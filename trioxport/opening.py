"""``open_transport``, ``connect_transport`` and ``serve_transport``: transport, codec and layers as one connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Final, cast

import trio

from trioxport._core.error_mapping import as_listen_error
from trioxport._core.inline import InlineSupervisor
from trioxport._core.message_channels import message_channels
from trioxport._core.nursery import failure_in, open_bare_nursery, require_trio
from trioxport._core.supervisor import Supervisor
from trioxport._diagnostics import logger
from trioxport._diagnostics.refusal_log import RefusalLog
from trioxport._diagnostics.validators import ASYNC_FUNCTION, OptionCheck, instance_of, names_options
from trioxport._layering import LayerSplit, split_layers
from trioxport.abc import (
    CLOSE_TIMEOUT,
    CONNECT_TIMEOUT,
    Codec,
    ConnectionSettings,
    EventObserver,
    FrameChannels,
    InlineTransport,
    Layer,
    MessageChannels,
    RefusalObserver,
    Transport,
)
from trioxport.codecs.json import JSON
from trioxport.connection import Connection
from trioxport.errors import ConnectError, ConnectionLost, TransportError, UsageError
from trioxport.frames import Limits
from trioxport.targets import Target, TargetWithOptions, describe, to_listener, to_transport

if TYPE_CHECKING:
    from trioxport.transports.reconnecting import Reconnect

DEFAULT_LIMITS: Final = Limits()

_RUNNING: Final = OptionCheck("awaitable, as it is with async def", lambda value: isinstance(value, Awaitable))


@names_options
def open_transport(
    target: Target,
    *,
    layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    limits: Limits = DEFAULT_LIMITS,
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    allow_plaintext: bool = False,
    reconnect: Reconnect | None = None,
) -> AbstractAsyncContextManager[Connection]:
    """Open a connection to ``target`` for the time of a block: ``async with open_transport(url) as (tx, rx)``.

    Args:
        target: A URL, a config object such as ``Stdio(...)``, a transport, or an open connection of a library.
        layers: The layers, the first closest to the application; message layers before frame layers.
        codec: The encoding of messages; both sides need the same.
        limits: The limits of sizes and buffers, for both directions.
        connect_timeout: Seconds until the attempt to connect ends with ``ConnectTimeout``.
        close_timeout: Seconds that leaving the block may take to flush, and to wait for the peer's end.
        allow_plaintext: Whether an unencrypted connection may leave this machine.
        reconnect: The policy by which a lost connection is opened again; by default it is not.

    Raises:
        ConnectError: The connection cannot be opened; the classes ``NameResolutionError``, ``ServerUnreachable``,
            ``ConnectTimeout``, ``TLSError`` and ``SpawnError`` name the reason.
        UsageError: The target, or the combination of arguments, cannot work.
        TypeError: ``layers`` holds something that is not a layer, or is in the wrong order.
        TransportError: On leaving, a failure that neither ``tx`` nor ``rx`` has raised.

    An exception of the block leaves it as the same object. Leaving the block flushes, closes and releases everything
    within ``close_timeout``. A cancelled block does not wait for the peer, and still leaves no task, socket or process
    behind.
    """
    if isinstance(target, TargetWithOptions):
        options = target.options(
            layers=layers,
            limits=limits,
            connect_timeout=connect_timeout,
            close_timeout=close_timeout,
            allow_plaintext=allow_plaintext,
            reconnect=reconnect,
        )
        return open_transport(target.target, codec=codec, **options)
    settings = ConnectionSettings(
        "client", describe(target), codec, limits, connect_timeout, close_timeout, allow_plaintext
    )
    transport, split = _reconnecting(target, split_layers(layers), reconnect)
    return _open(Supervisor(transport, settings, outlives_cancel=True), split)


@names_options
async def connect_transport(
    nursery: trio.Nursery,
    target: Target,
    *,
    layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    limits: Limits = DEFAULT_LIMITS,
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    allow_plaintext: bool = False,
    reconnect: Reconnect | None = None,
) -> Connection:
    """Open a connection in the caller's nursery. It stays open until ``await connection.aclose()``, from any task.

    Arguments and exceptions are those of :func:`open_transport`. Cancelling the nursery closes the connection at once;
    a nursery that is not cancelled waits for it.
    """
    require_trio("connect_transport")
    if isinstance(target, TargetWithOptions):
        options = target.options(
            layers=layers,
            limits=limits,
            connect_timeout=connect_timeout,
            close_timeout=close_timeout,
            allow_plaintext=allow_plaintext,
            reconnect=reconnect,
        )
        return await connect_transport(nursery, target.target, codec=codec, **options)
    settings = ConnectionSettings(
        "client", describe(target), codec, limits, connect_timeout, close_timeout, allow_plaintext
    )
    transport, split = _reconnecting(target, split_layers(layers), reconnect)
    supervisor = Supervisor(transport, settings, outlives_cancel=False)
    nursery.start_soon(supervisor.run)
    return _compose(await supervisor.entered(), split, supervisor)


@names_options
async def serve_transport(
    handler: Callable[[Connection], Awaitable[object]],
    target: Target,
    *,
    layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    limits: Limits = DEFAULT_LIMITS,
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    allow_plaintext: bool = False,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run ``handler`` once for each connection that ``target`` accepts, until cancelled.

    ``await nursery.start(serve_transport, handler, "tcp://127.0.0.1:0")`` returns the addresses that it listens on, as
    targets for clients. Arguments are those of :func:`open_transport`, for each accepted connection;
    ``allow_plaintext`` is needed to listen beyond loopback without encryption.

    The connection is closed when its handler returns or raises. An exception of a handler is logged (on ``trioxport``)
    and the server goes on; over ``stdio:``, which has a single connection, it is raised here.

    Raises:
        UsageError: The target cannot be served, or its address is in use. So is any exception of a listener before it
            listens, apart from a ``TransportError``.
        TransportError: The listener ended, or cannot begin, for another reason.
    """
    require_trio("serve_transport")
    name = describe(target)
    refusals = RefusalLog(name, refusal_counter(layers))
    settings = ConnectionSettings(
        "server",
        name,
        codec,
        limits,
        connect_timeout,
        close_timeout,
        allow_plaintext,
        refusals,
        event_counter(layers),
    )
    started = _ListeningStatus(task_status, name)
    acceptor = HandlerAcceptor(handler, settings, layers)
    try:
        await to_listener(target).listen(acceptor, settings, task_status=started)
    except BaseException as error:
        if started.is_listening and acceptor.serves_only_one:
            raise
        failure = _listening_failure(failure_in(error), started, settings.target)
        raise failure from failure.__cause__
    finally:
        if started.is_listening:
            logger.info("%s: stopped serving", settings.target)
    if not started.is_listening:
        raise UsageError("cannot listen: the listener ended before it listened", target=settings.target)


class _ListeningStatus:
    """The ``task_status`` of a listener: it logs the addresses, and remembers that the server listens."""

    def __init__(self, inner: trio.TaskStatus[list[str]], target: str) -> None:
        self._inner = inner
        self._target = target
        self.is_listening = False

    def started(self, value: list[str] | None = None) -> None:
        self.is_listening = True
        logger.info("serving %s", ", ".join(value or [self._target]))
        self._inner.started(value or [])


def _listening_failure(failure: Exception, started: _ListeningStatus, target: str) -> Exception:
    """The failure of a listener, with its target; a ``UsageError`` if it had not begun to listen."""
    error = failure if started.is_listening else as_listen_error(failure)
    if isinstance(error, TransportError):
        error.target = error.target or target
    return error


def refusal_counter(layers: Sequence[Layer]) -> Callable[[str], None]:
    """A function that passes the reason of a refusal to the layers that count refusals."""
    observers = [layer for layer in split_layers(layers).messages if isinstance(layer, RefusalObserver)]

    def count(reason: str) -> None:
        for observer in observers:
            observer.note_refusal(reason)

    return count


def event_counter(layers: Sequence[Layer]) -> Callable[[str], None]:
    """A function that passes the name of an event to the layers that count events."""
    observers = [layer for layer in split_layers(layers).messages if isinstance(layer, EventObserver)]

    def count(event: str) -> None:
        for observer in observers:
            observer.note_event(event)

    return count


class HandlerAcceptor:
    """The :class:`~trioxport.abc.Acceptor` of a server: it opens accepted connections and runs the handler over them.

    Args:
        handler: The application's function, called with each connection.
        settings: The settings of the connections.
        layers: The layers of each connection.

    Attributes:
        serves_only_one: Whether the listener has a single connection, so that the server raises its handler's
            exception.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Awaitable[object]],
        settings: ConnectionSettings,
        layers: Sequence[Layer],
    ) -> None:
        ASYNC_FUNCTION.option("handler", handler)
        self._handler = handler
        self._settings = settings
        self._split = split_layers(layers)
        self.serves_only_one = False

    async def serve(self, transport: Transport, peer: str | None = None) -> None:
        supervisor = Supervisor(transport, self._settings, outlives_cancel=True, peer=peer)
        try:
            async with _open(supervisor, self._split) as connection:
                await self._running(connection)
        except BaseException as error:
            failure = failure_in(error)
            if isinstance(failure, ConnectError) and not supervisor.has_opened:
                self._settings.refusals.note_error(failure, supervisor.info.peer)
            else:
                _log_failure(failure)

    async def serve_only(self, transport: Transport, peer: str | None = None) -> None:
        self.serves_only_one = True
        supervisor = Supervisor(transport, self._settings, outlives_cancel=True, peer=peer)
        async with _open(supervisor, self._split) as connection:
            await self._running(connection)

    async def serve_inline(self, transport: InlineTransport, peer: str | None = None) -> None:
        try:
            if self._split.messages or self._split.frames:
                await self._serve_in_nursery(transport, peer)
            else:  # only layers start tasks, or have to flush
                supervisor = InlineSupervisor(transport, self._settings, None, peer)
                try:
                    await self._running(_compose(supervisor.frames, self._split, supervisor))
                finally:
                    supervisor.finish()
        except BaseException as error:
            _log_failure(failure_in(error))

    async def _serve_in_nursery(self, transport: InlineTransport, peer: str | None) -> None:
        split = self._split
        async with open_bare_nursery() as tasks:
            supervisor = InlineSupervisor(transport, self._settings, tasks, peer)
            try:
                connection = _compose(supervisor.frames, split, supervisor)
                await self._running(connection)
                await connection.aclose()
            finally:
                supervisor.finish()
            tasks.cancel_scope.cancel()

    def _running(self, connection: Connection) -> Awaitable[object]:
        """The handler's coroutine; a coroutine of this class around it would cost memory for each connection."""
        running = self._handler(connection)
        if type(cast("object", running)) is not CoroutineType:  # the check of an abstract class takes longer
            _RUNNING.option("the return value of the handler", running)
        return running


def _log_failure(error: Exception) -> None:
    """Log the failure of one accepted connection; the server goes on."""
    if isinstance(error, ConnectError | ConnectionLost):
        logger.info("a client's connection failed: %s", error)
    else:
        logger.error("a connection's handler failed, and its connection was closed", exc_info=error)


@asynccontextmanager
async def _open(supervisor: Supervisor, split: LayerSplit) -> AsyncGenerator[Connection]:
    require_trio("open_transport")
    async with open_bare_nursery() as tasks:
        tasks.start_soon(supervisor.run)
        connection = _compose(await supervisor.entered(), split, supervisor)
        try:
            yield connection
        except BaseException:
            with suppress(trio.Cancelled, TransportError):  # the block's own exception is the one to raise
                await connection.aclose()
            raise
        await connection.aclose()


def _reconnecting(target: Target, split: LayerSplit, policy: Reconnect | None) -> tuple[Transport, LayerSplit]:
    """The transport, under the policy if there is one; it then wraps its connections in the frame layers by itself."""
    if policy is None:
        return to_transport(target), split
    from trioxport.transports.reconnecting import Reconnect, Reconnecting

    instance_of(Reconnect, "a Reconnect(...), or None").option("reconnect", policy)
    return Reconnecting(target, policy, split.frames), LayerSplit(split.messages, ())


def _compose(frames: FrameChannels, split: LayerSplit, supervisor: Supervisor) -> Connection:
    try:
        for frame_layer in reversed(split.frames):
            frames = frame_layer.wrap(frames, supervisor)
        messages: MessageChannels = message_channels(frames, supervisor)
        for message_layer in reversed(split.messages):
            messages = message_layer.wrap(messages, supervisor)
    except BaseException:
        supervisor.abort()
        raise
    return Connection(messages, supervisor)
