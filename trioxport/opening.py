"""``open_transport``, ``connect_transport`` and ``serve_transport``: they compose the stack of a connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeGuard, cast

import trio

from trioxport._causes import as_listen_error, failure_in
from trioxport._endpoint import message_channels
from trioxport._immediate import Immediate, ImmediateSupervisor
from trioxport._supervisor import Supervisor, Terms, logger, open_tasks
from trioxport.abc import (
    Accept,
    Codec,
    FrameChannels,
    FrameLayer,
    Layer,
    Listener,
    MessageChannels,
    MessageLayer,
    Transport,
)
from trioxport.codecs.json import JSON
from trioxport.config import Target, describe, to_listener, to_transport
from trioxport.connection import Connection
from trioxport.errors import ConnectError, ConnectionLost, TransportError, UsageError
from trioxport.frames import Limits
from trioxport.transports.reconnecting import Reconnect, Reconnecting

DEFAULT_LIMITS: Final = Limits()
CONNECT_TIMEOUT: Final = 30.0
CLOSE_TIMEOUT: Final = 5.0


@asynccontextmanager
async def open_transport(
    target: Target,
    *,
    layers: Sequence[Layer] = (),
    codec: Codec = JSON,
    limits: Limits = DEFAULT_LIMITS,
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    allow_plaintext: bool = False,
    reconnect: Reconnect | None = None,
) -> AsyncGenerator[Connection]:
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
    transport, layers = _reconnecting(target, layers, reconnect)
    async with _open(transport, terms, layers) as connection:
        yield connection


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
    terms = Terms("client", describe(target), codec, limits, connect_timeout, close_timeout, allow_plaintext)
    transport, layers = _reconnecting(target, layers, reconnect)
    message_layers, frame_layers = split_layers(layers)
    supervisor = Supervisor(transport, terms, outlives_cancel=False)
    nursery.start_soon(supervisor.run)
    return _compose(await supervisor.entered(), message_layers, frame_layers, supervisor)


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
    terms = Terms("server", describe(target), codec, limits, connect_timeout, close_timeout, allow_plaintext)
    listener = to_listener(target)
    under: Callable[[Terms], Listener] | None = getattr(listener, "under", None)
    if under is not None:
        listener = under(terms)
    raising = getattr(listener, "single_connection", False)
    started = _Started(task_status)
    try:
        accept = accepting(handler, terms, layers, raising=raising)
        await listener.listen(accept, allow_plaintext=allow_plaintext, task_status=started)
    except BaseException as error:
        if raising and started.told:
            raise
        failure = _listening_failure(failure_in(error), started, terms.target)
        raise failure from failure.__cause__
    if not started.told:
        raise UsageError("cannot listen: the listener ended before it listened", target=terms.target)


class _Started:
    """Passes on that a server listens, and knows whether it does."""

    def __init__(self, inner: trio.TaskStatus[list[str]]) -> None:
        self._inner = inner
        self.told = False

    def started(self, value: list[str] | None = None) -> None:
        self.told = True
        self._inner.started(value or [])


def _listening_failure(failure: Exception, started: _Started, target: str) -> Exception:
    """What a listener raised, about its target: a ``UsageError`` that says why it does not listen, or what ended it."""
    error = failure if started.told else as_listen_error(failure)
    if isinstance(error, TransportError):
        error.target = error.target or target
    return error


def accepting(
    handler: Callable[[Connection], Awaitable[object]], terms: Terms, layers: Sequence[Layer], *, raising: bool = False
) -> Accept:
    """What runs ``handler`` over an accepted connection; unless it is ``raising``, what goes wrong there is logged."""
    split = split_layers(layers)

    async def accept(transport: Transport) -> None:
        try:
            if getattr(transport, "immediate", False):
                await _handle_at_once(handler, cast("Immediate", transport), terms, split)
            else:
                async with _open(transport, terms, layers) as connection:
                    await handler(connection)
        except BaseException as error:
            if raising:
                raise
            _log_failure(failure_in(error))

    return accept


def _log_failure(error: Exception) -> None:
    """One connection of many went wrong: that ends there, and is told."""
    if isinstance(error, ConnectError | ConnectionLost):
        logger.info("a client's connection failed: %s", error)
    else:
        logger.error("a connection's handler failed, and its connection was closed", exc_info=error)


@asynccontextmanager
async def _open(transport: Transport, terms: Terms, layers: Sequence[Layer]) -> AsyncGenerator[Connection]:
    message_layers, frame_layers = split_layers(layers)
    async with open_tasks() as tasks:
        supervisor = Supervisor(transport, terms, outlives_cancel=True)
        tasks.start_soon(supervisor.run)
        connection = _compose(await supervisor.entered(), message_layers, frame_layers, supervisor)
        try:
            yield connection
        except BaseException:
            with suppress(trio.Cancelled, TransportError):  # the block's exception goes on, and nothing in its place
                await connection.aclose()
            raise
        await connection.aclose()


def _reconnecting(
    target: Target, layers: Sequence[Layer], policy: Reconnect | None
) -> tuple[Transport, Sequence[Layer]]:
    """The transport under the policy, and the layers that remain: frame layers start anew with each connection."""
    if policy is None:
        return to_transport(target), layers
    message_layers, frame_layers = split_layers(layers)
    return Reconnecting(target, policy, frame_layers), message_layers


async def _handle_at_once(
    handler: Callable[[Connection], Awaitable[object]],
    transport: Immediate,
    terms: Terms,
    split: tuple[list[MessageLayer], list[FrameLayer]],
) -> None:
    """Run ``handler`` over a transport that waits for nothing: only layers can have tasks, or something to flush."""
    if split == ([], []):
        supervisor = ImmediateSupervisor(transport, terms, None)
        try:
            await handler(_compose(supervisor.frames, *split, supervisor))
        finally:
            supervisor.finish()
        return
    async with open_tasks() as tasks:
        supervisor = ImmediateSupervisor(transport, terms, tasks)
        try:
            connection = _compose(supervisor.frames, *split, supervisor)
            await handler(connection)
            await connection.aclose()
        finally:
            supervisor.finish()
        tasks.cancel_scope.cancel()


def split_layers(layers: Sequence[Layer]) -> tuple[list[MessageLayer], list[FrameLayer]]:
    """The message layers and the frame layers, each with the one closest to the application first."""
    message_layers: list[MessageLayer] = []
    frame_layers: list[FrameLayer] = []
    for layer in layers:
        if _is_frame_layer(layer):
            frame_layers.append(layer)
        elif not _is_message_layer(layer):
            raise TypeError(f"{layer!r} is no layer: it has neither level = 'message' nor level = 'frame'")
        elif frame_layers:
            raise TypeError(
                f"message layer {layer!r} comes after frame layer {frame_layers[-1]!r}: message layers are closer to "
                "the application, so list them first"
            )
        else:
            message_layers.append(layer)
    return message_layers, frame_layers


def _is_message_layer(layer: Layer) -> TypeGuard[MessageLayer]:
    return getattr(layer, "level", None) == "message"


def _is_frame_layer(layer: Layer) -> TypeGuard[FrameLayer]:
    return getattr(layer, "level", None) == "frame"


def _compose(
    frames: FrameChannels, message_layers: list[MessageLayer], frame_layers: list[FrameLayer], supervisor: Supervisor
) -> Connection:
    try:
        for frame_layer in reversed(frame_layers):
            frames = frame_layer.wrap(frames, supervisor)
        messages: MessageChannels = message_channels(frames, supervisor)
        for message_layer in reversed(message_layers):
            messages = message_layer.wrap(messages, supervisor)
    except BaseException:
        supervisor.abort()
        raise
    return Connection(messages, supervisor)
