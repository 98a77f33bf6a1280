"""``tcp://``, ``tls://`` and ``unix://``: the wire format of stdio over sockets, and over open streams of Trio.

One message a line, as the specification recommends for byte streams (2026-07-28, basic/transports, section Custom
Transports), or ``?framing=length``. A client's half-close ends its stream; the server may still answer.
"""

from __future__ import annotations

from trioxport.transports.stream.open_stream import OpenStream
from trioxport.transports.stream.target import Tcp, Tls, Unix
from trioxport.transports.unix_sockets import SocketFile

__all__ = ["OpenStream", "SocketFile", "Tcp", "Tls", "Unix"]
