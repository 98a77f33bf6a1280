"""The tool of the servers under load, for the official SDK and for FastMCP: it answers with a text of some size.

Its result has no structured copy of the text, so that all servers send the same bytes.
"""

from __future__ import annotations

from typing import Any


def add_answer(server: Any, context: type[Any], **options: Any) -> None:
    """Add the tool ``answer`` to a server, whose handlers get a ``context``."""

    async def answer(size: int, steps: int, ctx: Any) -> str:
        for step in range(steps):
            await ctx.report_progress(step + 1)
        return "x" * size

    answer.__annotations__["ctx"] = context
    answer.__annotations__.update(size=int, steps=int)
    answer.__annotations__["return"] = str
    server.tool(**options)(answer)
