"""HTTP/2 (RFC 9113) over any byte stream of Trio, as client and as server: many streams on one connection.

::

    async with open_http2(byte_stream, Http2Settings(), role="client") as connection:
        with await connection.request([(b":method", b"POST"), ...]) as stream:
            await stream.send_data(b"...", end_stream=True)
            fields = await stream.response_head()
            while data := await stream.receive_data():
                ...
            stream.trailers

    async with open_http2(byte_stream, Http2Settings(), role="server") as connection, trio.open_nursery() as nursery:
        async for stream in connection.requests:
            nursery.start_soon(handle, stream)

Leaving a ``with stream`` resets a stream that is not over, so that cancelling a request is ``RST_STREAM`` on the wire.
A failure is a :class:`StreamReset` or a :class:`ConnectionEnded`; its ``outcome`` says whether the peer can have acted
on the request.
"""

from trioxport.transports._http2.connection import Http2Connection, open_http2
from trioxport.transports._http2.errors import ConnectionEnded, ErrorCodes, Http2Error, StreamReset
from trioxport.transports._http2.settings import Http2Settings
from trioxport.transports._http2.streams import Http2Stream

__all__ = [
    "ConnectionEnded",
    "ErrorCodes",
    "Http2Connection",
    "Http2Error",
    "Http2Settings",
    "Http2Stream",
    "StreamReset",
    "open_http2",
]
