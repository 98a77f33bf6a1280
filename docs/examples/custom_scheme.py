"""A scheme for the custom transport: URLs that clients open, and that servers listen on."""

from urllib.parse import urlsplit

from custom_transport import Prefixed

from trioxport import UsageError, register_scheme


def prefixed_from_url(url: str) -> Prefixed:
    parts = urlsplit(url)  # what is no URL at all is a ValueError, which becomes a UsageError too
    if not parts.hostname or parts.port is None:
        raise UsageError("a target is written prefixed://HOST:PORT")  # the URL is added, without credentials
    return Prefixed(parts.hostname, parts.port)


register_scheme("prefixed", prefixed_from_url)
