"""The tools are listed again when a server says that a call's headers do not fit: its tools may have changed.

Specification 2026-07-28, basic/transports/streamable-http, section Client Behavior.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final, cast

import attrs
import trio

from trioxport.errors import TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Request, Response
from trioxport.protocol import META, members_of, meta_of
from trioxport.transports.http import failures
from trioxport.transports.http.client.exchange import PendingRequest, ResponseReader
from trioxport.transports.http.client.session import ClientSession

PAGES: Final = 100
"""How many pages of a list are asked for at most."""


class ToolListRefresh:
    """Asks for the tools on the transport's own account, one list at a time.

    Args:
        session: The connection's state, which learns of the tools.
        answers: Where what else comes goes.
    """

    def __init__(self, session: ClientSession, answers: ResponseReader) -> None:
        self._session = session
        self._answers = answers
        self._listing = trio.Lock()
        self._numbers = count(1)

    async def refresh(self, call: PendingRequest, sent: Mapping[str, str]) -> bool:
        """Whether the headers of ``call`` are to be other ones than those that were ``sent``."""
        async with self._listing:
            if self._session.post_fields(call.frame) == sent:
                try:
                    await self._list(call)
                except Exception as error:
                    failure: TransportError = failures.of_exchange(error)
                    self._answers.scope.discard(failure)
        return self._session.post_fields(call.frame) != sent

    async def _list(self, call: PendingRequest) -> None:
        """Go through the pages until the called tool was on one."""
        wanted = members_of(call.request.params).get("name")
        cursor: object = None
        for _ in range(PAGES):
            page = await self._page(call, cursor)
            tools = page.get("tools")
            listed = cast("list[object]", tools) if isinstance(tools, list) else []
            cursor = page.get("nextCursor")
            if cursor is None or any(members_of(tool).get("name") == wanted for tool in listed):
                return

    async def _page(self, call: PendingRequest, cursor: object) -> Mapping[str, Any]:
        own = {key: value for key, value in meta_of(call.request.params).items() if key.startswith(META)}
        params = {"_meta": own} if cursor is None else {"_meta": own, "cursor": cursor}
        request = Request(f"trioxport-tools-{next(self._numbers)}", "tools/list", params)
        frame = Frame(self._answers.scope.settings.codec.encode(request), request, call.frame.headers)
        page: Mapping[str, Any] = {}

        async def keep(frames: list[Frame]) -> None:
            nonlocal page
            for answer in (frame.message for frame in frames):
                if isinstance(answer, Response):
                    page = members_of(answer.result)
            await self._answers.deliver(
                [one for one in frames if not isinstance(one.message, Response | ErrorResponse)]
            )

        exchange = PendingRequest(frame, request)
        wire, fields = self._answers.wire, self._session.post_fields(frame)
        with exchange.scope:
            async with wire.exchange("POST", fields, frame.payload) as (response, body):
                await attrs.evolve(self._answers, deliver=keep).take(exchange, response, body)
        return page
