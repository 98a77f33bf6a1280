"""``open_transport``, ``connect_transport`` and ``serve_transport``: they compose the stack of a connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, cast

import trio

from trioxport._core.causes import as_listen_error, failure_in
from trioxport._core.inline import Immediate, ImmediateSupervisor
from trioxport._core.message_channels import message_channels
from trioxport._core.nursery import require_trio
from trioxport._core.supervisor import Supervisor, Terms, logger, open_tasks
from trioxport._diagnostics.hints import names_options
from trioxport._diagnostics.refusal_log import RefusalLog
from trioxport._diagnostics.validators import ASYNC_FUNCTION, OptionCheck, instance_of
from trioxport._layering import LayerSplit, split_layers
from trioxport.abc import (
    Accept,
    Codec,
    FrameChannels,
    Layer,
    Listener,
    MessageChannels,
    RefusalObserver,
    Transport,
)
from trioxport.codecs.json import JSON
from trioxport.connection import Connection
from trioxport.errors import ConnectError, ConnectionLost, TransportError, UsageError
from trioxport.frames import Limits
from trioxport.targets import Target, describe, to_listener, to_transport
from trioxport.transports.reconnecting import Reconnect, Reconnecting

DEFAULT_LIMITS: Final = Limits()
CONNECT_TIMEOUT: Final = 30.0
CLOSE_TIMEOUT: Final = 5.0

_RUNNING: Final = OptionCheck("awaitable, as it is with async def", lambda value: isinstance(value, Awaitable))
_POLICY: Final = instance_of(Reconnect, "a Reconnect(...)").or_none()


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
        target: A URL, a config object such as ``Stdio(...)``, or a transport.
        layers: What wraps the channels, the first closest to the application; message layers before frame layers.
        codec: How messages are written; both sides have to agree.
        limits: Bounds for both directions.
        connect_timeout: Seconds until the attempt to connect ends with ``ConnectTimeout``.
        close_timeout: Seconds that leaving the block may take to flush, and to wait for the peer to go.
        allow_plaintext: Whether an unencrypted connection may leave this machine.
        reconnect: Whether, and how, a lost connection is opened again; by default it is not.

    Raises:
        ConnectError: There is no connection; ``NameResolutionError``, ``ServerUnreachable``, ``ConnectTimeout``,
            ``TLSError`` and ``SpawnError`` say more.
        UsageError: The target, or the combination of arguments, cannot work.
        TypeError: ``layers`` holds something that is no layer, or holds layers in the wrong order.
        TransportError: On leaving, a failure that nobody saw at ``tx`` or ``rx``.

    An exception of the block leaves it as the same object. Leaving flushes, closes and reaps within
    ``close_timeout``; when cancelled from around, it waits for nobody, yet leaves nothing behind.
    """
    terms = Terms("client", describe(target), codec, limits, connect_timeout, close_timeout, allow_plaintext)
    transport, split = _reconnecting(target, split_layers(layers), reconnect)
    return _open(Supervisor(transport, terms, outlives_cancel=True), split)


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
    """The same as :func:`open_transport` with the caller's nursery: the connection lives until ``aclose``.

    ``await connection.aclose()`` may be called from any task. A nursery that is cancelled takes its connections with
    it at once; one that is not waits for them.
    """
    require_trio("connect_transport")
    terms = Terms("client", describe(target), codec, limits, connect_timeout, close_timeout, allow_plaintext)
    transport, split = _reconnecting(target, split_layers(layers), reconnect)
    supervisor = Supervisor(transport, terms, outlives_cancel=False)
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

    A handler that returns closes its connection. One that raises closes it too: where there can be more than one
    connection the exception is logged (on ``trioxport``) and the server goes on; over ``stdio:``, which has only one,
    it is raised here.

    Raises:
        UsageError: The target cannot be served, or its address is in use: whatever the listener of another author
            raises before it listens, apart from a ``TransportError``.
        TransportError: Its listener ended, or cannot begin, for another reason.
    """
    require_trio("serve_transport")
    name = describe(target)
    refusals = RefusalLog(name, refusal_counter(layers))
    terms = Terms("server", name, codec, limits, connect_timeout, close_timeout, allow_plaintext, refusals)
    listener = to_listener(target)
    under: Callable[[Terms], Listener] | None = getattr(listener, "under", None)
    if under is not None:
        listener = under(terms)
    raising = getattr(listener, "single_connection", False)
    started = _Started(task_status)
    accept = accepting(handler, terms, layers, raising=raising)
    try:
        await listener.listen(accept, allow_plaintext=allow_plaintext, task_status=started)
    except BaseException as error:
        if raising and started.told:
            raise
        failure = _listening_failure(failure_in(error), started, terms.target)
        raise failure from failure.__cause__
    finally:
        if started.told:
            logger.info("%s: stopped serving", terms.target)
    if not started.told:
        raise UsageError("cannot listen: the listener ended before it listened", target=terms.target)


class _Started:
    """Passes on that a server listens, logs its addresses, and knows whether it does."""

    def __init__(self, inner: trio.TaskStatus[list[str]]) -> None:
        self._inner = inner
        self.told = False

    def started(self, value: list[str] | None = None) -> None:
        self.told = True
        logger.info("serving %s", ", ".join(value or []))
        self._inner.started(value or [])


def _listening_failure(failure: Exception, started: _Started, target: str) -> Exception:
    """The failure of a listener with its target: a ``UsageError`` if it never came to listen, else what ended it."""
    error = failure if started.told else as_listen_error(failure)
    if isinstance(error, TransportError):
        error.target = error.target or target
    return error


def refusal_counter(layers: Sequence[Layer]) -> Callable[[str], None]:
    """A function that tells the layers which count refusals of one."""
    observers = [layer for layer in split_layers(layers).messages if isinstance(layer, RefusalObserver)]

    def count(reason: str) -> None:
        for observer in observers:
            observer.note_refusal(reason)

    return count


def accepting(
    handler: Callable[[Connection], Awaitable[object]], terms: Terms, layers: Sequence[Layer], *, raising: bool = False
) -> Accept:
    """What runs ``handler`` over an accepted connection; unless it is ``raising``, what goes wrong there is logged."""
    ASYNC_FUNCTION.option("handler", handler)
    split = split_layers(layers)

    async def handle(connection: Connection) -> None:
        running = handler(connection)
        _RUNNING.option("what the handler returns", running)
        await running

    async def accept(transport: Transport) -> None:
        supervisor: Supervisor | None = None
        try:
            if getattr(transport, "immediate", False):
                await _handle_at_once(handle, cast("Immediate", transport), terms, split)
            else:
                supervisor = Supervisor(transport, terms, outlives_cancel=True)
                async with _open(supervisor, split) as connection:
                    await handle(connection)
        except BaseException as error:
            if raising:
                raise
            failure = failure_in(error)
            if isinstance(failure, ConnectError) and supervisor is not None and not supervisor.has_opened:
                terms.refusals.note_error(failure, supervisor.info.peer)
            else:
                _log_failure(failure)

    return accept


def _log_failure(error: Exception) -> None:
    """One connection of many went wrong: that ends there, and is told."""
    if isinstance(error, ConnectError | ConnectionLost):
        logger.info("a client's connection failed: %s", error)
    else:
        logger.error("a connection's handler failed, and its connection was closed", exc_info=error)


@asynccontextmanager
async def _open(supervisor: Supervisor, split: LayerSplit) -> AsyncGenerator[Connection]:
    require_trio("open_transport")
    async with open_tasks() as tasks:
        tasks.start_soon(supervisor.run)
        connection = _compose(await supervisor.entered(), split, supervisor)
        try:
            yield connection
        except BaseException:
            with suppress(trio.Cancelled, TransportError):  # the block's exception goes on, and nothing in its place
                await connection.aclose()
            raise
        await connection.aclose()


def _reconnecting(target: Target, split: LayerSplit, policy: Reconnect | None) -> tuple[Transport, LayerSplit]:
    """The transport under the policy, and the layers that remain: its frame layers start anew with each connection."""
    _POLICY.option("reconnect", policy)
    if policy is None:
        return to_transport(target), split
    return Reconnecting(target, policy, split.frames), LayerSplit(split.messages, ())


async def _handle_at_once(
    handler: Callable[[Connection], Awaitable[object]],
    transport: Immediate,
    terms: Terms,
    split: LayerSplit,
) -> None:
    """Run ``handler`` over a transport that waits for nothing: only layers can have tasks, or something to flush."""
    if not (split.messages or split.frames):
        supervisor = ImmediateSupervisor(transport, terms, None)
        try:
            await handler(_compose(supervisor.frames, split, supervisor))
        finally:
            supervisor.finish()
        return
    async with open_tasks() as tasks:
        supervisor = ImmediateSupervisor(transport, terms, tasks)
        try:
            connection = _compose(supervisor.frames, split, supervisor)
            await handler(connection)
            await connection.aclose()
        finally:
            supervisor.finish()
        tasks.cancel_scope.cancel()


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
