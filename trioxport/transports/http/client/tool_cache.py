"""A fresh list of tools after a server refused the headers of a call: the tools may have changed.

Specification 2026-07-28, basic/transports/streamable-http, section Client Behavior.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final, cast

import trio

from trioxport.frames import Frame
from trioxport.messages import Request, Response
from trioxport.protocol import META, members_of, meta_of
from trioxport.transports.http import failures
from trioxport.transports.http.client.exchange import PendingRequest
from trioxport.transports.http.client.responses import ResponseReader
from trioxport.transports.http.client.session import ClientSession

MAX_PAGES: Final = 100
"""The pages of a list that are requested for one call."""


class ToolListRefresh:
    """Requests the list of tools on the transport's own account, once at a time.

    Args:
        session: The connection's state, which learns the tools' headers.
        reader: Reads the lists.
    """

    def __init__(self, session: ClientSession, reader: ResponseReader) -> None:
        self._session = session
        self._reader = reader
        self._lock = trio.Lock()
        self._numbers = count(1)

    async def refresh(self, call: PendingRequest, sent: Mapping[str, str]) -> bool:
        """Whether the headers of ``call`` differ, after listing the tools, from those that were ``sent``."""
        async with self._lock:
            if self._session.post_fields(call.frame) == sent:
                try:
                    await self._list(call)
                except Exception as error:
                    self._reader.scope.discard(failures.of_exchange(error))
        return self._session.post_fields(call.frame) != sent

    async def _list(self, call: PendingRequest) -> None:
        """Request page after page until the called tool was on one."""
        wanted = members_of(call.request.params).get("name")
        cursor: object = None
        for _ in range(MAX_PAGES):
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
        frame = Frame(self._reader.scope.settings.codec.encode(request), request, call.frame.headers)
        answer = await self._reader.ask(frame, request, self._session)
        return members_of(answer.result) if isinstance(answer, Response) else {}
