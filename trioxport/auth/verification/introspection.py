"""Access tokens that the authorization server is asked about (RFC 7662)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote_plus

import attrs
import httpx
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT, COUNT_OR_0, SECONDS, SECONDS_OR_0, TEXT, one_of
from trioxport.auth.secret import Secret, secret
from trioxport.auth.single_flight import SingleFlight
from trioxport.auth.tls import TLSOptions
from trioxport.auth.verification.claims import LEEWAY_SECONDS, SUBJECT, ClaimRules, audiences
from trioxport.auth.verification.decisions import MAX_DECISIONS, Decision, Decisions, TokenHash, hash_of
from trioxport.auth.verification.documents import DocumentSource, IssuerDocument, check_url
from trioxport.auth.verified import InvalidToken, VerificationUnavailable, VerifiedToken

MAX_TOKEN_BYTES: Final = 16 * 1024
"""The most bytes of a token that are sent on."""


@attrs.frozen(eq=False)
class IntrospectionVerifier:
    """A verifier that asks the authorization server about each token, to pass as ``HttpServer(verify=...)``.

    Answers are remembered for a while by the hash of the token: a revoked token is accepted for ``cache_seconds``.
    ``await verifier(token)`` returns a ``VerifiedToken``, or raises ``InvalidToken`` or ``VerificationUnavailable``.

    Args:
        url: The introspection endpoint.
        client_id: The client as which this server asks.
        client_secret: Its secret.
        audience: The names of this server, best its URL: one of them has to be an ``aud`` of the token. None accepts a
            token without a look at ``aud``; do so only if the authorization server calls a token active for no client
            but the one that it is for.
        issuer: The issuer of the tokens. If it is given, an ``iss`` in the answer has to be the same, and the metadata
            of the resource names it.
        client_auth: The place of the client's credentials: the header, or the body of the request (RFC 6749, section
            2.3.1).
        principal: The claim that names the principal; where a client acts for itself, and has no ``sub``, its id.
        leeway: Seconds by which the clocks of this machine and of the authorization server may differ.
        cached: The most answers that are remembered; 0 remembers none.
        cache_seconds: Seconds for which an active token is remembered, at most until it expires.
        negative_cache_seconds: Seconds for which a token that is not active is remembered.
        concurrent: The most requests to the endpoint at once.
        client: The application's own ``httpx.AsyncClient``, which stays open: with it connections are reused.
        tls: The certificates to trust.
        timeout: Seconds for each request, including the wait for others.

    Raises:
        UsageError: The URL is neither https nor of this machine.
    """

    url: str = attrs.field(validator=TEXT, repr=redact_url)
    client_id: str = attrs.field(validator=TEXT)
    client_secret: Secret = attrs.field(converter=secret)
    audience: tuple[str, ...] = attrs.field(converter=audiences, kw_only=True)
    issuer: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    client_auth: Literal["header", "body"] = attrs.field(
        default="header", validator=one_of("header", "body"), kw_only=True
    )
    principal: str = attrs.field(default=SUBJECT, validator=TEXT, kw_only=True)
    leeway: float = attrs.field(default=LEEWAY_SECONDS, validator=SECONDS_OR_0, kw_only=True)
    cached: int = attrs.field(default=MAX_DECISIONS, validator=COUNT_OR_0, kw_only=True)
    cache_seconds: float = attrs.field(default=60.0, validator=SECONDS_OR_0, kw_only=True)
    negative_cache_seconds: float = attrs.field(default=10.0, validator=SECONDS_OR_0, kw_only=True)
    concurrent: int = attrs.field(default=16, validator=COUNT, kw_only=True)
    client: httpx.AsyncClient | None = attrs.field(default=None, repr=False, kw_only=True)
    tls: TLSOptions | None = attrs.field(default=None, repr=False, kw_only=True)
    timeout: float = attrs.field(default=5.0, validator=SECONDS, kw_only=True)
    _rules: ClaimRules = attrs.field(init=False, repr=False)
    _source: DocumentSource = attrs.field(init=False, repr=False)
    _decisions: Decisions = attrs.field(init=False, repr=False)
    _requests: SingleFlight[TokenHash, Decision] = attrs.field(init=False, repr=False)
    _places: trio.Semaphore = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_url(self.url, "url")
        rules = ClaimRules(self.audience, principal=self.principal, leeway=self.leeway)
        object.__setattr__(self, "_rules", rules)
        object.__setattr__(self, "_source", DocumentSource(self.client, self.tls, self.timeout))
        object.__setattr__(self, "_decisions", Decisions(self.cached))
        object.__setattr__(self, "_requests", SingleFlight[TokenHash, Decision]())
        object.__setattr__(self, "_places", trio.Semaphore(self.concurrent))

    @property
    def authorization_servers(self) -> Sequence[str]:
        """The issuer, for the metadata of the resource."""
        return () if self.issuer is None else (self.issuer,)

    @property
    def resource(self) -> str | None:
        """The URL of the resource; None if the audience is no URL, or there are several."""
        return self.audience[0] if len(self.audience) == 1 and "://" in self.audience[0] else None

    async def __call__(self, token: str) -> VerifiedToken:
        """Verify a token. Raises ``InvalidToken`` or ``VerificationUnavailable``."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"the token has more than {MAX_TOKEN_BYTES} bytes")
        key = hash_of(token)
        decision = self._decisions.get(key)
        if decision is None:
            decision = await self._requests.run(key, partial(self._ask, key, token))
        if isinstance(decision, VerifiedToken):
            return decision
        raise InvalidToken(decision.reason, detail=decision.detail)

    async def _ask(self, key: TokenHash, token: str) -> Decision:
        decision = self._decision(await self._introspected(token))
        if self.cached:
            seconds = self.cache_seconds if isinstance(decision, VerifiedToken) else self.negative_cache_seconds
            self._decisions.put(key, decision, seconds)
        return decision

    async def _introspected(self, token: str) -> IssuerDocument:
        form = {"token": token, "token_type_hint": "access_token"}
        auth: httpx.BasicAuth | None = None
        if self.client_auth == "header":
            auth = httpx.BasicAuth(quote_plus(self.client_id), quote_plus(self.client_secret.reveal()))
        else:
            form |= {"client_id": self.client_id, "client_secret": self.client_secret.reveal()}
        with trio.move_on_after(self.timeout):
            async with self._places:
                return await self._source.request("POST", self.url, data=form, auth=auth)
        raise VerificationUnavailable(f"{redact_url(self.url)} has too many requests to answer")

    def _decision(self, document: IssuerDocument) -> Decision:
        """The decision that a response stands for. Raises ``VerificationUnavailable`` if it stands for none."""
        members = document.members
        active = members.get("active")
        if document.status != 200 or not isinstance(active, bool):
            reason = f"{redact_url(self.url)} answers {document.status}"
            if document.status in (400, 401, 403):
                reason += ": does it accept client_id and client_secret?"
            elif document.status == 200:
                reason += " without saying whether the token is active"
            raise VerificationUnavailable(reason)
        if not active:
            return InvalidToken("the token is not active", detail="it has expired, was revoked, or never was issued")
        return self._checked(members)

    def _checked(self, members: Mapping[str, Any]) -> Decision:
        issuer = members.get("iss", self.issuer)
        if self.issuer is not None and issuer != self.issuer:
            return InvalidToken("the token is from another issuer", detail=f"its issuer is {issuer!r:.200}")
        try:
            return self._rules.verified(members, looked_up=True)
        except InvalidToken as error:
            return error
