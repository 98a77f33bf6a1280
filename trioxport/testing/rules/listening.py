"""Rule 1, the server's half: listening works, or says at once why not."""

from __future__ import annotations

import trio

from trioxport._core.exception_groups import sole_exception
from trioxport.connection import Connection
from trioxport.errors import UsageError
from trioxport.opening import serve_transport
from trioxport.testing.harness import ContractHarness
from trioxport.testing.progress import Finding, raised


async def refuses_taken_address(harness: ContractHarness) -> None:
    taken = harness.pair.taken
    assert taken is not None
    harness.progress.on("server")
    with trio.move_on_after(harness.progress.timeout):
        try:
            await serve_transport(_ignore, taken)
        except UsageError as error:
            cause = None if error.__cause__ is None else sole_exception(error.__cause__)
            if cause is None or isinstance(cause, OSError | UsageError):
                return
            raise Finding(f"listening at an address in use raised {raised(cause)}") from error
    raise Finding("listening at an address in use raised nothing: two servers share it, or one of them gets nothing")


async def _ignore(connection: Connection) -> None:
    del connection
