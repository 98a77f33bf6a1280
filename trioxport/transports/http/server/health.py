"""Probes: whether a server is alive, and whether it takes new requests."""

from __future__ import annotations

from trioxport.protocol import INTERNAL_ERROR
from trioxport.transports.http.server.options import HttpServerOptions
from trioxport.transports.http.server.request import Field, Refusal, RequestHead, ServerRequest

_FRESH: Field = (b"cache-control", b"no-store")


def unavailable(reason: str, retry_after: int, about: str) -> Refusal:
    """The refusal of a request that was not begun, and may be sent again after so many seconds."""
    return Refusal(503, reason, code=INTERNAL_ERROR, fields=[(b"retry-after", b"%d" % retry_after)], about=about)


class Health:
    """The health and readiness pages of one server.

    Attributes:
        draining: Whether the server takes no new requests any more, because it is about to stop.
    """

    def __init__(self, config: HttpServerOptions) -> None:
        self._health = config.health
        self._ready = config.ready
        self.draining = False

    def has(self, request: RequestHead) -> bool:
        """Whether a request is for one of the pages."""
        return request.path in (self._health, self._ready)

    async def answers(self, exchange: ServerRequest) -> bool:
        """Answer a request for one of the pages; whether it was for one. Probes need no token, and ask any host."""
        if exchange.path == self._health:
            await exchange.respond(200, b'{"status":"ok"}', _FRESH)
        elif exchange.path == self._ready:
            status, body = (503, b'{"status":"draining"}') if self.draining else (200, b'{"status":"ok"}')
            await exchange.respond(status, body, _FRESH)
        else:
            return False
        return True

    def admit(self) -> None:
        """Raise ``Refusal`` for a new request while the server drains."""
        if self.draining:
            raise unavailable("The server is stopping", 1, "stopping")
