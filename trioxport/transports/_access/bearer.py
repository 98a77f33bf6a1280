"""The check of access tokens: bearer tokens (RFC 6750), and tokens that are bound to a key (RFC 9449, section 7).

Specification 2026-07-28, basic/authorization.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

import attrs

from trioxport.auth import InvalidToken, VerificationUnavailable, VerifiedToken
from trioxport.auth.addresses import RESOURCE_SUFFIX
from trioxport.auth.verified import InvalidProof
from trioxport.errors import PermissionDenied
from trioxport.messages import Message
from trioxport.transports._access.challenges import Challenge, Scheme
from trioxport.transports._access.protected import ProtectedResource
from trioxport.transports._access.request import AccessRefused, AccessRequest
from trioxport.transports._access.scopes import Scopes

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~-._"
"""The characters that a path may have as they are, and the sign of those that are escaped already."""
_SCOPE: Final = "scope"
_TOKEN_REFUSED: Final = "token"
"""The subjects under which refusals are counted; a request without a token has none."""
_SCHEMES: Final[dict[str, Scheme]] = {"bearer": "Bearer", "dpop": "DPoP"}


@attrs.frozen
class PresentedToken:
    """The access token of a request, as its client sent it."""

    scheme: Scheme
    value: str = attrs.field(repr=False)


class BearerAuth:
    """The check of access tokens at one endpoint.

    Args:
        resource: The resource that is protected.
        path: The path of the endpoint.
        publishes_metadata: Whether this server answers requests for ``metadata_path``.

    Attributes:
        metadata_path: The path of the metadata; None if this server publishes none.
        scopes: The scopes of the resource.
    """

    def __init__(self, resource: ProtectedResource, path: str, *, publishes_metadata: bool) -> None:
        self._resource = resource
        self._path = path
        self._well_known = RESOURCE_SUFFIX + (urlsplit(resource.resource).path if resource.resource else path).rstrip(
            "/"
        )
        publishes = publishes_metadata and bool(resource.authorization_servers)
        self.metadata_path = self._well_known if publishes else None
        self._names_metadata = publishes or (not publishes_metadata and resource.resource is not None)
        self.scopes = Scopes(resource.scopes, resource.required_scopes, resource.scope_hierarchy)

    def metadata(self, request: AccessRequest) -> bytes:
        """The metadata of the resource in JSON."""
        return self._resource.document(self._url(request, self._path))

    def token_of(self, request: AccessRequest) -> PresentedToken:
        """The token of a request. Raises ``AccessRefused``: 401 if it has none, 400 if it cannot be read.

        A token in the query or in a form is none (OAuth 2.1, section 5.1).
        """
        name, _, value = request.headers.get("authorization", "").partition(" ")
        scheme, value = _SCHEMES.get(name.lower()), value.strip(" ")
        if scheme is None or not value or (scheme == "DPoP" and self._resource.dpop is None):
            raise self._refusal(request, 401, "An access token is needed", schemes=self._schemes())
        if not _TOKEN.fullmatch(value):
            raise self._refusal(
                request, 400, "The header Authorization is malformed", "invalid_request", schemes=(scheme,)
            )
        return PresentedToken(scheme, value)

    async def authenticate(self, request: AccessRequest, presented: PresentedToken) -> None:
        """Set the principal of a request. Raises ``AccessRefused``.

        It has the status 401 for an invalid token or proof, 403 if the token may not ask, and 503 if it could not be
        verified.
        """
        verified = await self._verified(request, presented)
        token = verified if isinstance(verified, VerifiedToken) else None
        self._check_key(request, presented, token)
        request.principal = verified.principal if isinstance(verified, VerifiedToken) else verified
        request.token = token
        if token is not None and (missing := self.scopes.missing_from(token.scopes)):
            raise self._insufficient(request, missing)

    def check_message(self, request: AccessRequest, message: Message) -> None:
        """Raise ``AccessRefused`` (403) if the token of a request does not suffice for a message in it."""
        granted = () if request.token is None else request.token.scopes
        if self.scopes.depends_on_message and (missing := self.scopes.missing_from(granted, message)):
            raise self._insufficient(request, missing)

    async def _verified(self, request: AccessRequest, presented: PresentedToken) -> str | VerifiedToken:
        try:
            verified = await self._resource.verify(presented.value)
        except PermissionDenied as error:
            raise self._refusal(
                request, 403, "The token is not good for this", "insufficient_scope", detail=error.reason, about=_SCOPE
            ) from None
        except InvalidToken as error:
            raise self._invalid(request, error, presented.scheme) from None
        except VerificationUnavailable as error:
            wait = math.ceil(error.retry_after or 1)
            raise AccessRefused(
                503,
                "The token cannot be verified now",
                fields=[(b"retry-after", b"%d" % wait)],
                about="token verification",
                detail=error.reason,
            ) from None
        if verified is None:
            raise self._invalid(request, InvalidToken(""), presented.scheme)
        return verified

    def _check_key(self, request: AccessRequest, presented: PresentedToken, token: VerifiedToken | None) -> None:
        """Raise ``AccessRefused`` unless the client has the key that a token is bound to (RFC 9449, section 7.1)."""
        dpop = self._resource.dpop
        try:
            thumbprint = None if token is None else token.key_thumbprint
            if thumbprint is None:
                if dpop is not None and dpop.required:
                    raise InvalidToken("the token is not bound to a key, and has to be")
                if presented.scheme == "DPoP":
                    raise InvalidToken("the token is not bound to a key: send it as a bearer token")
                return
            if dpop is None:
                raise InvalidToken("the token is bound to a key, and this server checks no proofs")
            if presented.scheme != "DPoP":
                raise InvalidToken("the token is bound to a key: send it with the scheme DPoP and a proof")
            proof = request.headers.get("dpop")
            if proof is None:
                raise InvalidProof("the request has no proof")
            url = self._url(request, quote(request.full_path, safe=_PATH_CHARACTERS))
            nonce = dpop.check(proof, method=request.method, url=url, token=presented.value, thumbprint=thumbprint)
        except InvalidToken as error:
            raise self._invalid(request, error, "Bearer" if dpop is None else "DPoP") from None
        except InvalidProof as error:
            raise self._bad_proof(request, error) from None
        if (current := dpop.nonce()) is not None and current != nonce:
            request.fields.append((b"dpop-nonce", current.encode()))

    # Refusals.

    def _schemes(self) -> Sequence[Scheme]:
        """The schemes under which tokens are accepted."""
        dpop = self._resource.dpop
        if dpop is None:
            return ("Bearer",)
        return ("DPoP",) if dpop.required else ("DPoP", "Bearer")

    def _invalid(self, request: AccessRequest, error: InvalidToken, scheme: Scheme) -> AccessRefused:
        reason = "The token is not valid"
        return self._refusal(
            request,
            401,
            reason,
            "invalid_token",
            error.reason,
            detail=error.detail,
            schemes=(scheme,),
            about=_TOKEN_REFUSED,
        )

    def _bad_proof(self, request: AccessRequest, error: InvalidProof) -> AccessRefused:
        refusal = self._refusal(
            request, 401, "The DPoP proof is not valid", error.error, error.reason, schemes=("DPoP",), about="DPoP"
        )
        nonce = None if self._resource.dpop is None else self._resource.dpop.nonce()
        if nonce is not None:
            refusal.fields = (*refusal.fields, (b"dpop-nonce", nonce.encode()))
        return refusal

    def _insufficient(self, request: AccessRequest, scopes: Sequence[str]) -> AccessRefused:
        detail = f"the token of {request.principal!r} does not have all of: {' '.join(scopes)}"
        return self._refusal(
            request,
            403,
            "The token does not have the scopes for this",
            "insufficient_scope",
            scopes=scopes,
            detail=detail,
            about=_SCOPE,
        )

    def _refusal(
        self,
        request: AccessRequest,
        status: int,
        reason: str,
        error: str | None = None,
        description: str | None = None,
        *,
        scopes: Sequence[str] | None = None,
        detail: str = "",
        about: str = "",
        schemes: Sequence[Scheme] = (),
    ) -> AccessRefused:
        challenge = Challenge(
            error,
            description,
            self._url(request, self._well_known) if self._names_metadata else None,
            self._resource.scopes if scopes is None else scopes,
            () if self._resource.dpop is None else self._resource.dpop.algorithms,
        )
        fields = challenge.fields(*(schemes or self._schemes()[-1:]))
        return AccessRefused(status, reason, fields=fields, about=about, detail=detail or description or reason)

    def _url(self, request: AccessRequest, path: str) -> str:
        """A URL of this server, as its clients know it."""
        known = self._resource.resource
        if known is not None:
            parts = urlsplit(known)
            return known if path == self._path else f"{parts.scheme}://{parts.netloc}{path}"
        scheme = "https" if request.secure else "http"
        host = request.headers.get("host", "").replace('"', "")
        return f"{scheme}://{host}{path}"
