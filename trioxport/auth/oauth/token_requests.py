"""Requests for tokens: the authentication of the client, the form, DPoP, and the response (RFC 6749, section 5)."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import attrs

from trioxport._diagnostics.hints import install_hint
from trioxport.auth.addresses import origin_of
from trioxport.auth.oauth.clients import OAuthClient
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse, Steps, json_object, post_form, refusal
from trioxport.auth.secret import Secret
from trioxport.errors import OAuthError, UsageError

if TYPE_CHECKING:
    from trioxport.auth.dpop import DPoPKey

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS: Final = 60
"""The life of a client assertion."""

TOKEN_STEP: Final = "token request"
TOKEN_SECTION: Final = "RFC 6749, section 5.1"
USE_NONCE: Final = "use_dpop_nonce"
SECRET_FIELDS: Final = frozenset(
    {"code", "code_verifier", "refresh_token", "client_secret", "client_assertion", "assertion"}
    | {"subject_token", "actor_token", "device_code"}
)

_TOKEN: Final = re.compile(r"[!-~]+")


class DPoPState:
    """The key of a login, and the last nonces of the servers that it talks to.

    Args:
        key: The key.
    """

    def __init__(self, key: DPoPKey) -> None:
        self.key = key
        self.nonces: dict[tuple[str, str, int], str] = {}

    def proof(self, method: str, url: str, *, ath: str | None = None) -> str:
        """A proof for one request, with the last nonce of its server."""
        from trioxport.auth.dpop import target_uri

        return self.key.proof(method, target_uri(url), ath=ath, nonce=self.nonces.get(origin_of(url)))

    def note(self, url: str, headers: Mapping[str, str]) -> bool:
        """Keep the nonce of a response (RFC 9449, section 8.2). Returns whether it brought another one."""
        nonce = headers.get("dpop-nonce")
        origin = origin_of(url)
        if nonce is None or not _TOKEN.fullmatch(nonce) or self.nonces.get(origin) == nonce:
            return False
        self.nonces[origin] = nonce
        return True


@attrs.frozen
class TokenSet:
    """The tokens of a response (RFC 6749, section 5.1)."""

    access_token: Secret
    token_type: str = "bearer"
    expires_in: float | None = None
    refresh_token: Secret | None = None
    scope: str | None = None


def token_request(
    server: AuthorizationServer,
    client: OAuthClient,
    form: Mapping[str, str],
    *,
    dpop: DPoPState | None = None,
    step: str = TOKEN_STEP,
) -> Steps[TokenSet]:
    """Ask the token endpoint of ``server`` for tokens.

    Args:
        server: The authorization server.
        client: The client, registered at that server.
        form: The parameters of the grant.
        dpop: The key to bind the tokens to; None for bearer tokens.
        step: The name of the step for errors.

    Raises:
        OAuthError: The server refuses, or its response is broken.
    """
    response = yield from authenticated_post(server, server.token_endpoint, client, form, dpop=dpop)
    if response.status != 200:
        secrets_sent = [Secret(value) for name, value in form.items() if name in SECRET_FIELDS]
        secrets_sent += [client.client_secret] if client.client_secret else []
        error = refusal(response, step, section="RFC 6749, section 5.2", secrets=secrets_sent)
        error.issuer = server.issuer
        raise error
    return _tokens_in(response, server, step, dpop=dpop is not None)


def authenticated_post(
    server: AuthorizationServer,
    url: str,
    client: OAuthClient,
    form: Mapping[str, str],
    *,
    dpop: DPoPState | None = None,
) -> Steps[OAuthResponse]:
    """Post a form to an endpoint of ``server`` as ``client``; once more if the server wants a nonce in the proof."""
    response = yield _post(server, url, client, form, dpop)
    if dpop is not None and dpop.note(url, response.headers) and _wants_nonce(response):
        response = yield _post(server, url, client, form, dpop)
        dpop.note(url, response.headers)
    return response


def _post(
    server: AuthorizationServer, url: str, client: OAuthClient, form: Mapping[str, str], dpop: DPoPState | None
) -> OAuthRequest:
    fields, added = client_authentication(server, client)
    if dpop is not None:
        fields["dpop"] = dpop.proof("POST", url)
    return post_form(url, {**form, **added}, fields)


def _wants_nonce(response: OAuthResponse) -> bool:
    return response.status in (400, 401) and (json_object(response) or {}).get("error") == USE_NONCE


def client_authentication(server: AuthorizationServer, client: OAuthClient) -> tuple[dict[str, str], dict[str, str]]:
    """The headers and the parameters by which ``client`` authenticates (RFC 6749, section 2.3; RFC 7523)."""
    method = client.method_at(server)
    match method:
        case "none":
            return {}, {"client_id": client.client_id}
        case "client_secret_basic" if client.client_secret is not None:
            pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret.reveal(), safe='')}"
            basic = base64.b64encode(pair.encode()).decode("ascii")
            return {"authorization": f"Basic {basic}"}, {"client_id": client.client_id}  # some servers look there only
        case "client_secret_post" if client.client_secret is not None:
            return {}, {"client_id": client.client_id, "client_secret": client.client_secret.reveal()}
        case "private_key_jwt" if client.private_key is not None:
            assertion = signed_assertion(client, audience=server.issuer)
            return {}, {
                "client_id": client.client_id,
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": assertion.reveal(),
            }
        case _:
            pass
    reason = f"the client cannot authenticate by {method[:40]!r}: it lacks the secret or key, or this is not supported"
    raise OAuthError(reason, step="client authentication", issuer=server.issuer)


def signed_assertion(client: OAuthClient, *, audience: str) -> Secret:
    """An assertion by which the client authenticates (RFC 7523, section 3): new with each call, and short-lived."""
    require_jose()
    from joserfc import jwk, jwt
    from joserfc.errors import JoseError

    assert client.private_key is not None
    kind = {"E": "EC", "R": "RSA", "P": "RSA"}.get(client.algorithm[0], "OKP")
    if client.algorithm.startswith("Ed"):
        kind = "OKP"
    now = int(time.time())
    claims: dict[str, Any] = {"iss": client.client_id, "sub": client.client_id, "aud": audience}
    claims |= {"iat": now, "exp": now + ASSERTION_SECONDS, "jti": secrets.token_urlsafe(16)}
    header = {"alg": client.algorithm, "typ": "JWT"} | ({"kid": client.key_id} if client.key_id else {})
    try:
        key = cast("Any", jwk).import_key(client.private_key.reveal(), kind)
        return Secret(jwt.encode(header, claims, key, algorithms=[client.algorithm]))
    except (JoseError, ValueError, TypeError):
        raise UsageError(f"the private key of the client cannot sign with {client.algorithm}") from None


def require_jose() -> None:
    """Raise ``UsageError`` unless the extra ``oauth`` is installed."""
    if find_spec("joserfc") is None:
        raise UsageError("signing needs a library that is not installed", hint=install_hint("oauth"))


def _tokens_in(response: OAuthResponse, server: AuthorizationServer, step: str, *, dpop: bool) -> TokenSet:
    found = json_object(response)

    def broken(reason: str) -> OAuthError:
        return OAuthError(reason, step=step, issuer=server.issuer, section=TOKEN_SECTION)

    if found is None:
        raise broken("the response is no JSON object")
    access, refresh, scope = (found.get(name) for name in ("access_token", "refresh_token", "scope"))
    kind = found.get("token_type")
    if not isinstance(access, str) or not _TOKEN.fullmatch(access):
        raise broken("the response holds no access token that can be sent")
    if not isinstance(kind, str) or kind.lower() not in ("bearer", "dpop"):
        raise broken("the response holds a token of an unknown type")
    if kind.lower() == "dpop" and not dpop:
        raise broken("the response holds a token that is bound to a key, and no key was sent")
    if not isinstance(refresh, str | None) or not isinstance(scope, str | None):
        raise broken("the response has members of wrong types")
    return TokenSet(
        access_token=Secret(access),
        token_type=kind.lower(),
        expires_in=_seconds(found.get("expires_in")),
        refresh_token=Secret(refresh) if refresh else None,
        scope=scope,
    )


def _seconds(found: object) -> float | None:
    """Seconds of validity: some servers send them as a text."""
    try:
        seconds = float(found) if isinstance(found, int | float | str) else -1.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < 1e10 else None
