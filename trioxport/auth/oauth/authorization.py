"""The authorization request of the code grant, and the check of its response (OAuth 2.1, section 4.1; RFC 9207).

Specification 2026-07-28, basic/authorization.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs

from trioxport.auth.addresses import shown_url
from trioxport.auth.oauth.clients import OAuthClient
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.steps import Steps, error_code, json_object, refusal, shown_text
from trioxport.auth.oauth.token_requests import DPoPState, TokenSet, authenticated_post, token_request
from trioxport.auth.secret import Secret
from trioxport.errors import InteractionRequired, OAuthError

AUTHORIZATION_STEP: Final = "authorization request"
RESPONSE_STEP: Final = "authorization response"
PAR_STEP: Final = "pushed authorization request"
NEEDS_PERSON: Final = ("login_required", "consent_required", "interaction_required", "account_selection_required")


@attrs.frozen
class AuthorizationRequest:
    """One authorization request, and all that its response is checked against.

    Args:
        url: The page to open.
        server: The authorization server; its issuer was validated.
        client: The client that asks.
        redirect_uri: The URI to which the response is sent.
        state: The value that the response has to repeat.
        verifier: The secret of PKCE.
        resource: The resource that the tokens are for.
        scopes: The scopes that are asked for.
    """

    url: str = attrs.field(repr=shown_url)
    server: AuthorizationServer
    client: OAuthClient
    redirect_uri: str
    state: Secret
    verifier: Secret
    resource: str
    scopes: tuple[str, ...]


def check_pkce(server: AuthorizationServer) -> None:
    """Raise ``OAuthError`` unless the metadata says that the server supports PKCE with S256."""
    section = "MCP 2026-07-28, authorization code protection"
    if server.challenge_methods is None:
        reason = "its metadata lacks code_challenge_methods_supported, so it may not support PKCE"
    elif "S256" not in server.challenge_methods:
        reason = "its metadata does not list S256 in code_challenge_methods_supported"
    else:
        return
    hint = "Ask its operator to add code_challenge_methods_supported with S256"
    raise OAuthError(reason, step=AUTHORIZATION_STEP, issuer=server.issuer, section=section, hint=hint)


def authorization_request(
    server: AuthorizationServer,
    client: OAuthClient,
    *,
    redirect_uri: str,
    resource: str,
    scopes: Iterable[str] = (),
    dpop: DPoPState | None = None,
) -> Steps[AuthorizationRequest]:
    """Make an authorization request, pushed to the server first if it wants that (RFC 9126). Raises ``OAuthError``."""
    check_pkce(server)
    if server.authorization_endpoint is None:
        reason = "its metadata lacks authorization_endpoint"
        raise OAuthError(reason, step=AUTHORIZATION_STEP, issuer=server.issuer, section="RFC 8414, section 2")
    state, verifier = Secret(secrets.token_urlsafe(32)), Secret(secrets.token_urlsafe(48))
    wanted = tuple(dict.fromkeys(scopes))
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "state": state.reveal(),
        "code_challenge": s256(verifier),
        "code_challenge_method": "S256",
        "resource": resource,
    }
    if wanted:
        query["scope"] = " ".join(wanted)
    if "offline_access" in wanted:
        query["prompt"] = "consent"
    if dpop is not None:
        query["dpop_jkt"] = dpop.key.thumbprint
    if server.par_required and server.par_endpoint is not None:
        query = yield from _pushed(server, server.par_endpoint, client, query, dpop)
    url = with_query(server.authorization_endpoint, query)
    return AuthorizationRequest(url, server, client, redirect_uri, state, verifier, resource, wanted)


def s256(verifier: Secret) -> str:
    """The challenge of a verifier (RFC 7636, section 4.2)."""
    digest = hashlib.sha256(verifier.reveal().encode("ascii")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def with_query(url: str, query: dict[str, str]) -> str:
    """A URL with further parameters in its query."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def _pushed(
    server: AuthorizationServer, url: str, client: OAuthClient, query: dict[str, str], dpop: DPoPState | None
) -> Steps[dict[str, str]]:
    response = yield from authenticated_post(server, url, client, query, dpop=dpop)
    found = json_object(response) or {}
    uri = found.get("request_uri")
    if response.status not in (200, 201) or not isinstance(uri, str):
        error = refusal(response, PAR_STEP, section="RFC 9126, section 2.3")
        error.issuer = server.issuer
        raise error
    return {"client_id": client.client_id, "request_uri": uri}


