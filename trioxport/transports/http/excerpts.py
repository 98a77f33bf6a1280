"""Excerpts of what a server says, for errors: one printable line, short, and read within a bounded time."""

from __future__ import annotations

import html
import json
import re
from typing import Final

import httpx
import trio

from trioxport.errors import TransportError
from trioxport.protocol import members_of
from trioxport.transports.http.client.stack.types import Body, ResponseHead, media_type

EXCERPT_BYTES: Final = 4096
EXCERPT_SECONDS: Final = 1.0
"""The part of a refusal's body that is read, at most."""

LINE_CHARACTERS: Final = 200

_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_SAYING: Final = ("message", "detail", "error_description", "error")
"""Members that say what is wrong: of JSON-RPC, of problem details (RFC 9457), and of OAuth."""

_PARAMETER: Final = re.compile(r'(?<![a-z_])([a-z_]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)


async def beginning_of(body: Body) -> bytes:
    """The first bytes of a body, as many as come in time and unbroken."""
    kept = bytearray()
    with trio.move_on_after(EXCERPT_SECONDS):
        try:
            while len(kept) < EXCERPT_BYTES and (chunk := await body.read()):
                kept += chunk
        except (httpx.TransportError, TransportError):
            pass  # the refusal is what is reported, with as much of its body as there is
    return bytes(kept[:EXCERPT_BYTES])


def one_line(text: str, most: int = LINE_CHARACTERS) -> str:
    """A text without its line ends and control characters, cut where it gets long."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    return line if len(line) <= most else f"{line[:most]}..."


def summary(response: ResponseHead, data: bytes) -> str:
    """The line of a refusal's body that says the most; empty if there is none."""
    text = data.decode(errors="replace")
    if is_web_page(response, data):
        return page_title(data)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text.strip().partition("\n")[0])
    members = members_of(value)
    said = (of.get(name) for of in (members_of(members.get("error")), members) for name in _SAYING)
    return one_line(next((one for one in said if isinstance(one, str)), text))


def is_web_page(response: ResponseHead, data: bytes) -> bool:
    """Whether a body is HTML."""
    return "html" in media_type(response) or data.lstrip()[:5].lower() in (b"<!doc", b"<html")


def page_title(data: bytes) -> str:
    """The title of an HTML page; empty if it has none."""
    found = _TITLE.search(data.decode(errors="replace"))
    return one_line(html.unescape(found[1])) if found else ""


def challenge(response: ResponseHead) -> dict[str, str]:
    """The parameters of ``WWW-Authenticate``, by names in lower case (RFC 9110, section 11.6.1)."""
    said = response.headers.get("www-authenticate", "")
    found = _PARAMETER.findall(said[:EXCERPT_BYTES])
    parameters = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or token for name, quoted, token in found}
    return {name: one_line(value) for name, value in parameters.items()}
