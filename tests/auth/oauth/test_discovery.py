"""Discovery: URLs and their order, challenges, and metadata documents of hostile servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pytest

from tests.support.authorization_server import answer
from trioxport import OAuthError
from trioxport.auth.addresses import canonical, covers, resource_metadata_urls, server_metadata_urls, shown_url
from trioxport.auth.oauth.challenges import TokenChallenge, oauth_challenge, offers_dpop, parse_challenges
from trioxport.auth.oauth.discovery import Discovery, discover
from trioxport.auth.oauth.steps import OAuthResponse, Steps

SERVER = "https://mcp.test/mcp"
ISSUER = "https://as.test"
ABOUT_RESOURCE = "https://mcp.test/.well-known/oauth-protected-resource/mcp"
ABOUT_ISSUER = "https://as.test/.well-known/oauth-authorization-server"
RESOURCE: dict[str, Any] = {"resource": SERVER, "authorization_servers": [ISSUER]}
METADATA: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
}

Result = TypeVar("Result")


def played(steps: Steps[Result], documents: Mapping[str, object]) -> tuple[Result, list[str]]:
    """The result of ``steps``, and the URLs that they asked for; any other URL than those is 404."""
    urls, response = list[str](), None
    while True:
        try:
            request = next(steps) if response is None else steps.send(response)
        except StopIteration as done:
            return done.value, urls
        urls.append(request.url)
        found = documents.get(request.url, OAuthResponse(404))
        response = found if isinstance(found, OAuthResponse) else answer(found)


def found(documents: Mapping[str, object], challenge: str | None = None, **options: Any) -> tuple[Discovery, list[str]]:
    return played(discover(SERVER, oauth_challenge(challenge), **options), documents)


# URLs.


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://as.test/tenant",
            [
                "https://as.test/.well-known/oauth-authorization-server/tenant",
                "https://as.test/.well-known/openid-configuration/tenant",
                "https://as.test/tenant/.well-known/openid-configuration",
            ],
        ),
        (
            "https://as.test",
            [
                "https://as.test/.well-known/oauth-authorization-server",
                "https://as.test/.well-known/openid-configuration",
            ],
        ),
        (
            "https://as.test/",
            [
                "https://as.test/.well-known/oauth-authorization-server",
                "https://as.test/.well-known/openid-configuration",
            ],
        ),
    ],
)
def test_the_urls_of_an_authorization_server_are_tried_in_order(issuer: str, urls: list[str]) -> None:
    """2026-07-28, authorization-server-discovery; RFC 8414, sections 3.1 and 5."""
    assert server_metadata_urls(issuer) == urls
    documents: dict[str, object] = {ABOUT_RESOURCE: {**RESOURCE, "authorization_servers": [issuer]}}
    for last in range(len(urls)):
        here = {**documents, urls[last]: {**METADATA, "issuer": issuer}}
        discovery, asked = found(here)
        assert discovery.server.issuer == issuer
        assert asked[1:] == urls[: last + 1]


def test_the_metadata_of_the_server_is_looked_for_by_header_then_path_then_root() -> None:
    """RFC 9728, sections 3.1 and 5.1."""
    root = "https://mcp.test/.well-known/oauth-protected-resource"
    assert resource_metadata_urls(f"{SERVER}/?a=1") == [f"{ABOUT_RESOURCE}?a=1", root]
    documents: dict[str, object] = {
        ABOUT_RESOURCE: RESOURCE,
        root: {**RESOURCE, "resource": "https://mcp.test"},
        ABOUT_ISSUER: METADATA,
    }
    assert found(documents)[1] == [ABOUT_RESOURCE, ABOUT_ISSUER]
    del documents[ABOUT_RESOURCE]
    discovery, asked = found(documents)
    assert asked == [ABOUT_RESOURCE, root, ABOUT_ISSUER]
    assert discovery.resource == "https://mcp.test"
    named = "https://elsewhere.test/about"
    documents |= {named: RESOURCE, ABOUT_RESOURCE: 0}
    assert found(documents, f'Bearer resource_metadata="{named}"')[1] == [named, ABOUT_ISSUER]


def test_a_server_without_metadata_may_be_its_own_authorization_server() -> None:
    own = {"https://mcp.test/.well-known/oauth-authorization-server": {**METADATA, "issuer": "https://mcp.test"}}
    discovery, _ = found(own)
    assert (discovery.server.issuer, discovery.resource, discovery.scopes_supported) == (
        "https://mcp.test",
        SERVER,
        None,
    )
    with pytest.raises(OAuthError, match=r"names no authorization server.*Pass issuer="):
        found({})
    assert found({ABOUT_ISSUER: METADATA}, issuer=ISSUER)[0].server.issuer == ISSUER


def test_the_issuer_can_be_fixed() -> None:
    documents = {
        ABOUT_RESOURCE: {**RESOURCE, "authorization_servers": ["https://other.test", ISSUER]},
        ABOUT_ISSUER: METADATA,
    }
    assert found(documents, issuer=ISSUER)[0].server.issuer == ISSUER
    assert found(documents, known=[ISSUER])[0].server.issuer == ISSUER
    with pytest.raises(OAuthError, match=r"names the authorization servers https://other\.test, https://as\.test"):
        found(documents, issuer="https://third.test")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://MCP.test:443/mcp/", "https://mcp.test/mcp"),
        ("https://mcp.test:8443/", "https://mcp.test:8443"),
        ("https://mcp.test/a?b=1#c", "https://mcp.test/a"),
        ("http://[::1]:80/x", "http://[::1]/x"),
    ],
)
def test_the_canonical_uri_of_a_server(url: str, expected: str) -> None:
    assert canonical(url) == expected


@pytest.mark.parametrize(
    ("resource", "does"),
    [
        ("https://mcp.test", True),
        ("https://mcp.test/mcp/", True),
        ("https://mcp.test:443/mcp", True),
        ("https://mcp.test/mc", False),
        ("https://mcp.test/mcp/more", False),
        ("https://mcp.test/mcp?x=1", False),
        ("http://mcp.test/mcp", False),
        ("https://mcp.test.evil.test/mcp", False),
    ],
)
def test_the_resource_that_a_document_may_be_about(resource: str, does: bool) -> None:
    assert covers(resource, SERVER) is does


# Challenges.


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer", [("bearer", {})]),
        (
            'Bearer realm="a, b=\\"c\\"", scope="x y",error=invalid_token',
            [("bearer", {"realm": 'a, b="c"', "scope": "x y", "error": "invalid_token"})],
        ),
        ("Negotiate YWJj==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            'Basic realm="r", Bearer scope = "x" , DPoP algs="ES256"',
            [("basic", {"realm": "r"}), ("bearer", {"scope": "x"}), ("dpop", {"algs": "ES256"})],
        ),
        ('bearer SCOPE="a", scope="b"', [("bearer", {"scope": "a"})]),
        ('Bearer scope="a', [("bearer", {}), ("scope", {})][:1]),
        ("", []),
        ('="', []),
        ("Bearer resource_metadata=https://a.test/x", [("bearer", {"resource_metadata": "https://a.test/x"})]),
    ],
)
def test_challenges_are_read(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """RFC 9110, section 11.6.1."""
    parsed = [(each.scheme, dict(each.parameters)) for each in parse_challenges(header)]
    assert parsed[: len(expected)] == expected
    assert len(parsed) <= len(expected) + 1


def test_the_challenge_for_a_token() -> None:
    both = 'DPoP algs="ES256", error="use_dpop_nonce", Bearer scope="a", error="invalid_token"'
    assert oauth_challenge(both) == TokenChallenge("bearer", {"algs": "ES256", "error": "invalid_token", "scope": "a"})
    bound = oauth_challenge(both, dpop=True)
    assert bound is not None and bound.parameters["error"] == "use_dpop_nonce" and bound.scopes == ("a",)
    assert oauth_challenge("Basic realm=x") is None
    assert oauth_challenge(None) is None
    assert offers_dpop(both) and not offers_dpop("Bearer") and not offers_dpop(None)
    assert TokenChallenge("bearer", {"scope": "  "}).scopes is None
    assert TokenChallenge("bearer", {"scope": "a  b a"}).scopes == ("a", "b")


def test_a_long_header_is_read_in_little_time() -> None:
    assert len(parse_challenges("Bearer a=b," + 'x="' * 100_000)) <= 2
    assert len(parse_challenges("a " * 100_000)) <= 10_000


# Hostile documents.


def about_resource(**members: object) -> dict[str, object]:
    return {ABOUT_RESOURCE: {**RESOURCE, **members}, ABOUT_ISSUER: METADATA}


def about_issuer(**members: object) -> dict[str, object]:
    return {ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: {**METADATA, **members}}


def without(name: str) -> dict[str, object]:
    return {ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: {key: METADATA[key] for key in METADATA if key != name}}


DEEP = b'{"a":' + b"[" * 100_000

HOSTILE: dict[str, tuple[Mapping[str, object], str]] = {
    # Documents about another server.
    "resource of another host": (about_resource(resource="https://evil.test/mcp"), "not about this server.*9728.*3.3"),
    "resource of a deeper path": (about_resource(resource=f"{SERVER}/admin"), "not about this server"),
    "resource of a sibling": (about_resource(resource="https://mcp.test/mcp2"), "not about this server"),
    "resource of another port": (about_resource(resource="https://mcp.test:8443/mcp"), "not about this server"),
    "resource without TLS": (about_resource(resource="http://mcp.test/mcp"), "not encrypted"),
    "resource with a fragment": (about_resource(resource=f"{SERVER}#x"), "fragment.*9728, section 1.2"),
    "resource with credentials": (about_resource(resource="https://u:hunter2@mcp.test/mcp"), "holds credentials"),
    "resource that is a number": (about_resource(resource=7), "member resource that is not a text"),
    "resource that is missing": ({ABOUT_RESOURCE: {"authorization_servers": [ISSUER]}}, "lacks resource"),
    # Authorization servers that cannot be.
    "no authorization server": (about_resource(authorization_servers=[]), "names no authorization_servers"),
    "authorization servers in a text": (about_resource(authorization_servers=ISSUER), "not a list"),
    "authorization servers of numbers": (about_resource(authorization_servers=[1]), "not a list"),
    "a million authorization servers": (about_resource(authorization_servers=[ISSUER] * 1001), "at most 1000"),
    "issuer javascript:": (about_resource(authorization_servers=["javascript:alert(1)"]), "scheme is 'javascript'"),
    "issuer file:": (about_resource(authorization_servers=["file:///etc/passwd"]), "scheme is 'file'"),
    "issuer data:": (about_resource(authorization_servers=["data:,x"]), "scheme is 'data'"),
    "issuer without TLS": (about_resource(authorization_servers=["http://as.test"]), "not encrypted"),
    "issuer with a query": (about_resource(authorization_servers=[f"{ISSUER}?a=1"]), "has a query.*8414, section 2"),
    "issuer with a fragment": (about_resource(authorization_servers=[f"{ISSUER}#a"]), "has a fragment"),
    "issuer with a line break": (about_resource(authorization_servers=["https://as.test/\r\nx"]), "characters"),
    "issuer without a host": (about_resource(authorization_servers=["https:///x"]), "has no host"),
    "issuer with a bad port": (about_resource(authorization_servers=["https://as.test:99999"]), "is no URL"),
    "issuer with port 0": (about_resource(authorization_servers=["https://as.test:0"]), "port is 0"),
    "issuer that is relative": (about_resource(authorization_servers=["/as"]), "no absolute URL"),
    "issuer with a letter that only looks the same": (
        about_resource(authorization_servers=["https://\u0430s.test"]),
        "characters",
    ),
    # Documents about another issuer, which is how a mix-up begins.
    "metadata of another issuer": (about_issuer(issuer="https://evil.test"), "not https://as.test.*8414, section 3.3"),
    "issuer with a slash more": (about_issuer(issuer=f"{ISSUER}/"), "is about the issuer"),
    "issuer in other case": (about_issuer(issuer="https://AS.test"), "is about the issuer"),
    "issuer with its port": (about_issuer(issuer="https://as.test:443"), "is about the issuer"),
    "issuer that is missing": (without("issuer"), "lacks issuer"),
    "issuer that is null": (about_issuer(issuer=None), "lacks issuer"),
    "issuer that is a list": (about_issuer(issuer=[ISSUER]), "not a text"),
    # Endpoints.
    "token endpoint that is missing": (without("token_endpoint"), "lacks token_endpoint"),
    "token endpoint without TLS": (about_issuer(token_endpoint="http://as.test/token"), "not encrypted.*RFC 9700"),
    "token endpoint that is a number": (about_issuer(token_endpoint=1), "not a text"),
    "authorization endpoint javascript:": (
        about_issuer(authorization_endpoint="javascript:alert(document.cookie)"),
        "authorization_endpoint javascript:.*scheme is 'javascript'",
    ),
    "authorization endpoint data:": (about_issuer(authorization_endpoint="data:text/html,x"), "scheme is 'data'"),
    "authorization endpoint for a shell": (
        about_issuer(authorization_endpoint="https://as.test/`id`"),
        "characters that a URL cannot have",
    ),
    "authorization endpoint with a quote": (
        about_issuer(authorization_endpoint='https://as.test/"&calc'),
        "characters",
    ),
    "authorization endpoint with credentials": (
        about_issuer(authorization_endpoint="https://as.test@evil.test/a"),
        "holds credentials",
    ),
    "registration endpoint ftp:": (about_issuer(registration_endpoint="ftp://as.test/r"), "scheme is 'ftp'"),
    "device endpoint without TLS": (about_issuer(device_authorization_endpoint="http://as.test/d"), "not encrypted"),
    "PKCE methods in a text": (about_issuer(code_challenge_methods_supported="S256"), "not a list"),
    "iss parameter that is a text": (
        about_issuer(authorization_response_iss_parameter_supported="yes"),
        "not true or false",
    ),
    # What is no document.
    "HTML": ({ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: OAuthResponse(200, {}, b"<html>")}, "no metadata document"),
    "a list": ({ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: [METADATA]}, "no metadata document"),
    "nested without end": ({ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: OAuthResponse(200, {}, DEEP)}, "no metadata"),
    "no UTF-8": ({ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: OAuthResponse(200, {}, b'{"a":"\xff"}')}, "no metadata"),
    "another status": ({ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: answer(METADATA, 201)}, "no metadata document"),
    "a server that is down": ({ABOUT_RESOURCE: OAuthResponse(503)}, "answers with HTTP 503.*Try again later"),
    "an authorization server with too much to do": (
        {ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: OAuthResponse(429)},
        "answers with HTTP 429",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_with_its_reason(name: str) -> None:
    documents, reason = HOSTILE[name]
    with pytest.raises(OAuthError, match=reason) as caught:
        found(documents)
    text = str(caught.value)
    assert "hunter2" not in text
    assert text.isprintable()
    assert len(text) < 700
    assert caught.value.step in ("protected resource metadata", "authorization server metadata")


def test_there_are_enough_hostile_documents() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("http://mcp.test/about", "not encrypted"),
        ("javascript:alert(1)", "scheme is 'javascript'"),
        ("https://mcp.test/nothing", "where there is no document"),
    ],
)
def test_a_challenge_that_names_bad_metadata_is_refused(named: str, reason: str) -> None:
    with pytest.raises(OAuthError, match=f"{reason}.*RFC 9728, section 5.1"):
        found({ABOUT_RESOURCE: RESOURCE, ABOUT_ISSUER: METADATA}, f'Bearer resource_metadata="{named}"')


def test_a_url_is_shown_short_and_printable() -> None:
    assert len(shown_url("https://as.test/" + "a" * 500)) == 203
    assert shown_url("https://as.test/\x1b[31m") == "https://as.test/?[31m"
    assert json.dumps(shown_url("https://u:p@as.test/")).count("p@") == 0
