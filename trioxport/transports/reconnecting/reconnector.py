"""Watches the current connection, and opens the next one after a loss."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.transports.reconnecting.channels import LastingReceive, LastingSend
from trioxport.transports.reconnecting.linked_connection import LinkedConnection
from trioxport.transports.reconnecting.policy import Budget
from trioxport.transports.reconnecting.state import ReconnectState
from trioxport.transports.reconnecting.target_opener import Plan, TargetOpener


@asynccontextmanager
async def keep_connected(plan: Plan, scope: Scope) -> AsyncGenerator[FrameChannels]:
    """Yield channels that outlast the connections behind them."""
    state = ReconnectState(scope, plan.policy)
    reconnector: Reconnector | None = None
    try:
        async with open_bare_nursery() as tasks:
            reconnector = Reconnector(plan, scope, state, tasks)
            await reconnector.open()
            tasks.start_soon(reconnector.run)
            yield FrameChannels(LastingSend(state), LastingReceive(state))
            await reconnector.close()
            tasks.cancel_scope.cancel()
    finally:
        state.end(reconnector.failure if reconnector is not None else None)


class Reconnector:
    """Keeps one of the targets connected; moves :class:`ReconnectState` from connection to connection."""

    def __init__(self, plan: Plan, scope: Scope, state: ReconnectState, tasks: trio.Nursery) -> None:
        self._policy = plan.policy
        self._scope = scope
        self._state = state
        self._opener = TargetOpener(plan, scope, state, tasks)
        self._budget = Budget(plan.policy)
        self._connection: LinkedConnection | None = None

    async def open(self) -> None:
        """Open the first connection. Raises ``ConnectError``, and other errors of the transport."""
        try:
            connection = await self._opener.connect()
        except TransportError as error:
            found = await self._try_again(error) if self._policy.retry_first else error
            if not isinstance(found, LinkedConnection):
                raise found from found.__cause__
            connection = found
        self._use(connection)

    async def run(self) -> None:
        """Replace each lost connection, until an end after which none is opened."""
        while self._connection is not None:
            failure = await self._loss_of(self._connection)
            if failure is None:
                await self._connection.finished()
                self._state.end(self.failure)
                return
            await self._replace(self._connection, failure)

    async def close(self) -> None:
        """Close the current connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()

    @property
    def failure(self) -> TransportError | None:
        """The failure to report on close: the last connection's, unless it would have been retried."""
        connection = self._connection
        failure = None if connection is None else connection.supervisor.failure
        if connection is None or failure is None or not self._scope.leaving or not self._budget.allows(failure):
            return failure
        return failure if connection.supervisor.cut_short else None

    # Losing a connection.

    async def _loss_of(self, connection: LinkedConnection) -> TransportError | None:
        """Wait for the end of a connection; return its loss, or None for an end after which none is opened."""
        state = self._state
        if state.receive_closed:
            await connection.channels.receive.aclose()
        if state.send_closed:
            await connection.channels.send.aclose()
        await connection.wait_for_end(at_peers_end=self._policy.after_end)
        state.reading = None
        if connection.supervisor.failure is not None:
            state.writing = None
        await self._drain(connection)
        failure = await connection.supervisor.verdict()
        unanswered = connection.supervisor.unanswered
        error = (
            failure
            or unanswered
            or ConnectionLost("the peer ended the connection", target=connection.supervisor.settings.target)
        )
        if failure is None and not self._is_loss(error):
            if connection.supervisor.peer_is_done:
                self._scope.peer_done(unanswered)
            state.end()
            return None
        state.writing = None
        await connection.close()
        await connection.no_senders()
        return error

    def _is_loss(self, end: TransportError) -> bool:
        """Whether an orderly end by the peer counts as a loss: on a socket the end of a killed server looks orderly."""
        if self._policy.after_end:
            return True
        return not self._state.send_closed and self._budget.allows(end) and bool(self._state.unanswered())

    async def _drain(self, connection: LinkedConnection) -> None:
        """Move the frames that had arrived into the inbox, for the application to receive later.

        A transport that keeps its channel open after a loss gets ``close_timeout`` seconds.
        """
        state = self._state
        seconds = self._scope.settings.close_timeout
        with trio.move_on_after(seconds):
            while connection.receivers:
                await connection.released.wait()
        while not connection.receivers and not state.receive_closed:
            await state.room()
            with trio.move_on_after(seconds) as waiting:
                try:
                    frame = await connection.receive()
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    return
                known = state.received(frame, connection)
                if known is not None:
                    state.keep(known)
            if waiting.cancelled_caught:
                return

    async def _replace(self, connection: LinkedConnection, failure: TransportError) -> None:
        state = self._state
        self._budget.lost(received=connection.received, open_seconds=connection.age)
        if state.send_closed:
            state.end(self.failure)
            self._connection = None
            return
        state.settle(failure, connection)
        self._connection = None
        with trio.CancelScope() as state.reopening:
            found = await self._try_again(failure)
            if isinstance(found, LinkedConnection):
                self._use(found)
                return
            state.failure = found
        if state.reopening.cancelled_caught and self._scope.leaving:
            state.end()
        else:
            state.end(failure if state.failure is failure else _final_loss(state.failure or failure))

    # Opening the next.

    async def _try_again(self, failure: TransportError) -> LinkedConnection | TransportError:
        """Return the next connection, or the failure after which no attempt is left."""
        while (delay := self._budget.delay(failure)) is not None:
            logger.warning("%s: %s; trying again in %.1f s", self._scope.settings.target, failure.reason, delay)
            self._state.failure = failure
            self._scope.set_state("waiting")
            await trio.sleep(delay)
            self._scope.set_state("connecting")
            try:
                return await self._opener.connect()
            except TransportError as error:
                failure = error
        return failure

    def _use(self, connection: LinkedConnection) -> None:
        self._connection = connection
        self._state.connect(connection)
        self._scope.set_state("open")


def _final_loss(failure: TransportError) -> TransportError:
    """Return the loss to report when the last attempt ended with ``failure``."""
    if isinstance(failure, trio.BrokenResourceError):
        return failure
    error = ConnectionLost(
        f"the connection was lost and could not be opened again: {failure.reason}",
        target=failure.target,
        hint=failure.hint,
        retryable=failure.retryable,
        retry_after=failure.retry_after,
    )
    error.__cause__ = failure
    return error
