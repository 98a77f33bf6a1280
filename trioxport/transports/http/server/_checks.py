"""What the headers of any request have to be: media types, and whom a browser speaks for."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from trioxport.transports.http._expanded import accepted
from trioxport.transports.http.server._asgi import Exchange, Refusal

VERSION: Final = "mcp-protocol-version"
SESSION: Final = "mcp-session-id"
LAST_EVENT: Final = "last-event-id"


def check_post(exchange: Exchange) -> None:
    """Raise ``Refusal`` for a POST whose content, or whose answer, would be of the wrong type."""
    check_content(exchange)
    if not (accepts(exchange, "application/json") and accepts(exchange, "text/event-stream")):
        raise Refusal(406, "A POST has to accept both application/json and text/event-stream")


def check_content(exchange: Exchange) -> None:
    """Raise ``Refusal`` for content of the wrong type."""
    headers = exchange.headers
    kind = headers.get("content-type", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The content type of a message is application/json")
    exchange.fields.append((b"accept-encoding", accepted().encode()))  # RFC 9110, section 12.5.3
    coding = coding_of(exchange)
    if coding != "identity" and coding not in accepted().split(", "):
        raise Refusal(415, f"A message is compressed in another coding than {accepted()}")


def coding_of(exchange: Exchange) -> str:
    """The content coding of a request's body, ``"identity"`` for none."""
    return exchange.headers.get("content-encoding", "identity").strip().lower()


def accepts(exchange: Exchange, kind: str) -> bool:
    """Whether the client takes an answer of a media type (RFC 9110, section 12.5.1)."""
    accept = exchange.headers.get("accept")
    return accept is None or kind in _accepted(accept)


@lru_cache(maxsize=64)
def _accepted(accept: str) -> frozenset[str]:
    """Which of the two types that there are the header names."""
    wanted: set[str] = set()
    refused: set[str] = set()
    for item in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        weights = [part.partition("=")[2].strip() for part in parameters if part.partition("=")[0].strip() == "q"]
        zero = any(weight and not weight.strip("0.") for weight in weights)
        (refused if zero else wanted).add(kind)
    return frozenset(
        kind
        for kind in ("application/json", "text/event-stream")
        if kind not in refused and {kind, kind.partition("/")[0] + "/*", "*/*"} & wanted
    )
