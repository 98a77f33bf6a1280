"""Clients of an authorization server: registered by hand, by a metadata document, or dynamically (RFC 7591).

Specification 2026-07-28, basic/authorization/client-registration.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import msgspec

from trioxport.auth.addresses import fault_of
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse, Steps, are_texts, json_object, refusal
from trioxport.auth.secret import Secret, secret
from trioxport.errors import OAuthError, UsageError

REGISTRATION_STEP: Final = "client registration"
MAX_TIME: Final = 1e12
"""Seconds since 1970 that stand for never, as larger numbers do."""
DEFAULT_METHODS: Final = ("client_secret_basic",)
"""The methods of a server that lists none (RFC 8414, section 2)."""


def _secret_or_none(value: str | Secret | None) -> Secret | None:
    return None if value is None else secret(value)


@attrs.frozen
class OAuthClient:
    """A client, as one authorization server knows it.

    Args:
        client_id: Its id.
        client_secret: Its secret, if it has one.
        issuer: The authorization server at which it is registered. It is used at no other. Without it, that is the
            first one that the MCP server names.
        auth_method: ``"none"``, ``"client_secret_basic"``, ``"client_secret_post"`` or ``"private_key_jwt"``; by
            default the one that fits the other arguments and the server.
        private_key: The key for ``private_key_jwt``, in PEM (RFC 7523, section 2.2).
        algorithm: The algorithm of that key.
        key_id: The id of that key, if the server wants one.
        redirect_uris: The redirect URIs that are registered, if they are known.
        expires_at: The time at which the secret expires, in seconds since 1970.
        is_dynamic: Whether it was registered by this library, which may do it again.
    """

    client_id: str
    client_secret: Secret | None = attrs.field(default=None, converter=_secret_or_none, kw_only=True)
    issuer: str | None = attrs.field(default=None, kw_only=True)
    auth_method: str | None = attrs.field(default=None, kw_only=True)
    private_key: Secret | None = attrs.field(default=None, converter=_secret_or_none, kw_only=True)
    algorithm: str = attrs.field(default="ES256", kw_only=True)
    key_id: str | None = attrs.field(default=None, kw_only=True)
    redirect_uris: Sequence[str] = attrs.field(default=(), converter=tuple[str, ...], kw_only=True)
    expires_at: float | None = attrs.field(default=None, kw_only=True)
    is_dynamic: bool = attrs.field(default=False, kw_only=True)

    def method_at(self, server: AuthorizationServer) -> str:
        """The method by which it authenticates at ``server``. Raises ``OAuthError`` if there is none."""
        if self.auth_method is not None:
            return self.auth_method
        if self.private_key is not None:
            return "private_key_jwt"
        if self.client_secret is None:
            return "none"
        supported = server.auth_methods or DEFAULT_METHODS
        for method in ("client_secret_basic", "client_secret_post"):
            if method in supported:
                return method
        raise OAuthError("the server takes no client secret", step="client authentication", issuer=server.issuer)

    def is_expired(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


@attrs.frozen
class RegistrationMetadata:
    """The metadata that a client registers with (RFC 7591, section 2).

    Args:
        client_name: The name that the person sees.
        redirect_uris: Its redirect URIs.
        grant_types: The grants that it uses.
        extra: Further members, such as ``client_uri`` or ``logo_uri``.
    """

    client_name: str
    redirect_uris: Sequence[str] = ()
    grant_types: Sequence[str] = ("authorization_code", "refresh_token")
    extra: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def members(self, server: AuthorizationServer) -> dict[str, Any]:
        """The members to register at ``server``."""
        local = all(urlsplit(uri).scheme != "https" for uri in self.redirect_uris)
        members: dict[str, Any] = {
            "client_name": self.client_name,
            "grant_types": list(self.grant_types),
            "token_endpoint_auth_method": _wanted_method(server),
            "application_type": "native" if local else "web",
            "redirect_uris": list(self.redirect_uris),
            "response_types": ["code"] if self.redirect_uris else [],
        }
        return {**members, **self.extra}


def _wanted_method(server: AuthorizationServer) -> str:
    supported = server.auth_methods or ("none",)
    return next((each for each in ("none", "client_secret_basic", "client_secret_post") if each in supported), "none")


def register(server: AuthorizationServer, metadata: RegistrationMetadata) -> Steps[OAuthClient]:
    """Register a client dynamically (RFC 7591, section 3). Raises ``OAuthError``, also for a refused redirect URI."""
    assert server.registration_endpoint is not None
    members = metadata.members(server)
    fields = {"content-type": "application/json", "accept": "application/json"}
    request = OAuthRequest("POST", server.registration_endpoint, "registration", fields, msgspec.json.encode(members))
    response = yield request
    if response.status not in (200, 201):
        raise _refused(response, server, metadata)
    found = json_object(response)
    if found is None or not isinstance(found.get("client_id"), str) or not found["client_id"]:
        raise _broken(server, "the response holds no client_id")
    return _registered(found, members, server)


def _registered(found: dict[str, Any], wanted: dict[str, Any], server: AuthorizationServer) -> OAuthClient:
    given = found.get("client_secret")
    expires = found.get("client_secret_expires_at")
    method = found.get("token_endpoint_auth_method", wanted["token_endpoint_auth_method"])
    uris = found.get("redirect_uris", wanted.get("redirect_uris", []))
    if not isinstance(given, str | None) or not isinstance(method, str):
        raise _broken(server, "the response has members of wrong types")
    if not are_texts(uris):
        raise _broken(server, "the response has redirect_uris that are no texts")
    return OAuthClient(
        found["client_id"],
        client_secret=given,
        issuer=server.issuer,
        auth_method=method,
        redirect_uris=tuple(uris),
        expires_at=_time(expires) if given else None,
        is_dynamic=True,
    )


def _time(found: object) -> float | None:
    """A time in seconds since 1970; None for 0, which stands for never (RFC 7591, section 3.2.1), and for no time."""
    return float(found) if isinstance(found, int | float) and 0 < found < MAX_TIME else None


def _refused(response: OAuthResponse, server: AuthorizationServer, metadata: RegistrationMetadata) -> OAuthError:
    error = refusal(response, REGISTRATION_STEP, section="RFC 7591, section 3.2.2")
    error.issuer = server.issuer
    if error.code == "invalid_redirect_uri":
        error.hint = f"Use a redirect URI that it takes; it was {', '.join(metadata.redirect_uris)}"
    else:
        error.hint = "Register a client there by hand, and pass client=OAuthClient(...)"
    return error


def _broken(server: AuthorizationServer, reason: str) -> OAuthError:
    return OAuthError(reason, step=REGISTRATION_STEP, issuer=server.issuer, section="RFC 7591, section 3.2.1")


def check_client_document(url: str) -> None:
    """Raise ``UsageError`` unless ``url`` can be the id of a client: https, with a path, without dot segments."""
    parts = urlsplit(url)
    if fault_of(url) or parts.scheme != "https" or parts.path in ("", "/"):
        raise UsageError("the URL of a client metadata document is written https://HOST/PATH")
    if any(segment in (".", "..") for segment in parts.path.split("/")):
        raise UsageError("the URL of a client metadata document has no dot segments")


def check_redirect_uri(uri: str) -> None:
    """Raise ``UsageError`` unless ``uri`` is https, or http on this machine.

    Specification 2026-07-28, basic/authorization/security-considerations, "Communication Security".
    """
    if fault := fault_of(uri):
        raise UsageError(f"the redirect URI cannot be used: {fault}")
