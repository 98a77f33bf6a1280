"""Examination of a server's authorization: each step of discovery and registration, and the section that it breaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal, TypeAlias, TypeVar

import attrs

from trioxport.auth.addresses import root_of, shown_url
from trioxport.auth.oauth.authorization import check_pkce
from trioxport.auth.oauth.challenges import TokenChallenge, oauth_challenge
from trioxport.auth.oauth.clients import REGISTRATION_STEP, RegistrationMetadata, register
from trioxport.auth.oauth.discovery import find_resource, find_server
from trioxport.auth.oauth.metadata import RESOURCE_STEP, SERVER_STEP, AuthorizationServer
from trioxport.auth.oauth.network import NetworkPolicy
from trioxport.auth.oauth.sender import GuardedSender
from trioxport.auth.oauth.steps import Steps, run_steps
from trioxport.errors import OAuthError

Verdict: TypeAlias = Literal["ok", "note", "failed"]

CHALLENGE_STEP: Final = "request without a token"
PKCE_STEP: Final = "PKCE"
REDIRECT_URI: Final = "http://localhost/callback"

Result = TypeVar("Result")


@attrs.frozen
class AuthorizationFinding:
    """The finding of one step.

    Args:
        step: The step.
        verdict: ``"ok"``, ``"failed"``, or ``"note"`` for what is allowed, and worth knowing.
        text: The finding in words.
        section: The section of the specification or RFC that is broken or meant.
        hint: What to do.
    """

    step: str
    verdict: Verdict
    text: str
    section: str | None = None
    hint: str | None = None


async def examine(
    url: str, status: int, header: str | None, *, network: NetworkPolicy | None = None, registers: bool = False
) -> AsyncGenerator[AuthorizationFinding]:
    """Examine the authorization of the MCP server at ``url``, step by step, as far as it goes.

    Args:
        url: The MCP server.
        status: The status of its response to a request without a token.
        header: The value of ``WWW-Authenticate`` in that response.
        network: The options of requests to authorization servers.
        registers: Whether to register a client, where that is possible.
    """
    challenge = oauth_challenge(header)
    yield _challenge(status, header, challenge)
    examination = _Examination(url, network or NetworkPolicy(), registers=registers)
    async with aclosing(examination.findings(challenge)) as findings:
        async for finding in findings:
            yield finding


def _challenge(status: int, header: str | None, challenge: TokenChallenge | None) -> AuthorizationFinding:
    if status != 401:
        text = f"the server answers with HTTP {status}; it may ask for a token later"
        return AuthorizationFinding(CHALLENGE_STEP, "note", text)
    if challenge is None:
        text = "the response with 401 has no WWW-Authenticate"
        if header is not None:
            text = "the WWW-Authenticate names neither the scheme Bearer nor DPoP"
        return AuthorizationFinding(CHALLENGE_STEP, "failed", text, "RFC 6750, section 3")
    named = challenge.parameters.get("resource_metadata")
    if named is None:
        text = "401; the challenge names no resource_metadata, so the well-known URLs are tried"
        return AuthorizationFinding(CHALLENGE_STEP, "note", text, "RFC 9728, section 5.1")
    scopes = f", scopes {' '.join(challenge.scopes)}" if challenge.scopes else ""
    return AuthorizationFinding(CHALLENGE_STEP, "ok", f"401; the metadata are at {shown_url(named)}{scopes}")


class _Examination:
    def __init__(self, url: str, network: NetworkPolicy, *, registers: bool) -> None:
        self._url = url
        self._send = GuardedSender(url, network).send
        self._registers = registers

    async def _run(self, steps: Steps[Result]) -> Result:
        return await run_steps(steps, self._send)

    async def findings(self, challenge: TokenChallenge | None) -> AsyncGenerator[AuthorizationFinding]:
        try:
            metadata = await self._run(find_resource(self._url, challenge))
        except OAuthError as error:
            yield _failed(error)
            return
        if metadata is None:
            text = f"the server has none; {root_of(self._url)} is tried as its authorization server"
            yield AuthorizationFinding(RESOURCE_STEP, "failed", text, "RFC 9728, section 3")
            issuers: tuple[str, ...] = (root_of(self._url),)
        else:
            issuers = metadata.authorization_servers
            text = f"resource {metadata.resource}, authorization servers {', '.join(map(shown_url, issuers))}"
            yield AuthorizationFinding(RESOURCE_STEP, "ok", text)
        for issuer in issuers:
            async with aclosing(self._server_findings(issuer)) as findings:
                async for finding in findings:
                    yield finding

    async def _server_findings(self, issuer: str) -> AsyncGenerator[AuthorizationFinding]:
        try:
            server = await self._run(find_server(issuer))
        except OAuthError as error:
            yield _failed(error)
            return
        yield AuthorizationFinding(
            SERVER_STEP, "ok", f"issuer {shown_url(server.issuer)}, tokens at {server.token_endpoint}"
        )
        for finding in _abilities(server):
            yield finding
        if self._registers and server.registration_endpoint is not None:
            yield await self._registration(server)

    async def _registration(self, server: AuthorizationServer) -> AuthorizationFinding:
        try:
            client = await self._run(register(server, RegistrationMetadata("trioxport doctor", [REDIRECT_URI])))
        except OAuthError as error:
            return _failed(error)
        text = f"registered the client {client.client_id}, which authenticates by {client.auth_method}"
        return AuthorizationFinding(REGISTRATION_STEP, "ok", text)


def _abilities(server: AuthorizationServer) -> list[AuthorizationFinding]:
    """Findings in the metadata about the steps that follow."""
    found = [_pkce(server), _registration_ways(server)]
    if server.authorization_endpoint is None:
        text = "there is no authorization_endpoint: no person can consent in a browser"
        found.append(AuthorizationFinding(SERVER_STEP, "note", text, "RFC 8414, section 2"))
    if not server.iss_parameter:
        text = "authorization responses are not said to name their issuer, which protects against mix-ups"
        found.append(AuthorizationFinding(SERVER_STEP, "note", text, "RFC 9207, section 3"))
    if server.dpop_algorithms and "ES256" not in server.dpop_algorithms:
        text = "DPoP is offered without ES256, which this client signs with"
        found.append(AuthorizationFinding(SERVER_STEP, "note", text, "RFC 9449, section 5.1"))
    return found


def _pkce(server: AuthorizationServer) -> AuthorizationFinding:
    try:
        check_pkce(server)
    except OAuthError as error:
        return AuthorizationFinding(PKCE_STEP, "failed", error.reason, error.section, error.hint)
    return AuthorizationFinding(PKCE_STEP, "ok", "S256 is supported")


def _registration_ways(server: AuthorizationServer) -> AuthorizationFinding:
    ways = [
        *(["client id metadata documents"] if server.client_id_documents else []),
        *([f"dynamic registration at {server.registration_endpoint}"] if server.registration_endpoint else []),
    ]
    if ways:
        return AuthorizationFinding(REGISTRATION_STEP, "ok", " and ".join(ways))
    text, hint = "clients have to be registered by hand", "Pass the client by --client-id, or client=OAuthClient(...)"
    return AuthorizationFinding(REGISTRATION_STEP, "note", text, "RFC 7591", hint)


def _failed(error: OAuthError) -> AuthorizationFinding:
    return AuthorizationFinding(error.step, "failed", error.reason, error.section, error.hint)