def code_in(request: AuthorizationRequest, redirected: str) -> Secret:
    """The code in the response to ``request``: ``state`` and ``iss`` are checked before anything else is used.

    Args:
        request: The request.
        redirected: The URL to which the browser was redirected, or its query.

    Raises:
        OAuthError: The response is not the one to the request, or the server refuses.
        InteractionRequired: The server wants a person to act.
    """
    found = _parameters(request, redirected)
    state = Secret(found.get("state", ""))
    if state != request.state:
        raise _fault(request, "its state is not that of the request", "OAuth 2.1, section 7.12")
    _check_issuer(request, found.get("iss"))
    if "error" in found:
        raise _refused(request, found)
    code = found.get("code")
    if not code:
        raise _fault(request, "it holds no code", "OAuth 2.1, section 4.1.2")
    return Secret(code)


def _parameters(request: AuthorizationRequest, redirected: str) -> dict[str, str]:
    try:
        query = urlsplit(redirected).query if "://" in redirected.partition("?")[0] else redirected.lstrip("?")
    except ValueError:
        raise _fault(request, "it is no URL", "OAuth 2.1, section 4.1.2") from None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise _fault(request, "it has too many parameters", "OAuth 2.1, section 4.1.2") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _fault(request, "it has a parameter more than once", "OAuth 2.1, section 4.1.2")
    return found


def _check_issuer(request: AuthorizationRequest, iss: str | None) -> None:
    """Compare ``iss`` as it is, without any normalization (RFC 9207, section 2.4)."""
    section = "RFC 9207, section 2.4"
    if iss is None and request.server.iss_parameter:
        raise _fault(request, "it lacks iss, which the server promises", section)
    if iss is not None and iss != request.server.issuer:
        raise _fault(request, f"its iss is {shown_url(iss)}: it comes from another authorization server", section)


def _fault(request: AuthorizationRequest, reason: str, section: str) -> OAuthError:
    text = f"the response cannot be trusted: {reason}"
    hint = "Begin again; if it repeats, the server may be under attack"
    return OAuthError(text, step=RESPONSE_STEP, issuer=request.server.issuer, section=section, hint=hint)


def _refused(request: AuthorizationRequest, found: dict[str, str]) -> Exception:
    code = error_code(found["error"]) or "an unknown error"
    issuer = request.server.issuer
    if code in NEEDS_PERSON:
        reason = f"the authorization server refuses with {code}"
        return InteractionRequired(reason, url=request.url, issuer=issuer)
    detail = shown_text(found.get("error_description"), [request.state])
    text = f"the authorization server refuses with {code}" + (f": {detail}" if detail else "")
    hint = "Consent was refused; begin again to be asked once more" if code == "access_denied" else None
    section = "OAuth 2.1, section 4.1.2.1"
    return OAuthError(text, step=RESPONSE_STEP, issuer=issuer, section=section, code=code, hint=hint)


def redeem(request: AuthorizationRequest, code: Secret, *, dpop: DPoPState | None = None) -> Steps[TokenSet]:
    """Exchange a code for tokens (OAuth 2.1, section 4.1.3). Raises ``OAuthError``."""
    form = {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "redirect_uri": request.redirect_uri,
        "code_verifier": request.verifier.reveal(),
        "resource": request.resource,
    }
    return token_request(request.server, request.client, form, dpop=dpop, step="exchange of the code")
