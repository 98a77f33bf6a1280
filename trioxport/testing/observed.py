"""A listener whose connections are seen by the kit, those included that fail while they are accepted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trioxport._core.supervisor import Supervisor, Terms
from trioxport.abc import Accept, FrameChannels, Listener, Scope, Transport
from trioxport.targets import Target, describe


@attrs.frozen
class ObservedListener:
    """A listener that notes the scope of each connection that it accepts.

    Args:
        inner: The listener.
        target: What it was made of, for messages.
        scopes: Where the scopes are noted.
    """

    inner: Listener
    target: Target
    scopes: list[Supervisor]

    def __str__(self) -> str:
        return describe(self.target)

    @property
    def single_connection(self) -> bool:
        return bool(getattr(self.inner, "single_connection", False))

    def under(self, terms: Terms) -> Listener:
        """The same listener, where the inner one has to know what holds for its connections."""
        under: Callable[[Terms], Listener] | None = getattr(self.inner, "under", None)
        return self if under is None else attrs.evolve(self, inner=under(terms))

    async def listen(
        self, accept: Accept, *, allow_plaintext: bool = False, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        async def accept_observed(transport: Transport) -> None:
            immediate = getattr(transport, "immediate", False)
            await accept(transport if immediate else _ObservedTransport(transport, self.scopes))

        await self.inner.listen(accept_observed, allow_plaintext=allow_plaintext, task_status=task_status)


@attrs.frozen
class _ObservedTransport:
    inner: Transport
    scopes: list[Supervisor]

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        if isinstance(scope, Supervisor):
            self.scopes.append(scope)
        return self.inner(scope)
