"""A server as a whole program: it says where it listens, works in several processes, and stops in order at a signal.

::

    trio.run(run_server, server, HttpServer("http://127.0.0.1:8000/mcp", drain=5))
"""

from trioxport.running.program import run_server

__all__ = ["run_server"]
