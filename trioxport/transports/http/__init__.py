"""``http://``, ``https://`` and ``http+unix://``: Streamable HTTP, in the modern and the legacy era."""

from trioxport.transports.http.client.target import Http

__all__ = ["Http"]
