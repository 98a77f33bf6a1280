"""``stdio:``: a child process that is a server on its standard streams, and this process as such a server.

Specification 2026-07-28, basic/transports/stdio.
"""

from __future__ import annotations

from trioxport.transports.stdio.command import INHERITED_ENVIRONMENT, split_command
from trioxport.transports.stdio.server import StdioServer
from trioxport.transports.stdio.stderr import TAIL_LINES
from trioxport.transports.stdio.target import Stdio

__all__ = ["INHERITED_ENVIRONMENT", "TAIL_LINES", "Stdio", "StdioServer", "stdio_from_url"]


def stdio_from_url(url: str) -> Stdio | StdioServer:
    """Return the target of ``stdio:COMMAND ARGS``, split as a shell does; ``stdio:`` alone serves this process."""
    words = split_command(url)
    return Stdio(words[0], words[1:]) if words else StdioServer()
