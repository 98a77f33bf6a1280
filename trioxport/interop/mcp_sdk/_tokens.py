"""Verifiers of tokens of the SDK here, and those of trioxport under the SDK."""

from __future__ import annotations

import json
import math
import time

import attrs
from mcp.server.auth.provider import AccessToken, TokenVerifier, principal_components

from trioxport._diagnostics import logger
from trioxport.auth import InvalidToken, VerifiedToken, Verify
from trioxport.auth.verified import IssuedTokens, comparable_audience
from trioxport.protocol import items_of


@attrs.frozen
class SDKToken(VerifiedToken):
    """A verified token together with the object that the SDK's verifier returned for it."""

    access_token: AccessToken = attrs.field(kw_only=True, repr=False)


def verified_token(token: AccessToken) -> SDKToken:
    """The token that a verifier of the SDK has found valid."""
    return SDKToken(
        _principal(token),
        client_id=token.client_id,
        scopes=tuple(token.scopes),
        expires_at=token.expires_at,
        claims=token.claims or {},
        access_token=token,
    )


def _principal(token: AccessToken) -> str:
    """The principal that the SDK binds sessions to: the client alone, or with its issuer and subject."""
    client, issuer, subject = principal_components(token)
    return client if issuer is None and subject is None else json.dumps([client, issuer, subject])


def access_token_of(token: VerifiedToken, resource: str | None = None) -> AccessToken:
    """The SDK's object for a verified token; the token itself stays hidden.

    Args:
        token: The verified token.
        resource: The URL of the server, to be named where it is one of several audiences.
    """
    expires_at = token.expires_at
    return AccessToken(
        token="",
        client_id=token.client_id or token.principal,
        subject=token.principal,
        scopes=list(token.scopes),
        expires_at=None if expires_at is None or expires_at == math.inf else int(expires_at),
        resource=_resource_of(token, resource),
        claims=dict(token.claims),
    )


def _resource_of(token: VerifiedToken, resource: str | None) -> str | None:
    found = token.claims.get("aud")
    named = [each for each in ([found] if isinstance(found, str) else items_of(found)) if isinstance(each, str)]
    if resource is not None:
        return next((each for each in named if comparable_audience(each) == comparable_audience(resource)), None)
    return named[0] if len(named) == 1 else None


def from_sdk_verifier(verifier: TokenVerifier, *, resource: str | None) -> Verify:
    """A verifier for ``HttpServer(verify=...)`` out of one of the SDK's.

    Args:
        verifier: An object with the SDK's ``verify_token``.
        resource: The URL of this server: a token that the verifier says is for another one is refused. None leaves that
            check to the verifier.
    """

    async def verify(token: str) -> VerifiedToken:
        found = await verifier.verify_token(token)
        if found is None:
            raise InvalidToken("the token is not valid")
        if found.expires_at is not None and found.expires_at <= time.time():
            raise InvalidToken("the token has expired")
        if resource is not None and comparable_audience(found.resource or "") != comparable_audience(resource):
            detail = f"its resource is {found.resource!r:.200}"
            raise InvalidToken("the token is for another audience", detail=detail)
        return verified_token(found)

    return verify


@attrs.frozen
class SDKTokenVerifier:
    """A verifier of trioxport as the ``token_verifier`` of the SDK: ``MCPServer(..., token_verifier=...)``.

    The SDK accepts bearer tokens only, so a token that is bound to a key is refused.

    Args:
        verify: The verifier, such as a :class:`~trioxport.auth.verification.JWTVerifier`.
    """

    verify: Verify

    async def verify_token(self, token: str) -> AccessToken | None:
        """The SDK's object for a token; None for one that is not valid.

        Raises ``VerificationUnavailable`` if that cannot be known, and ``PermissionDenied`` as ``verify`` does.
        """
        try:
            found = await self.verify(token)
            if isinstance(found, str):
                found = VerifiedToken(found)
            if found is None or found.key_thumbprint is not None:
                return None
        except InvalidToken as error:
            logger.debug("a token is refused: %s", error.detail)
            return None
        verify: object = self.verify
        return access_token_of(found, verify.resource if isinstance(verify, IssuedTokens) else None)
