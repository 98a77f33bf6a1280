"""``http+stdio:``: HTTP over stdio, experimental. A child process that is a server of Streamable HTTP by HTTP/2 on its
standard streams, and this process as such a server.

No revision of the specification defines it; its roadmap of 2026-08-22 names it, section HTTP-Native Transport
Unification and Hardening.
"""

from __future__ import annotations

from trioxport.transports.http.server import HttpServer
from trioxport.transports.http_stdio.target import HttpStdio
from trioxport.transports.stdio.command import split_command

__all__ = ["HttpStdio", "http_stdio_from_url"]


def http_stdio_from_url(url: str) -> HttpStdio | HttpServer:
    """Return the target of ``http+stdio:COMMAND ARGS``, split as a shell does; ``http+stdio:`` alone serves this
    process."""
    words = split_command(url)
    return HttpStdio(words[0], words[1:]) if words else HttpServer("http+stdio:")
