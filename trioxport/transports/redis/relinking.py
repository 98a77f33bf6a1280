"""A connection to Redis that is opened again with exponential backoff whenever it is lost."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import trio

from trioxport._core.backoff import Backoff
from trioxport.abc import ConnectionSettings
from trioxport.errors import ConnectTimeout, TransportError
from trioxport.transports.redis.link import RedisLink, open_link
from trioxport.transports.redis.losses import loss_log
from trioxport.transports.redis.options import RedisOptions

STABLE_SECONDS: Final = 5.0
"""Seconds that a connection lasts before its loss is answered by the shortest wait again."""

_BACKOFF: Final = Backoff()


async def keep_linked(
    options: RedisOptions,
    target: str,
    use: Callable[[RedisLink], Awaitable[object]],
    is_final: Callable[[TransportError], bool],
    *,
    connect_timeout: float,
    rng: Random | None = None,
) -> None:
    """Open a connection to Redis and let ``use`` have it, again and again, until cancelled.

    Args:
        options: The Redis server.
        target: The target, redacted, for errors and the log.
        use: Uses the connection until that is lost, and raises the loss.
        is_final: Whether an error is raised, rather than logged and followed by another attempt.
        connect_timeout: Seconds that connecting may take.
        rng: The source of the jitter.
    """
    rng = rng or Random()
    attempt = 0
    flaps = False
    with loss_log(target) as log:
        while True:
            opened = math.inf
            try:
                with trio.CancelScope(deadline=trio.current_time() + connect_timeout) as connecting:
                    async with open_link(options, target, connect_timeout=connect_timeout) as link:
                        connecting.deadline = math.inf
                        opened = trio.current_time()
                        if not flaps:
                            log.opened()
                        await use(link)
                error: TransportError = ConnectTimeout(f"Redis did not answer in {connect_timeout:g} s", target=target)
            except TransportError as failure:
                error = failure
            if is_final(error):
                raise error
            is_stable = trio.current_time() - opened > STABLE_SECONDS
            flaps = opened < math.inf and not is_stable
            if is_stable:
                log.opened()
                attempt = 0
            log.lost(error.reason)
            await trio.sleep(_BACKOFF.delay(attempt, rng))
            attempt += 1


async def serve_linked(
    options: RedisOptions,
    settings: ConnectionSettings,
    serve: Callable[[RedisLink, Callable[[], None]], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]],
) -> None:
    """Serve over one connection to Redis after the other, until cancelled. Raises the failure of the first one.

    Args:
        options: The service.
        settings: The settings of the server.
        serve: Serves until the connection is lost, and raises the loss. It calls the function that it is given once
            clients find the server.
        task_status: Takes the address of the service.
    """
    listening = False

    def started() -> None:
        nonlocal listening
        if not listening:
            listening = True
            task_status.started([str(options)])

    await keep_linked(
        options,
        settings.target,
        lambda link: serve(link, started),
        lambda _error: not listening,
        connect_timeout=settings.connect_timeout,
    )
