"""``stdio:``: a child process that is a server on its standard streams, and this process as such a server.

Specification 2026-07-28, basic/transports/stdio.
"""

from __future__ import annotations

import shlex

from trioxport._diagnostics.redaction import redact_url
from trioxport.errors import UsageError
from trioxport.transports.stdio.server import StdioServer
from trioxport.transports.stdio.stderr import TAIL_LINES
from trioxport.transports.stdio.target import INHERITED_ENVIRONMENT, Stdio

__all__ = ["INHERITED_ENVIRONMENT", "TAIL_LINES", "Stdio", "StdioServer", "stdio_from_url"]


def stdio_from_url(url: str) -> Stdio | StdioServer:
    """Return the target of ``stdio:COMMAND ARGS``, split as a shell does; ``stdio:`` alone serves this process."""
    try:
        words = shlex.split(url.partition(":")[2])
    except ValueError as error:
        raise UsageError(f"cannot split the command: {error}", target=redact_url(url)) from error
    return Stdio(words[0], words[1:]) if words else StdioServer()
