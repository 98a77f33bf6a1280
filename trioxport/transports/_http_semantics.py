"""The meaning of an HTTP response that is no success: the error for its status, with an excerpt of its body.

RFC 9110, section 15; specification 2026-07-28, basic/transports/streamable-http. HTTP exchanges and the opening
handshake of WebSockets share it.
"""

from __future__ import annotations

import email.utils
import html
import json
import re
import time
from datetime import UTC
from typing import Final
from urllib.parse import urljoin

from trioxport._core.backoff import MAX_RETRY_AFTER_SECONDS
from trioxport._diagnostics.redaction import redact_url
from trioxport.errors import (
    AuthenticationError,
    HTTPStatusError,
    Outcome,
    PermissionDenied,
    RateLimited,
    SessionExpired,
    TransportError,
)
from trioxport.protocol import members_of
from trioxport.transports._http_heads import ResponseHead, media_type

EXCERPT_BYTES: Final = 4096
"""Bytes of a refusal's body, or of a challenge, that are read."""
LINE_CHARACTERS: Final = 200
SCHEME_CHARACTERS: Final = 40

_LATER: Final = frozenset({408, 425, 502, 503, 504})
"""Statuses after which the same request may succeed."""
_REDIRECTS: Final = range(300, 400)
_MAY_HAVE_ACTED: Final = frozenset({301, 302, 303})
_HINTS: Final = {
    404: "Check the path of the URL: many servers have their endpoint at /mcp",
    405: "Check the path of the URL: many servers have their endpoint at /mcp",
    407: "A proxy answers: check which one is used, and its credentials",
    415: "Is it a server of gRPC? That is written grpc(s)://HOST:PORT",
    502: "A gateway answers: check that the server behind it runs",
    504: "A gateway answers: check that the server behind it runs",
}
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_EXPLANATIONS: Final = ("message", "detail", "error_description", "error")
"""Members of a body that explain the error: of JSON-RPC, of problem details (RFC 9457), and of OAuth."""
_PARAMETER: Final = re.compile(r'(?<![a-z_])([a-z_]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)


# Errors.


def status_error(response: ResponseHead, url: str, data: bytes, *, has_session: bool) -> TransportError:
    """The error for a response that is neither a success nor a JSON-RPC error.

    Args:
        response: Its head.
        url: The URL of the request, redacted.
        data: The beginning of its body.
        has_session: Whether the request named a session, which a 404 then ends.
    """
    status = response.status_code
    text = f"the server answered {status} {one_line(response.reason_phrase)}".rstrip()
    delay = retry_after(response)
    if status in (401, 403):
        return _authorization_error(response, text)
    if status == 404 and has_session:
        return SessionExpired("the server does not know the session any more")
    excerpt = summary(response, data)
    text = f"{text}: {excerpt}" if excerpt else text
    hint = _HINTS.get(status) if delay is None else f"Try again in {delay:g} s"
    if status == 429:
        return RateLimited(text, hint=hint, retry_after=delay)
    if status in _REDIRECTS:
        text = f"{text}, a redirect to {_redirect_target(url, response.headers.get('location', ''))}"
        hint = "Redirects leave neither the origin nor the method: if this is right, use where it leads as the target"
    return HTTPStatusError(
        text, status=status, hint=hint, outcome=_outcome(status, delay), retryable=status in _LATER, retry_after=delay
    )


def _authorization_error(response: ResponseHead, text: str) -> TransportError:
    """The error for 401 and 403 (RFC 6750, section 3). Bodies are left out: they can quote what was sent."""
    parameters = challenge(response)
    reason = ": ".join(parameters[name] for name in ("error", "error_description") if parameters.get(name))
    text = f"{text} ({reason})" if reason else text
    if scope := parameters.get("scope"):
        text = f"{text}. It requires the scopes {scope}"
    if response.status_code == 403:
        return PermissionDenied(text)
    scheme = one_line(response.headers.get("www-authenticate", "").partition(" ")[0], SCHEME_CHARACTERS)
    return AuthenticationError(f"{text}; {scheme} is asked for" if scheme and not reason else text)


def _redirect_target(url: str, location: str) -> str:
    """The URL that a redirect leads to, redacted."""
    try:
        return redact_url(urljoin(url, location))[:LINE_CHARACTERS]
    except ValueError:  # its text can quote a password
        return "what is no URL"


def _outcome(status: int, delay: float | None) -> Outcome:
    """``not_sent`` for 4xx; ``unknown`` for 5xx, as a proxy may report it after the server acted.

    A 503 with ``Retry-After`` comes from a server that did not begin.
    """
    if status < 300 or status in _MAY_HAVE_ACTED or (status >= 500 and not (status == 503 and delay is not None)):
        return "unknown"
    return "not_sent"


def retry_after(response: ResponseHead) -> float | None:
    """Seconds, up to a day, from a number of them or from a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        date = email.utils.parsedate_to_datetime(value)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


# Excerpts: one printable line, short.


def one_line(text: str, limit: int = LINE_CHARACTERS) -> str:
    """Return a text without line ends and control characters, cut after ``limit`` characters."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def summary(response: ResponseHead, data: bytes) -> str:
    """The line of a refusal's body that explains it best; empty if there is none."""
    text = data.decode(errors="replace")
    if is_web_page(response, data):
        return page_title(data)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text.strip().partition("\n")[0])
    members = members_of(value)
    found = (of.get(name) for of in (members_of(members.get("error")), members) for name in _EXPLANATIONS)
    return one_line(next((one for one in found if isinstance(one, str)), text))


def is_web_page(response: ResponseHead, data: bytes) -> bool:
    """Whether a body is HTML."""
    return "html" in media_type(response) or data.lstrip()[:5].lower() in (b"<!doc", b"<html")


def page_title(data: bytes) -> str:
    """The title of an HTML page; empty if it has none."""
    found = _TITLE.search(data.decode(errors="replace"))
    return one_line(html.unescape(found[1])) if found else ""


def challenge(response: ResponseHead) -> dict[str, str]:
    """The parameters of ``WWW-Authenticate``, by names in lower case (RFC 9110, section 11.6.1)."""
    value = response.headers.get("www-authenticate", "")
    found = _PARAMETER.findall(value[:EXCERPT_BYTES])
    parameters = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or token for name, quoted, token in found}
    return {name: one_line(text) for name, text in parameters.items()}
