"""Watches the connection, and has the next one opened when it is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.transports.reconnecting.channels import LastingReceive, LastingSend
from trioxport.transports.reconnecting.link import LinkedConnection
from trioxport.transports.reconnecting.opener import Plan, TargetOpener
from trioxport.transports.reconnecting.policy import Budget
from trioxport.transports.reconnecting.switch import ReconnectState


@asynccontextmanager
async def keep_connected(plan: Plan, scope: Scope) -> AsyncGenerator[FrameChannels]:
    """Channels that outlive the connections behind them."""
    switch = ReconnectState(scope, plan.policy)
    keeper: Reconnector | None = None
    try:
        async with open_bare_nursery() as tasks:
            keeper = Reconnector(plan, scope, switch, tasks)
            await keeper.open()
            tasks.start_soon(keeper.run)
            yield FrameChannels(LastingSend(switch), LastingReceive(switch))
            await keeper.close()
            tasks.cancel_scope.cancel()
    finally:
        switch.end(keeper.failure if keeper is not None else None)


class Reconnector:
    """Keeps one of the targets connected."""

    def __init__(self, plan: Plan, scope: Scope, switch: ReconnectState, tasks: trio.Nursery) -> None:
        self._policy = plan.policy
        self._scope = scope
        self._switch = switch
        self._opener = TargetOpener(plan, scope, switch, tasks)
        self._budget = Budget(plan.policy)
        self._link: LinkedConnection | None = None

    async def open(self) -> None:
        """The first connection. Raises ``ConnectError``, or what else the transport does."""
        try:
            link = await self._opener.connect()
        except TransportError as error:
            found = await self._try_again(error) if self._policy.retry_first else error
            if not isinstance(found, LinkedConnection):
                raise found from found.__cause__
            link = found
        self._use(link)

    async def run(self) -> None:
        """Replace each connection that is lost, until there is to be none any more."""
        while self._link is not None:
            failure = await self._loss_of(self._link)
            if failure is None:
                await self._link.over()
                self._switch.end(self.failure)
                return
            await self._replace(self._link, failure)

    async def close(self) -> None:
        """Say goodbye to the peer, if there is a connection."""
        if self._link is not None:
            await self._link.close()

    @property
    def failure(self) -> TransportError | None:
        """What befell the latest connection, unless it would be replaced if this side were not leaving."""
        link = self._link
        failure = None if link is None else link.supervisor.failure
        if link is None or failure is None or not self._scope.leaving or not self._budget.allows(failure):
            return failure
        return failure if link.supervisor.cut_short else None

    # Losing a connection.

    async def _loss_of(self, link: LinkedConnection) -> TransportError | None:
        """Wait for the end of a connection, and return its reason; None for an end after which no other is opened."""
        switch = self._switch
        if switch.deaf:
            await link.channels.receive.aclose()
        if switch.half_closed:
            await link.channels.send.aclose()
        await link.ending(at_peers_end=self._policy.after_end)
        switch.reading = None
        if link.supervisor.failure is not None:
            switch.writing = None
        await self._drain(link)
        failure = await link.supervisor.verdict()
        unanswered = link.supervisor.unanswered
        error = (
            failure
            or unanswered
            or ConnectionLost("the peer ended the connection", target=link.supervisor.settings.target)
        )
        if failure is None and not self._is_loss(error):
            if link.supervisor.peer_is_done:
                self._scope.peer_done(unanswered)
            switch.end()
            return None
        switch.writing = None
        await link.close()
        await link.unused()
        return error

    def _is_loss(self, end: TransportError) -> bool:
        """Whether an orderly end by the peer counts as a loss: a killed server's end looks like one on a socket."""
        if self._policy.after_end:
            return True
        return not self._switch.half_closed and self._budget.allows(end) and bool(self._switch.unanswered())

    async def _drain(self, link: LinkedConnection) -> None:
        """Put what had arrived into the inbox, so that the application finds it there whenever it reads next.

        A transport that keeps its channel open after a loss is waited for as long as leaving it may take.
        """
        switch = self._switch
        patience = self._scope.settings.close_timeout
        with trio.move_on_after(patience):
            while link.receivers:
                await link.released.wait()
        while not link.receivers and not switch.deaf:
            await switch.room()
            with trio.move_on_after(patience) as waiting:
                try:
                    frame = await link.receive()
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    return
                known = switch.received(frame, link)
                if known is not None:
                    switch.keep(known)
            if waiting.cancelled_caught:
                return

    async def _replace(self, link: LinkedConnection, failure: TransportError) -> None:
        switch = self._switch
        self._budget.lost(heard=link.heard, held=link.age)
        if switch.half_closed:
            switch.end(self.failure)
            self._link = None
            return
        switch.settle(failure, link)
        self._link = None
        with trio.CancelScope() as switch.reopening:
            found = await self._try_again(failure)
            if isinstance(found, LinkedConnection):
                self._use(found)
                return
            switch.failure = found
        if switch.reopening.cancelled_caught and self._scope.leaving:
            switch.end()
        else:
            switch.end(failure if switch.failure is failure else _gone_for_good(switch.failure or failure))

    # Opening the next.

    async def _try_again(self, failure: TransportError) -> LinkedConnection | TransportError:
        """The next connection, or the failure after which none is tried."""
        while (delay := self._budget.delay(failure)) is not None:
            logger.warning("%s: %s; trying again in %.1f s", self._scope.settings.target, failure.reason, delay)
            self._switch.failure = failure
            self._scope.set_state("waiting")
            await trio.sleep(delay)
            self._scope.set_state("connecting")
            try:
                return await self._opener.connect()
            except TransportError as error:
                failure = error
        return failure

    def _use(self, link: LinkedConnection) -> None:
        self._link = link
        self._switch.connect(link)
        self._scope.set_state("open")


def _gone_for_good(failure: TransportError) -> TransportError:
    """Why the channels are dead, when the latest attempt ended with ``failure``."""
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
