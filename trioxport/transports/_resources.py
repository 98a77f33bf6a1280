"""Resources of a server: parts of its options that hold a connection of their own while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import trio

from trioxport.abc import ConnectionSettings


@runtime_checkable
class ServerResource(Protocol):
    """A part of a server's options with a connection of its own, such as a store of events in Redis."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be used now."""
        ...

    async def run(self, settings: ConnectionSettings, *, task_status: trio.TaskStatus[None]) -> None:
        """Hold the connection until cancelled.

        It has started once the connection is open, or may be opened later. Raises ``TransportError`` before that for
        options with which it never will be.
        """
        ...


def resources_in(options: Iterable[object]) -> Sequence[ServerResource]:
    """The resources among some options, each once."""
    found = [option for option in options if isinstance(option, ServerResource)]
    return list(dict.fromkeys(found))


async def start_resources(
    resources: Iterable[ServerResource], nursery: trio.Nursery, settings: ConnectionSettings
) -> None:
    """Run resources in a nursery, each once the one before it has started. Raises ``TransportError``."""
    for resource in resources:
        await nursery.start(resource.run, settings)
