"""One HTTP request to an endpoint, by hand: its status, its media type, redirects, and the challenge of a 401."""

from __future__ import annotations

import json
import ssl
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import attrs
import httpx
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport.auth.oauth.challenges import parse_challenges
from trioxport.auth.tls import TLSOptions
from trioxport.diagnosis.doctor.findings import ServerFindings
from trioxport.diagnosis.doctor.network import STEP_SECONDS
from trioxport.protocol import DISCOVER, META, METHOD_HEADER, MODERN_VERSIONS, VERSION_HEADER
from trioxport.transports.http import Http
from trioxport.transports.http.failures import TLS_HINT
from trioxport.transports.http.unix_endpoint import AUTHORITY

MAX_BODY_BYTES: Final = 65536

_META: Final[dict[str, Any]] = {META + "protocolVersion": MODERN_VERSIONS[0], META + "clientCapabilities": {}}
_REQUEST: Final = {"jsonrpc": "2.0", "id": 1, "method": DISCOVER, "params": {"_meta": _META}}
_HEADERS: Final = {
    "Accept": "application/json, text/event-stream",
    "Accept-Encoding": "identity",
    VERSION_HEADER: MODERN_VERSIONS[0],
    METHOD_HEADER: DISCOVER,
}
_MEDIA_TYPES: Final = ("application/json", "text/event-stream")
_OF_TLS: Final = ("disconnected without sending a response", "illegal request line")
"""Texts of httpx about a server that closes the connection without a byte, and about a control character first."""
_REFUSALS: Final = {
    403: "Check what the server and the gateways before it demand: credentials, an Origin, an address",
    404: "Check the path: many servers have their endpoint at /mcp",
    405: "Check the path; an old server may speak HTTP+SSE: try sse+{url}",
    407: "Check the proxy, and HTTPS_PROXY in the environment",
    421: "Call the server by a name that it knows, or add this name to its allowed hosts",
    429: "Wait: the server limits the rate of requests",
}


@attrs.frozen
class HttpAnswer:
    """The answer to the probe, without its body if that does not end."""

    status: int
    reason: str
    headers: httpx.Headers
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, in lower case, without parameters; empty if there is none."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def is_json_rpc(self) -> bool:
        """Whether the body is a JSON-RPC message."""
        try:
            members: Any = json.loads(self.body)
        except ValueError:
            return False
        return isinstance(members, dict) and "jsonrpc" in members


async def check_http(target: Http, proxy: str | None, findings: ServerFindings) -> bool:
    """Send a request without credentials of ``auth`` and look at the answer; returns whether to go on."""
    findings.begin()
    try:
        with trio.fail_after(STEP_SECONDS):
            answer = await _ask(target, proxy)
    except (trio.TooSlowError, httpx.TimeoutException):
        text, remedy = "the server does not answer a request", "Look at the server's log; check that it speaks HTTP"
        findings.add("http", "failed", text, remedy, timed=True)
        return False
    except httpx.HTTPError as error:
        text = f"the request failed: {str(error) or type(error).__name__}"
        remedy = TLS_HINT if _is_of_tls(target, error) else "Check that the server speaks HTTP at this port"
        findings.add("http", "failed", text, remedy, timed=True)
        return False
    if answer.status == 401:
        return _challenge(target, answer, findings)
    return _judge(target, answer, findings)


def _is_of_tls(target: Http, error: httpx.HTTPError) -> bool:
    """Whether a request failed as one without encryption does at a server that speaks TLS."""
    if urlsplit(target.http_url).scheme != "http" or not isinstance(error, httpx.RemoteProtocolError):
        return False
    return any(text in str(error) for text in _OF_TLS)


async def _ask(target: Http, proxy: str | None) -> HttpAnswer:
    verify: bool | ssl.SSLContext = True
    if target.tls is not None:
        verify = target.tls.client_context() if isinstance(target.tls, TLSOptions) else target.tls
    headers = {**target.headers, **_HEADERS}
    socket = None
    if target.unix is not None:
        socket = httpx.AsyncHTTPTransport(uds=target.unix.path)
        headers["Host"] = AUTHORITY
    async with (
        httpx.AsyncClient(
            verify=verify, proxy=proxy, transport=socket, trust_env=False, follow_redirects=False
        ) as client,
        client.stream("POST", target.http_url, json=_REQUEST, headers=headers, timeout=STEP_SECONDS) as response,
    ):
        body = b""
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            return HttpAnswer(response.status_code, response.reason_phrase, response.headers, body)
        with trio.CancelScope() as reading:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    reading.cancel()  # a break would leave the generators of httpx unfinished
        return HttpAnswer(response.status_code, response.reason_phrase, response.headers, body)


def _judge(target: Http, answer: HttpAnswer, findings: ServerFindings) -> bool:
    status = f"{answer.status} {answer.reason}".strip()
    text = f"{status}, {answer.media_type or 'no content type'}"
    if 300 <= answer.status < 400:
        return _redirect(target, answer, status, findings)
    if answer.status < 300 and answer.media_type in _MEDIA_TYPES:
        findings.add("http", "ok", text, timed=True)
    elif answer.status < 300 or answer.media_type == "text/html":
        remedy = "Check the path: many servers have their endpoint at /mcp"
        findings.add("http", "failed", f"{text}: this is no endpoint of MCP", remedy, timed=True)
        return False
    elif answer.is_json_rpc and answer.status in (400, 404, 405, 406):
        findings.add("http", "ok", f"{text}: a legacy server refuses {DISCOVER} so", timed=True)
    elif answer.status >= 500:
        findings.add("http", "failed", text, "Look at the log of the server, or of the gateway before it", timed=True)
        return False
    else:
        remedy = _REFUSALS.get(answer.status, "Look at the server's log").format(url=redact_url(target.url))
        is_final = answer.status in (403, 407, 421, 429)
        findings.add("http", "failed" if is_final else "warning", text, remedy, timed=True)
        return not is_final
    return True


def _redirect(target: Http, answer: HttpAnswer, status: str, findings: ServerFindings) -> bool:
    there = urljoin(target.http_url, answer.headers.get("location", ""))
    here, other = urlsplit(target.http_url), urlsplit(there)
    keeps = answer.status in (307, 308) and (here.scheme, here.netloc) == (other.scheme, other.netloc)
    shown = redact_url(there)
    text = f"{status}: redirected to {shown}"
    findings.add("http", "warning" if keeps else "failed", text, f"Use the target {shown}", timed=True)
    return keeps


def _challenge(target: Http, answer: HttpAnswer, findings: ServerFindings) -> bool:
    """Add the findings of a 401: the server demands credentials, and says which."""
    header = ", ".join(answer.headers.get_list("www-authenticate"))
    shown = "; ".join(
        " ".join([each.scheme, *(f"{name}={value!r}" for name, value in each.parameters.items())])
        for each in parse_challenges(header)
    )
    text = f"the challenge: {shown}" if shown else "the answer has no WWW-Authenticate header, which has to say how"
    has_own = any(name.lower() == "authorization" for name in target.headers)
    if target.auth is not None:
        findings.demands_credentials = True
        findings.add("http", "ok", f"401 without credentials, {text}", timed=True)
        return True
    findings.add("http", "ok", "401: the server answers, and demands credentials", timed=True)
    remedy = "Pass a token that is valid: --token-file FILE" if has_own else "Pass a token: --token-file FILE"
    findings.add("authorization", "failed", f"refused: {text}" if has_own else text, remedy)
    return False
