"""Challenges: the header ``WWW-Authenticate`` of a response with 401 or 403 (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from trioxport.messages import NOTHING

MAX_HEADER: Final = 16384
"""Characters of a header that are read."""

_SCHEME: Final = re.compile(r"[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?=[\s,]|$)")
_PARAMETER: Final = re.compile(
    r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`|~0-9A-Za-z/:@-]+))"""
)
_TOKEN68: Final = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_ESCAPED: Final = re.compile(r"\\(.)")


@attrs.frozen
class TokenChallenge:
    """One challenge: a scheme in lower case, and its parameters by names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = NOTHING

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """The scopes that the server demands (RFC 6750, section 3); None if it names none."""
        scope = self.parameters.get("scope")
        return tuple(dict.fromkeys(scope.split())) or None if scope is not None else None


def parse_challenges(header: str) -> list[TokenChallenge]:
    """The challenges of a header, or of several joined with commas; of a broken one those before the break."""
    return list(_challenges(header[:MAX_HEADER]))


def _challenges(header: str) -> Iterator[TokenChallenge]:
    at = 0
    while scheme := _SCHEME.match(header, at):
        at = scheme.end()
        if single := _TOKEN68.match(header, at):
            yield TokenChallenge(scheme[1].lower())
            at = single.end()
            continue
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(header, at):
            value = found[3] if found[2] is None else _ESCAPED.sub(r"\1", found[2])
            parameters.setdefault(found[1].lower(), value)
            at = found.end()
        yield TokenChallenge(scheme[1].lower(), parameters)


def oauth_challenge(header: str | None, *, dpop: bool = False) -> TokenChallenge | None:
    """The challenge for an access token, with the parameters of both schemes; None if there is none.

    Args:
        header: The value of ``WWW-Authenticate``.
        dpop: Whether to read the scheme ``DPoP`` first.
    """
    found = {each.scheme: each for each in reversed(parse_challenges(header or ""))}
    order = ("dpop", "bearer") if dpop else ("bearer", "dpop")
    schemes = [found[scheme] for scheme in order if scheme in found]
    if not schemes:
        return None
    merged = {name: value for each in reversed(schemes) for name, value in each.parameters.items()}
    return TokenChallenge(schemes[0].scheme, merged)


def offers_dpop(header: str | None) -> bool:
    """Whether the server takes tokens that are bound by DPoP (RFC 9449, section 7.1)."""
    return any(each.scheme == "dpop" for each in parse_challenges(header or ""))
