"""The requests of modern clients that wait until a legacy server is initialized."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import trio

from trioxport._core.states import Signal
from trioxport.errors import TransportError
from trioxport.messages import ErrorResponse, Request, RequestId, Undelivered
from trioxport.servers.translation._link import Link
from trioxport.servers.translation._upstream_state import ServerHandshake


class WaitingRequests:
    """A queue in the order of arrival, which begins the initialization of the server.

    Args:
        link: The channels.
        handshake: The initialization.
        dispatch: Sends a request to the server that is initialized.
        limit: The number of requests that may wait; ``is_ready`` waits while there are so many.
    """

    def __init__(
        self, link: Link, handshake: ServerHandshake, dispatch: Callable[[Request], Awaitable[None]], limit: int
    ) -> None:
        self._link = link
        self._handshake = handshake
        self._dispatch = dispatch
        self._limit = limit
        self._requests: deque[Request] = deque()
        self._changed = Signal()
        self._is_closing = False

    def __contains__(self, request_id: object) -> bool:
        return any(request.id == request_id for request in self._requests)

    async def is_ready(self) -> bool:
        """Whether the server takes requests. Otherwise there is room to keep one, which is waited for."""
        await trio.lowlevel.checkpoint()
        while len(self._requests) >= self._limit:
            await self._changed.wait()
        return self._handshake.is_done and not self._requests

    def keep(self, request: Request) -> None:
        """Keep a request until the server is initialized."""
        self._requests.append(request)
        self._handshake.begin(self._send_all, self._refuse_all)

    def forget(self, request_id: RequestId) -> None:
        """Forget a request that its client has cancelled."""
        self._requests = deque(request for request in self._requests if request.id != request_id)
        self._changed.notify()

    def end(self, loss: TransportError) -> None:
        """Settle all, since the connection is over."""
        while self._requests:
            self._link.give(Undelivered.of(self._requests.popleft(), loss))

    async def aclose(self) -> None:
        """Close the channel to the server, once all are sent."""
        self._is_closing = True
        if not self._requests:
            await self._link.aclose_send()

    async def _send_all(self) -> None:
        while self._requests:
            request = self._requests[0]
            try:
                await self._dispatch(request)
            except TransportError as error:
                self._link.give(Undelivered.of(request, error))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the end of the connection settles them
            with suppress(ValueError):
                self._requests.remove(request)
            self._changed.notify()
        if self._is_closing:
            await self._link.aclose_send()

    def _refuse_all(self, refusal: ErrorResponse) -> None:
        """Answer the requests to a server that did not initialize."""
        while self._requests:
            request = self._requests.popleft()
            if isinstance(refusal, Undelivered):
                self._link.give(Undelivered.of(request, refusal.cause))
            else:
                self._link.give(attrs.evolve(refusal, id=request.id))
        self._changed.notify()
        if self._is_closing:
            self._link.start(self._link.aclose_send)
