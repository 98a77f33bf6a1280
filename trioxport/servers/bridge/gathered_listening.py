"""A subscription of a modern client to the changes of several servers.

Specification 2026-07-28, basic/patterns/subscriptions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final

import trio

from trioxport._core.backoff import Backoff
from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.messages import ErrorResponse, Notification, Request, Response
from trioxport.protocol import INVALID_PARAMS, METHOD_NOT_FOUND, SUBSCRIPTION, as_id, items_of, members_of, meta_of
from trioxport.servers.bridge.leg import Leg

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_BACKOFF: Final = Backoff(base=1.0, cap=60.0)
_URIS: Final = "resourceSubscriptions"
_CHANGES: Final = {
    f"{kind}ListChanged": f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")
}


class GatheredListening:
    """One ``subscriptions/listen`` of the client, as one at each server, under the same id.

    The client gets one acknowledgment, for all that servers have granted in time. A server that ends its part is asked
    again, after a while; once it answers, the client is told that its lists may have changed.

    Args:
        request: The request of the client.
        deliver: Gives the client a message.
    """

    def __init__(self, request: Request, deliver: Callable[[Notification], Awaitable[None]]) -> None:
        self._request = request
        self._deliver = deliver
        self._granted: dict[str, Any] = {}
        self._missing: set[Leg] = set()
        self._all_known = trio.Event()
        self._is_acknowledged = False

    async def run(self, legs: Sequence[Leg], timeout: float) -> Response | ErrorResponse:
        """Listen until cancelled, or until no server offers subscriptions.

        Args:
            legs: The servers.
            timeout: Seconds in which servers have to grant their part for the acknowledgment to say so.
        """
        self._missing = {leg for leg in legs if leg.member.is_waited_for} or set(legs)
        async with open_bare_nursery() as tasks:
            for leg in legs:
                tasks.start_soon(self._listen_to, leg)
            with trio.move_on_after(timeout):
                await self._all_known.wait()
            self._is_acknowledged = True
            await self._deliver(self._notification(ACKNOWLEDGED, notifications=self._granted))
        return ErrorResponse(self._request.id, METHOD_NOT_FOUND, "No server offers subscriptions")

    def _notification(self, method: str, **params: Any) -> Notification:
        return Notification(method, {**params, "_meta": {SUBSCRIPTION: self._request.id}})

    async def _listen_to(self, leg: Leg) -> None:
        for delay in _BACKOFF.delays(Random()):
            answer = await leg.request(self._request)
            self._note(leg)
            if isinstance(answer, ErrorResponse) and answer.code in (METHOD_NOT_FOUND, INVALID_PARAMS):
                return
            logger.info("server %s: a subscription has ended, and is opened again in %.1f s", leg.name, delay)
            await trio.sleep(delay)

    def _note(self, leg: Leg) -> None:
        """Note that what a server grants is known."""
        self._missing.discard(leg)
        if not self._missing:
            self._all_known.set()

    async def acknowledged(self, leg: Leg, notification: Notification) -> None:
        """Take the acknowledgment of one server, if it is one of this subscription."""
        if as_id(meta_of(notification.params).get(SUBSCRIPTION)) != self._request.id:
            return
        granted = members_of(members_of(notification.params).get("notifications"))
        for name, value in granted.items():
            if name == _URIS:
                known = self._granted.setdefault(_URIS, [])
                known += [uri for uri in items_of(value) if uri not in known]
            else:
                self._granted[name] = self._granted.get(name) or value
        self._note(leg)
        if self._is_acknowledged:
            for name, method in _CHANGES.items():
                if granted.get(name) is True:
                    await self._deliver(self._notification(method))
