"""The check peer on this process's standard streams: check_peer.py [newline|length] [JSON|MessagePack]."""

import sys

import trio

from trioxport import codecs
from trioxport.testing import serve_check_peer
from trioxport.transports.stdio import StdioServer


async def main(framing: str, codec: str) -> None:
    await serve_check_peer(StdioServer(framing), codec=getattr(codecs, codec))  # type: ignore[arg-type] # from argv


trio.run(main, sys.argv[1], sys.argv[2])
