"""The config objects: ``Reconnecting`` opens one target again after a loss, ``Failover`` moves to another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs

from trioxport._core.backoff import Backoff
from trioxport._diagnostics.validators import SECONDS, instance_of
from trioxport.abc import FrameChannels, FrameLayer, Scope
from trioxport.errors import UsageError
from trioxport.targets import NamedTransport, Target, describe
from trioxport.transports.reconnecting.policy import Reconnect

MINIMAL_BACKOFF: Final = Backoff(base=0.001, cap=0.001)


def _all_named(targets: Iterable[Target]) -> tuple[NamedTransport, ...]:
    if isinstance(targets, str):
        raise TypeError(f"Failover takes a list of targets: Failover([{describe(targets)!r}])")
    return tuple(NamedTransport.of(target) for target in targets)


def _named(target: Target) -> NamedTransport:
    return NamedTransport.of(target)


def _not_empty(_failover: Failover, _field: attrs.Attribute[Any], targets: Sequence[NamedTransport]) -> None:
    if not targets:
        raise UsageError("there is no target to open")


@attrs.frozen
class Failover:
    """Several targets for one service: the first that opens is used, and the next one after its loss.

    The last is followed by the first. Alone, it tries each target once, without waiting, before it fails;
    ``open_transport(Failover([...]), reconnect=...)`` waits between rounds by that policy, and a round is one
    attempt. ``connection.info.target`` names the open one.

    Args:
        targets: URLs, config objects or transports, in the order of preference.
        attempt_timeout: Seconds that each may take to open.
    """

    targets: Sequence[NamedTransport] = attrs.field(converter=_all_named, validator=_not_empty)
    attempt_timeout: float = attrs.field(default=10.0, validator=SECONDS, kw_only=True)

    def __str__(self) -> str:
        return " or ".join(target.name for target in self.targets)

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        policy = Reconnect(backoff=MINIMAL_BACKOFF, attempts=len(self.targets))
        return _keep_connected(self.targets, (), policy, self.attempt_timeout, scope)


@attrs.frozen
class Reconnecting:
    """A transport that opens another transport again after the loss of its connection.

    ``open_transport(target, reconnect=policy)`` makes one. Requests in flight settle as ``Undelivered`` with the
    outcome ``"unknown"``, messages that were accepted and never written as ``"not_sent"``, and the channels go on.
    Leaving ends the attempts; so does a half-close.

    Args:
        target: A URL, a config object or a transport.
        policy: The reconnection policy.
        layers: Frame layers that wrap each connection anew, the first closest to the application.
    """

    target: NamedTransport = attrs.field(converter=_named)
    policy: Reconnect = attrs.field(factory=Reconnect, validator=instance_of(Reconnect, "a Reconnect(...)"))
    layers: Sequence[FrameLayer] = ()

    def __str__(self) -> str:
        return self.target.name

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        inner = self.target.transport
        if isinstance(inner, Failover):
            return _keep_connected(inner.targets, self.layers, self.policy, inner.attempt_timeout, scope)
        return _keep_connected((self.target,), self.layers, self.policy, math.inf, scope)


def _keep_connected(
    targets: Sequence[NamedTransport],
    layers: Sequence[FrameLayer],
    policy: Reconnect,
    attempt_timeout: float,
    scope: Scope,
) -> AbstractAsyncContextManager[FrameChannels]:
    # Imported here, since every program imports the classes above and few connect again.
    from trioxport.transports.reconnecting.reconnector import keep_connected
    from trioxport.transports.reconnecting.target_opener import Plan

    return keep_connected(Plan(targets, layers, policy, attempt_timeout), scope)
