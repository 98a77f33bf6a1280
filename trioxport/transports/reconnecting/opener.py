"""Opens one of the targets, and brings the new connection to where the application believes it to be."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from trioxport._core.supervisor import Supervisor
from trioxport.abc import FrameLayer, Scope
from trioxport.errors import ConnectError, ConnectTimeout, TransportError
from trioxport.targets import NamedTransport
from trioxport.transports.reconnecting.handshake import encoded
from trioxport.transports.reconnecting.link import LinkedConnection
from trioxport.transports.reconnecting.policy import Reconnect
from trioxport.transports.reconnecting.switch import ReconnectState


@attrs.frozen
class Plan:
    """What to keep connected: the targets in their order, what wraps each connection's frames, and for how many
    seconds one target is tried at most."""

    targets: Sequence[NamedTransport]
    layers: Sequence[FrameLayer]
    policy: Reconnect
    attempt_timeout: float


class TargetOpener:
    """Opens the targets in turn; ``tasks`` carries the connections."""

    def __init__(self, plan: Plan, scope: Scope, switch: ReconnectState, tasks: trio.Nursery) -> None:
        self._plan = plan
        self._scope = scope
        self._switch = switch
        self._tasks = tasks
        self._next = 0

    async def connect(self) -> LinkedConnection:
        """A connection to the first target that opens, beginning after the one that was lost."""
        targets = self._plan.targets
        failures: list[TransportError] = []
        for turn in range(len(targets)):
            place = (self._next + turn) % len(targets)
            try:
                link = await self._open(targets[place])
            except TransportError as error:
                error.target = error.target or targets[place].name
                failures.append(error)
            else:
                self._next = place + 1
                return link
        raise _none_opens(failures)

    async def _open(self, target: NamedTransport) -> LinkedConnection:
        seconds = min(self._plan.attempt_timeout, self._scope.settings.connect_timeout)
        deadline = trio.current_time() + seconds
        self._begin_info(target)
        settings = attrs.evolve(self._scope.settings, target=target.name, connect_timeout=seconds)
        supervisor = Supervisor(target.transport, settings, outlives_cancel=False, within=self._scope)
        self._tasks.start_soon(supervisor.run)
        frames = await supervisor.entered()
        link = LinkedConnection(supervisor, frames)
        try:
            for layer in reversed(self._plan.layers):
                frames = layer.wrap(frames, supervisor)
            link = LinkedConnection(supervisor, frames)
            with trio.CancelScope(deadline=deadline) as in_time:
                await self._prepare(link)
            if in_time.cancelled_caught:
                raise ConnectTimeout(f"the repeated initialize was not answered within {seconds:g} s")
        except BaseException:
            supervisor.abort()
            await link.close()
            raise
        return link

    async def _prepare(self, link: LinkedConnection) -> None:
        """What goes before the application's messages on a connection that is not the first."""
        switch = self._switch
        await switch.handshake.replay(link, switch.keep)
        for request in switch.resend:
            if self._scope.in_flight.get(request.id) is request:
                await link.say(encoded(switch.reissues.issue(request), self._scope))

    def _begin_info(self, target: NamedTransport) -> None:
        """What the application knows of its peer is about another one from now on."""
        info = self._scope.info
        info.target = target.name
        info.peer = info.session_id = info.tls = info.principal = info.token = None
        info.headers = {}


def _none_opens(failures: list[TransportError]) -> TransportError:
    if len(failures) == 1:
        return failures[0]
    asked = [failure.retry_after for failure in failures if failure.retry_after is not None]
    error = ConnectError(
        f"none of {len(failures)} targets opens: " + "; ".join(f"{each.target}: {each.reason}" for each in failures),
        retryable=any(failure.retryable for failure in failures),
        retry_after=min(asked, default=None),
    )
    error.__cause__ = failures[-1]
    return error
