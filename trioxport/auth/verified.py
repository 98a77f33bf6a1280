"""The result of verifying an access token on a server, and the exceptions of a verifier."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, cast, runtime_checkable
from urllib.parse import urlsplit

import attrs
import trio

from trioxport.errors import AuthenticationError, TransportError

ProofError: TypeAlias = Literal["invalid_dpop_proof", "use_dpop_nonce"]


@attrs.frozen
class VerifiedToken:
    """The facts about an access token, from a server's verification.

    Args:
        principal: The identity that the token stands for; sessions and rates belong to it.
        client_id: The OAuth client that the token was issued to, if known.
        scopes: The scopes of the token.
        expires_at: The time of its expiry, in seconds since 1970; None if unknown.
        claims: Further claims, as the verification found them. A ``cnf`` among them binds the token to a key (RFC
            7800): the server then demands proof of that key.
    """

    principal: str
    client_id: str | None = attrs.field(default=None, kw_only=True)
    scopes: Sequence[str] = attrs.field(default=(), kw_only=True)
    expires_at: float | None = attrs.field(default=None, kw_only=True)
    claims: Mapping[str, Any] = attrs.field(factory=dict[str, Any], kw_only=True, repr=False)

    @property
    def key_thumbprint(self) -> str | None:
        """The thumbprint of the DPoP key that the token is bound to (RFC 9449, section 6); None for a bearer token.

        Raises ``InvalidToken`` if it is bound in another way, such as to a certificate.
        """
        confirmation = self.claims.get("cnf")
        if confirmation is None:
            return None
        if isinstance(confirmation, Mapping):
            members = cast("Mapping[str, object]", confirmation)
            thumbprint = members.get("jkt")
            if len(members) == 1 and isinstance(thumbprint, str) and thumbprint:
                return thumbprint
        raise InvalidToken("the token is bound to a key in a way that this server does not check")


def deadline_of(token: VerifiedToken | None) -> float:
    """The time of a token's expiry on Trio's clock; infinity if it is not known to expire."""
    if token is None or token.expires_at is None:
        return math.inf
    return trio.current_time() + token.expires_at - time.time()


def comparable_audience(audience: str) -> str:
    """An audience for a comparison: scheme and host of a URL in lower case, and no slash after a bare host.

    Specification 2026-07-28, basic/authorization, section Canonical Server URI.
    """
    try:
        parts = urlsplit(audience) if "://" in audience else None
    except ValueError:
        parts = None
    if parts is None or not parts.netloc:
        return audience
    path = "" if parts.path == "/" and not parts.query else audience.partition("://")[2][len(parts.netloc) :]
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}"


class InvalidToken(AuthenticationError):
    """The access token is refused: the request is answered with 401 ``invalid_token``.

    Args:
        reason: The reason for the client, without any part of the token.
        detail: The reason for the operator's log, if it has more than the client gets.
    """

    default_hint = "Get a new token from the authorization server"

    def __init__(self, reason: str, *, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail or reason


class InvalidProof(AuthenticationError):
    """The DPoP proof of a request is refused: the request is answered with 401.

    Args:
        reason: The reason for the client.
        error: The error code.
    """

    default_hint = "Send a proof that was made for this request alone"

    def __init__(self, reason: str, error: ProofError = "invalid_dpop_proof") -> None:
        super().__init__(reason)
        self.error: ProofError = error


class VerificationUnavailable(TransportError):
    """The access token could be verified neither as valid nor as invalid: the request is answered with 503.

    Args:
        reason: The reason for the operator's log.
        retry_after: Seconds after which the client may try again.
    """

    default_retryable: ClassVar[bool] = True
    default_hint = "Check that the authorization server is reachable from this machine"

    def __init__(self, reason: str, *, retry_after: float = 5.0) -> None:
        super().__init__(reason, outcome="not_sent", retry_after=retry_after)


Verify: TypeAlias = Callable[[str], Awaitable[str | VerifiedToken | None]]
"""The verifier of access tokens: returns the principal or a ``VerifiedToken``, or None for a token that is not valid
(any more). Raises ``InvalidToken`` to say why it is not, ``PermissionDenied`` for a valid one that lacks permission,
and ``VerificationUnavailable`` if it cannot tell."""


@runtime_checkable
class IssuedTokens(Protocol):
    """A verifier that knows where its tokens come from, so that the metadata of the resource need not repeat it.

    Attributes:
        authorization_servers: The issuers of its tokens.
        resource: The URL of the resource that its tokens are for; None if their audience is no URL.
    """

    @property
    def authorization_servers(self) -> Sequence[str]: ...
    @property
    def resource(self) -> str | None: ...
