"""Requests of OAuth without input and output: generators that yield requests and take responses.

A step is a generator. It yields an :class:`OAuthRequest` and is sent the :class:`OAuthResponse`; it returns its result.
:func:`run_steps` runs one over a function that sends requests.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from typing import Any, Final, Literal, TypeAlias, TypeGuard, TypeVar, cast
from urllib.parse import urlencode

import attrs
import msgspec

from trioxport.auth.secret import Secret
from trioxport.errors import OAuthError
from trioxport.messages import HIDDEN, NOTHING

Purpose: TypeAlias = Literal["metadata", "registration", "token"]
"""The purpose of a request: redirects are followed for metadata only."""

FORM: Final = "application/x-www-form-urlencoded"
MAX_SHOWN: Final = 200
"""Characters of a server's description of an error that are shown."""

_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,49}")


@attrs.frozen
class OAuthRequest:
    """A request to make. Its headers and its content are secrets."""

    method: str
    url: str
    purpose: Purpose
    headers: Mapping[str, str] = attrs.field(default=NOTHING, repr=False)
    content: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class OAuthResponse:
    """The response to a request: ``headers`` by names in lower case, and the whole body."""

    status: int
    headers: Mapping[str, str] = attrs.field(default=NOTHING, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)


Result = TypeVar("Result")
Steps: TypeAlias = Generator[OAuthRequest, OAuthResponse, Result]
SendOAuth: TypeAlias = Callable[[OAuthRequest], Awaitable[OAuthResponse]]


async def run_steps(steps: Steps[Result], send: SendOAuth) -> Result:
    """Run ``steps`` with ``send``, and return their result. Raises what either raises."""
    try:
        request = next(steps)
        while True:
            request = steps.send(await send(request))
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        steps.close()


def get(url: str) -> OAuthRequest:
    """A request for a metadata document."""
    return OAuthRequest("GET", url, "metadata", {"accept": "application/json"})


def post_form(url: str, form: Mapping[str, str], headers: Mapping[str, str] = NOTHING) -> OAuthRequest:
    """A request with a form, to a token endpoint or one like it."""
    fields = {"content-type": FORM, "accept": "application/json", **headers}
    return OAuthRequest("POST", url, "token", fields, urlencode(form).encode("ascii"))


def json_object(response: OAuthResponse) -> dict[str, Any] | None:
    """The JSON object in a response; None if it holds none."""
    try:
        found: Any = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def are_texts(found: object) -> TypeGuard[list[str]]:
    """Whether it is a list of texts."""
    return isinstance(found, list) and all(isinstance(each, str) for each in cast("list[object]", found))


def refusal(response: OAuthResponse, step: str, *, section: str, secrets: Collection[Secret] = ()) -> OAuthError:
    """The error for a response that refuses a request (RFC 6749, section 5.2).

    Args:
        response: The response.
        step: The step that it refuses.
        section: The section that describes the request.
        secrets: The secrets of the request, which are hidden if the server repeats them.
    """
    found = json_object(response) or {}
    code = error_code(found.get("error"))
    text = f"the authorization server answers with HTTP {response.status}"
    if code:
        text = f"the authorization server refuses with {code}"
    if shown := shown_text(found.get("error_description"), secrets):
        text += f": {shown}"
    retryable = response.status in (429, 500, 502, 503, 504) or code in ("temporarily_unavailable", "server_error")
    return OAuthError(text, step=step, section=section, code=code, retryable=retryable)


def error_code(found: object) -> str | None:
    """An error code of a server, if it is one."""
    return found if isinstance(found, str) and _CODE.fullmatch(found) else None


def shown_text(found: object, secrets: Collection[Secret] = ()) -> str:
    """A server's text as one short line, without any of ``secrets``."""
    if not isinstance(found, str):
        return ""
    for hidden in sorted((each.reveal() for each in secrets), key=len, reverse=True):
        if hidden:
            found = found.replace(hidden, HIDDEN)
    line = " ".join("".join(each if each.isprintable() else " " for each in found).split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."
