"""Whether Trio runs, which everything that waits needs."""

from __future__ import annotations

import trio

from trioxport.errors import UsageError


def require_trio(what: str) -> None:
    """Raise ``UsageError`` unless the caller, named by ``what``, is called inside a run of Trio."""
    if not trio.lowlevel.in_trio_run():
        raise UsageError(
            f"{what} runs on Trio, and no Trio program is running here",
            hint=(
                "Start the program with trio.run(main), not asyncio.run; one on anyio with "
                "anyio.run(main, backend='trio'); an ASGI application with hypercorn -k trio module:application"
            ),
        )
