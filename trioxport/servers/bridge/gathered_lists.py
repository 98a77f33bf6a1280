"""Lists of several servers as one: of tools, prompts, resources and templates, with all pages of each server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Era
from trioxport.messages import ErrorResponse, Request, Response
from trioxport.protocol import METHOD_NOT_FOUND, items_of, members_of
from trioxport.servers.bridge.leg import Leg
from trioxport.servers.bridge.members import Directory

LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
"""The member of the result that has the items of a list."""
MAX_PAGES: Final = 1000
"""Pages of one server after which a list ends."""

_PREFIXED: Final = ("tools", "prompts")
_ADDRESSES: Final = {"resources": "uri", "resourceTemplates": "uriTemplate"}


class GatheredList:
    """One list of several servers.

    A server that fails is left out. One that has not answered in time is left out, and not waited for again until it is
    connected. A server without such a list has an empty one.

    Args:
        request: The request of the client.
        directory: Learns which server has a resource.
        new_id: Makes the ids of the requests to the servers.

    Attributes:
        answered: The servers that are in the list.
    """

    def __init__(self, request: Request, directory: Directory, new_id: Callable[[], str]) -> None:
        self.answered: set[Leg] = set()
        self._request = request
        self._kind = LISTS[request.method]
        self._directory = directory
        self._new_id = new_id
        self._items: dict[Leg, list[Any]] = {}
        self._failures: list[ErrorResponse] = []
        self._lifetimes: list[float] = []
        self._is_public = True

    async def gather(self, legs: Sequence[Leg], timeout: float) -> None:
        """Ask all servers at once, and wait ``timeout`` seconds at most."""
        waited_for = {leg for leg in legs if leg.member.is_waited_for} or set(legs)
        with trio.move_on_after(timeout):
            async with open_bare_nursery() as tasks:
                for leg in legs:
                    tasks.start_soon(self._ask, leg, waited_for, tasks.cancel_scope)
        for leg in waited_for:
            leg.member.is_late = True
            leg.failures.failed(self._request.method, f"no answer to {self._request.method} in time, left out")

    async def _ask(self, leg: Leg, waited_for: set[Leg], asking: trio.CancelScope) -> None:
        failure = await self._ask_for_pages(leg)
        if failure is None:
            self.answered.add(leg)
            leg.failures.works(self._request.method)
        else:
            self._failures.append(failure)
            if leg.state != "failed":  # that is in the log
                reason = f"{self._request.method} has failed and is left out: {failure.message}"
                leg.failures.failed(self._request.method, reason)
        waited_for.discard(leg)
        if not waited_for:
            asking.cancel()

    async def _ask_for_pages(self, leg: Leg) -> ErrorResponse | None:
        params = {name: each for name, each in members_of(self._request.params).items() if name != "cursor"}
        for _ in range(MAX_PAGES):
            answer = await leg.request(attrs.evolve(self._request, id=self._new_id(), params=dict(params)))
            if isinstance(answer, ErrorResponse):
                return None if answer.code == METHOD_NOT_FOUND else answer
            result = members_of(answer.result)
            self._note(leg, result)
            params["cursor"] = result.get("nextCursor")
            if not isinstance(params["cursor"], str):
                break
        return None

    def _note(self, leg: Leg, result: Any) -> None:
        lifetime = result.get("ttlMs")
        self._lifetimes.append(lifetime if isinstance(lifetime, int | float) else 0)
        self._is_public = self._is_public and result.get("cacheScope") == "public"
        items = self._items.setdefault(leg, [])
        for item in items_of(result.get(self._kind)):
            if self._kind in _PREFIXED:
                items.append({**members_of(item), "name": leg.member.prefix + str(members_of(item).get("name"))})
            else:
                self._directory.note(members_of(item).get(_ADDRESSES[self._kind]), leg.member)
                items.append(item)

    def answer(self, legs: Sequence[Leg], era: Era) -> Response | ErrorResponse:
        """The answer to the client: an error if no server has answered."""
        if self._failures and not self.answered:
            return attrs.evolve(self._failures[0], id=self._request.id)
        result: dict[str, Any] = {self._kind: [item for leg in legs for item in self._items.get(leg, ())]}
        if era == "modern":
            is_whole = len(self.answered) == len(legs)
            ttl = min(self._lifetimes, default=0) if is_whole else 0
            scope = "public" if is_whole and self._is_public else "private"
            result |= {"resultType": "complete", "ttlMs": ttl, "cacheScope": scope}
        return Response(self._request.id, result)
