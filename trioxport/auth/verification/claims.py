"""The checks of a token's claims, whether it was signed (RFC 7519, RFC 9068) or looked up (RFC 7662)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import attrs

from trioxport._diagnostics.validators import SECONDS_OR_0, TEXT
from trioxport.auth.verified import InvalidToken, VerifiedToken, comparable_audience
from trioxport.errors import UsageError
from trioxport.protocol import items_of

SUBJECT: Final = "sub"
"""The claim that names the principal, by default."""
LEEWAY_SECONDS: Final = 30.0
"""The difference between two clocks that is put up with, by default."""


def audiences(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The converter of an option that names audiences. Raises ``UsageError`` for an empty name."""
    found = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(isinstance(cast("object", each), str) and each for each in found):
        raise UsageError("an audience is a text that is not empty, such as the URL of this server")
    return found


@attrs.frozen
class ClaimRules:
    """The rules for claims, all but that for the issuer: a signed token is refused for it before its key is looked for.

    Args:
        audience: The names of this server: one of them has to be an ``aud``. Without one ``aud`` is not checked.
        principal: The claim that names the principal.
        leeway: Seconds by which the clocks of this machine and of the issuer may differ.
    """

    audience: tuple[str, ...]
    principal: str = attrs.field(default=SUBJECT, validator=TEXT, kw_only=True)
    leeway: float = attrs.field(default=LEEWAY_SECONDS, validator=SECONDS_OR_0, kw_only=True)

    def verified(self, claims: Mapping[str, Any], *, looked_up: bool = False) -> VerifiedToken:
        """The token with these claims. Raises ``InvalidToken``.

        Args:
            claims: The claims, from a source that is trusted.
            looked_up: Whether they are an answer of RFC 7662, which need not have ``exp``, nor, where a client acts for
                itself, ``sub``: then the client is the principal.
        """
        self._check_audience(claims)
        expires_at = self._check_times(claims, needs_expiry=not looked_up)
        principal = claims.get(self.principal)
        if looked_up and self.principal == SUBJECT and SUBJECT not in claims:
            principal = claims.get("client_id")
        if not isinstance(principal, str) or not principal:
            raise InvalidToken("the token names no principal", detail=f"it has no claim {self.principal!r}")
        client_id = claims.get("client_id", claims.get("azp"))
        return VerifiedToken(
            principal,
            client_id=client_id if isinstance(client_id, str) else None,
            scopes=scopes_of(claims),
            expires_at=expires_at,
            claims=claims,
        )

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        if not self.audience:
            return
        found = claims.get("aud")
        named = [found] if isinstance(found, str) else items_of(found)
        mine = {comparable_audience(each) for each in self.audience}
        if not any(isinstance(each, str) and comparable_audience(each) in mine for each in named):
            detail = f"its audience is {found!r:.200}, and this server is {' or '.join(self.audience)}"
            raise InvalidToken("the token is for another audience", detail=detail)

    def _check_times(self, claims: Mapping[str, Any], *, needs_expiry: bool) -> float | None:
        now = time.time()
        expires_at, begins_at, issued_at = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if expires_at is None and needs_expiry:
            raise InvalidToken("the token has no expiry")
        if expires_at is not None and now >= expires_at + self.leeway:
            raise InvalidToken("the token has expired", detail=f"it has expired {now - expires_at:.0f} s ago")
        for begins in (begins_at, issued_at):
            if begins is not None and now < begins - self.leeway:
                raise InvalidToken("the token is not valid yet", detail=f"it begins in {begins - now:.0f} s")
        return expires_at


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2); None if it is absent. Raises ``InvalidToken`` for anything else."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise InvalidToken(f"the claim {name} of the token is no time")


def scopes_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The scopes of a token: ``scope`` as RFC 8693 has it, or else ``scp``; each a text or a list of texts."""
    found = claims.get("scope", claims.get("scp"))
    if isinstance(found, str):
        return tuple(found.split())
    if isinstance(found, list):
        return tuple(each for each in cast("list[object]", found) if isinstance(each, str))
    return ()
