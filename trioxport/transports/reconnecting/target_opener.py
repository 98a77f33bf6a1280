"""Opens the next target, and replays the handshake and subscriptions there."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from trioxport._core.supervisor import Supervisor
from trioxport.abc import FrameLayer, Scope
from trioxport.errors import ConnectError, ConnectTimeout, TransportError
from trioxport.targets import NamedTransport
from trioxport.transports.reconnecting.handshake import encoded
from trioxport.transports.reconnecting.linked_connection import LinkedConnection
from trioxport.transports.reconnecting.policy import Reconnect
from trioxport.transports.reconnecting.state import ReconnectState


@attrs.frozen
class Plan:
    """The configuration of a lasting connection.

    Args:
        targets: The targets in the order of preference.
        layers: Frame layers that wrap each connection anew, the first closest to the application.
        policy: The reconnection policy.
        attempt_timeout: Seconds that each target may take to open.
    """

    targets: Sequence[NamedTransport]
    layers: Sequence[FrameLayer]
    policy: Reconnect
    attempt_timeout: float


class TargetOpener:
    """Opens the targets in turn; the connections run in the nursery ``tasks``."""

    def __init__(self, plan: Plan, scope: Scope, state: ReconnectState, tasks: trio.Nursery) -> None:
        self._plan = plan
        self._scope = scope
        self._state = state
        self._tasks = tasks
        self._next = 0

    async def connect(self) -> LinkedConnection:
        """Connect to the first target that opens, beginning with the one after the lost one."""
        targets = self._plan.targets
        failures: list[TransportError] = []
        for turn in range(len(targets)):
            place = (self._next + turn) % len(targets)
            try:
                connection = await self._open(targets[place])
            except TransportError as error:
                error.target = error.target or targets[place].name
                failures.append(error)
            else:
                self._next = place + 1
                return connection
        raise _none_opens(failures)

    async def _open(self, target: NamedTransport) -> LinkedConnection:
        seconds = min(self._plan.attempt_timeout, self._scope.settings.connect_timeout)
        deadline = trio.current_time() + seconds
        self._begin_info(target)
        settings = attrs.evolve(self._scope.settings, target=target.name, connect_timeout=seconds)
        supervisor = Supervisor(target.transport, settings, outlives_cancel=False, within=self._scope)
        self._tasks.start_soon(supervisor.run)
        frames = await supervisor.entered()
        connection = LinkedConnection(supervisor, frames)
        try:
            for layer in reversed(self._plan.layers):
                frames = layer.wrap(frames, supervisor)
            connection = LinkedConnection(supervisor, frames)
            with trio.CancelScope(deadline=deadline) as in_time:
                await self._prepare(connection)
            if in_time.cancelled_caught:
                raise ConnectTimeout(f"the repeated initialize was not answered within {seconds:g} s")
        except BaseException:
            supervisor.abort()
            self._state.withdraw_questions()
            await connection.close()
            raise
        return connection

    async def _prepare(self, connection: LinkedConnection) -> None:
        """Replay handshake and subscriptions before application traffic."""
        state = self._state
        await state.handshake.replay(connection, state.keep_early)
        for request in state.resend:
            if self._scope.in_flight.get(request.id) is request:
                await connection.send_first(encoded(state.reissues.issue(request), self._scope))

    def _begin_info(self, target: NamedTransport) -> None:
        """Reset ``connection.info`` for the new peer."""
        info = self._scope.info
        info.target = target.name
        info.peer = info.pid = info.session_id = info.tls = info.principal = info.token = None
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
