"""Authorization requests and responses, the registration of clients, and their authentication."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwk, jwt

from tests.auth.oauth.test_discovery import ISSUER, METADATA, SERVER, played
from tests.support.authorization_server import REDIRECT, answer, basic, refuse
from trioxport import InteractionRequired, OAuthError, UsageError
from trioxport.auth.dpop import DPoPKey
from trioxport.auth.oauth import OAuthClient
from trioxport.auth.oauth.authorization import AuthorizationRequest, authorization_request, code_in, redeem, s256
from trioxport.auth.oauth.clients import RegistrationMetadata, check_redirect_uri, register
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse, refusal, shown_text
from trioxport.auth.oauth.token_requests import DPoPState, client_authentication, token_request
from trioxport.auth.secret import Secret

CLIENT = OAuthClient("me")


def server(**members: Any) -> AuthorizationServer:
    known = {
        **METADATA,
        "code_challenge_methods_supported": ["S256"],
        "registration_endpoint": f"{ISSUER}/register",
        "authorization_response_iss_parameter_supported": True,
    }
    found = {name: value for name, value in {**known, **members}.items() if value is not None}
    return AuthorizationServer.parse(found, ISSUER, ISSUER)


def request(at: AuthorizationServer | None = None, **options: Any) -> AuthorizationRequest:
    steps = authorization_request(at or server(), CLIENT, redirect_uri=REDIRECT, resource=SERVER, **options)
    return played(steps, {})[0]


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def redirected(to: AuthorizationRequest, **members: str | None) -> str:
    given: dict[str, str | None] = {"code": "c0de", "state": to.state.reveal(), "iss": ISSUER, **members}
    return f"{REDIRECT}?{urlencode({name: value for name, value in given.items() if value is not None})}"


# The request.


def test_an_authorization_request_has_all_that_the_specification_demands() -> None:
    made = request(scopes=["a", "b", "a"])
    found = query(made.url)
    assert found == {
        "response_type": "code",
        "client_id": "me",
        "redirect_uri": REDIRECT,
        "state": made.state.reveal(),
        "code_challenge": s256(made.verifier),
        "code_challenge_method": "S256",
        "resource": SERVER,
        "scope": "a b",
    }
    assert len(made.verifier.reveal()) >= 43
    assert made.state.reveal() not in repr(made)


def test_each_request_has_a_state_and_a_verifier_of_its_own() -> None:
    first, second = request(), request()
    assert first.state != second.state
    assert first.verifier != second.verifier


def test_a_query_of_the_endpoint_is_kept() -> None:
    assert "?tenant=1&response_type=code" in request(server(authorization_endpoint=f"{ISSUER}/a?tenant=1")).url


@pytest.mark.parametrize("methods", [None, [], ["plain"], ["s256"]])
def test_a_server_that_does_not_say_that_it_has_pkce_is_refused(methods: list[str] | None) -> None:
    with pytest.raises(OAuthError, match=r"code_challenge_methods_supported.*authorization code protection"):
        request(server(code_challenge_methods_supported=methods))


def test_a_server_without_an_authorization_endpoint_is_refused() -> None:
    with pytest.raises(OAuthError, match="lacks authorization_endpoint"):
        request(server(authorization_endpoint=None))


def test_a_request_is_pushed_where_the_server_requires_it() -> None:
    """RFC 9126."""
    at = server(
        pushed_authorization_request_endpoint=f"{ISSUER}/par",
        require_pushed_authorization_requests=True,
        dpop_signing_alg_values_supported=["ES256"],
    )
    dpop = DPoPState(DPoPKey.generate())
    steps = authorization_request(at, CLIENT, redirect_uri=REDIRECT, resource=SERVER, dpop=dpop)
    pushed = next(steps)
    form = dict(parse_qsl((pushed.content or b"").decode()))
    assert (pushed.url, form["resource"], form["dpop_jkt"]) == (f"{ISSUER}/par", SERVER, dpop.key.thumbprint)
    with pytest.raises(StopIteration) as done:
        steps.send(answer({"request_uri": "urn:x:1", "expires_in": 60}, 201))
    assert query(done.value.value.url) == {"client_id": "me", "request_uri": "urn:x:1"}
    again = authorization_request(at, CLIENT, redirect_uri=REDIRECT, resource=SERVER)
    next(again)
    with pytest.raises(OAuthError, match=r"refuses with invalid_request.*RFC 9126"):
        again.send(refuse("invalid_request"))


# The response.


def test_the_code_of_a_good_response() -> None:
    made = request()
    assert code_in(made, redirected(made)) == Secret("c0de")
    assert code_in(made, redirected(made).partition("?")[2]) == Secret("c0de")
    old = request(server(authorization_response_iss_parameter_supported=None))
    assert code_in(old, redirected(old, iss=None)) == Secret("c0de")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"state": "other"}, "its state is not that of the request"),
        ({"state": None}, "its state is not that of the request"),
        ({"iss": "https://evil.test"}, r"iss is https://evil\.test.*RFC 9207, section 2\.4"),
        ({"iss": f"{ISSUER}/"}, "another authorization server"),
        ({"iss": "https://AS.test"}, "another authorization server"),
        ({"iss": None}, "lacks iss, which the server promises"),
        ({"code": None}, "holds no code"),
        ({"code": ""}, "holds no code"),
    ],
)
def test_a_response_that_cannot_be_trusted_is_refused_before_its_code_is_sent(
    members: dict[str, str | None], reason: str
) -> None:
    made = request()
    with pytest.raises(OAuthError, match=reason) as caught:
        code_in(made, redirected(made, **members))
    assert made.state.reveal() not in str(caught.value) and "c0de" not in str(caught.value)


def test_an_iss_is_checked_even_if_the_server_does_not_promise_it() -> None:
    old = request(server(authorization_response_iss_parameter_supported=None))
    with pytest.raises(OAuthError, match="another authorization server"):
        code_in(old, redirected(old, iss="https://evil.test"))


def test_the_error_of_another_authorization_server_is_not_shown() -> None:
    made = request()
    with pytest.raises(OAuthError) as caught:
        code_in(
            made, redirected(made, code=None, iss="https://evil.test", error="access_denied", error_description="Boo")
        )
    assert "Boo" not in str(caught.value) and "access_denied" not in str(caught.value)


def test_a_response_that_is_no_url_is_refused() -> None:
    with pytest.raises(OAuthError, match="it is no URL"):
        code_in(request(), "http://[localhost/callback?code=1")


def test_a_parameter_twice_is_refused() -> None:
    made = request()
    with pytest.raises(OAuthError, match="more than once"):
        code_in(made, redirected(made) + "&code=2")
    with pytest.raises(OAuthError, match="too many"):
        code_in(made, redirected(made) + "&a=1" * 200)


def test_a_refusal_says_why() -> None:
    made = request()
    with pytest.raises(OAuthError, match=r"access_denied: No thanks\b.*Consent was refused") as caught:
        code_in(made, redirected(made, code=None, error="access_denied", error_description="No\nthanks"))
    assert caught.value.code == "access_denied"
    with pytest.raises(OAuthError, match="an unknown error"):
        code_in(made, redirected(made, code=None, error="<script>"))


def test_a_refusal_for_want_of_a_person_is_a_class_of_its_own() -> None:
    made = request()
    with pytest.raises(InteractionRequired, match="login_required") as caught:
        code_in(made, redirected(made, code=None, error="login_required"))
    assert caught.value.url == made.url


def test_the_code_is_redeemed_with_its_verifier() -> None:
    made = request()
    sent = next(redeem(made, Secret("c0de")))
    form = dict(parse_qsl((sent.content or b"").decode()))
    assert form == {
        "grant_type": "authorization_code",
        "code": "c0de",
        "redirect_uri": REDIRECT,
        "code_verifier": made.verifier.reveal(),
        "resource": SERVER,
        "client_id": "me",
    }
    assert "c0de" not in repr(sent)


@pytest.mark.parametrize("uri", ["http://app.test/cb", "javascript:x", "https://app.test/cb#x", "myapp:/cb"])
def test_a_redirect_uri_is_https_or_on_this_machine(uri: str) -> None:
    with pytest.raises(UsageError, match="redirect URI cannot be used"):
        check_redirect_uri(uri)
    for good in ("http://localhost:1/cb", "http://127.0.0.1/cb", "https://app.test/cb"):
        check_redirect_uri(good)


# Registration.


def registered(response: OAuthResponse, *uris: str, **members: Any) -> OAuthClient:
    steps = register(server(**members), RegistrationMetadata("Mine", uris))
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(response)
    client: OAuthClient = done.value.value
    return client


def test_a_registration_as_the_server_grants_it() -> None:
    client = registered(
        answer({"client_id": "7", "client_secret": "s3cret", "client_secret_expires_at": 0}, 201), REDIRECT
    )
    assert (client.client_id, client.issuer, client.expires_at) == ("7", ISSUER, None)
    assert "s3cret" not in repr(client)
    assert not client.is_expired()


@pytest.mark.parametrize("never", [0, pytest.param(10**400, id="huge"), -1, "tomorrow", None])
def test_a_secret_that_never_expires(never: object) -> None:
    members = {"client_id": "7", "client_secret": "s3cret", "client_secret_expires_at": never}
    assert registered(answer(members, 201), REDIRECT).expires_at is None


@pytest.mark.parametrize(
    ("uri", "kind"), [(REDIRECT, "native"), ("http://127.0.0.1:1/", "native"), ("https://app.test/cb", "web")]
)
def test_the_type_of_the_application_follows_from_the_redirect_uri(uri: str, kind: str) -> None:
    sent = next(register(server(), RegistrationMetadata("Mine", [uri], extra={"logo_uri": "https://a.test/l"})))
    members = json.loads(sent.content or b"")
    assert (members["application_type"], members["logo_uri"]) == (kind, "https://a.test/l")
    assert "refresh_token" in members["grant_types"]


@pytest.mark.parametrize(
    ("supported", "method"),
    [(None, "none"), (["client_secret_post"], "client_secret_post"), (["tls_client_auth"], "none")],
)
def test_the_method_to_register_is_one_of_the_servers(supported: list[str] | None, method: str) -> None:
    at = server(token_endpoint_auth_methods_supported=supported)
    sent = next(register(at, RegistrationMetadata("Mine", [REDIRECT])))
    assert json.loads(sent.content or b"")["token_endpoint_auth_method"] == method


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (refuse("invalid_redirect_uri"), rf"invalid_redirect_uri.*it was {REDIRECT}"),
        (refuse("invalid_client_metadata"), "Register a client there by hand"),
        (answer({}, 201), "holds no client_id"),
        (answer({"client_id": ""}, 201), "holds no client_id"),
        (OAuthResponse(201, {}, b"\xff"), "holds no client_id"),
        (answer({"client_id": "1", "client_secret": 5}, 201), "wrong types"),
        (answer({"client_id": "1", "redirect_uris": [1]}, 201), "no texts"),
    ],
)
def test_a_registration_that_fails_says_why(response: OAuthResponse, reason: str) -> None:
    steps = register(server(), RegistrationMetadata("Mine", [REDIRECT]))
    next(steps)
    with pytest.raises(OAuthError, match=reason) as caught:
        steps.send(response)
    assert caught.value.issuer == ISSUER


# The authentication of a client.


def test_a_client_authenticates_by_its_secret() -> None:
    client = OAuthClient("a b:c", client_secret="s:&ü")
    fields, form = client_authentication(server(), client)
    assert form == {"client_id": "a b:c"}
    assert basic(OAuthRequest("POST", "u", "token", fields)) == ("a b:c", "s:&ü")
    assert quote("s:&ü", safe="") not in str(form)
    by_post = server(token_endpoint_auth_methods_supported=["client_secret_post"])
    assert client_authentication(by_post, client) == ({}, {"client_id": "a b:c", "client_secret": "s:&ü"})
    assert client_authentication(server(), OAuthClient("p")) == ({}, {"client_id": "p"})
    with pytest.raises(OAuthError, match="takes no client secret"):
        client_authentication(server(token_endpoint_auth_methods_supported=["private_key_jwt"]), client)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"])
def test_a_method_without_its_means_is_refused(method: str) -> None:
    with pytest.raises(OAuthError, match=f"cannot authenticate by '{method}'"):
        client_authentication(server(), OAuthClient("p", auth_method=method))


def pem(key: Any) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return str(key.private_bytes(*form).decode())


KEYS = {
    "ES256": (ec.generate_private_key(ec.SECP256R1()), "EC"),
    "RS256": (rsa.generate_private_key(65537, 2048), "RSA"),
    "PS256": (rsa.generate_private_key(65537, 2048), "RSA"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate(), "OKP"),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_client_authenticates_by_a_signed_assertion(algorithm: str) -> None:
    """RFC 7523, sections 2.2 and 3."""
    key, kind = KEYS[algorithm]
    client = OAuthClient("p", private_key=pem(key), algorithm=algorithm, key_id="k1")
    fields, form = client_authentication(server(), client)
    assert (fields, form["client_id"]) == ({}, "p")
    assert form["client_assertion_type"].endswith(":jwt-bearer")
    public: Any = cast("Any", jwk).import_key(pem(key), kind)
    token = jwt.decode(form["client_assertion"], public, algorithms=[algorithm])
    assert (token.header["kid"], token.claims["iss"], token.claims["sub"], token.claims["aud"]) == (
        "k1",
        "p",
        "p",
        ISSUER,
    )
    assert token.claims["exp"] - token.claims["iat"] == 60
    again = client_authentication(server(), client)[1]["client_assertion"]
    assert again != form["client_assertion"]


def test_a_key_that_cannot_sign_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(UsageError, match="cannot sign with ES256") as caught:
        client_authentication(server(), OAuthClient("p", private_key="not a key"))
    assert "not a key" not in str(caught.value)


def test_without_its_library_signing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioxport.auth.oauth.token_requests.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install .*oauth"):
        client_authentication(server(), OAuthClient("p", private_key="x"))


# The response with tokens.


def tokens(members: object, *, dpop: bool = False) -> Any:
    steps = token_request(server(), CLIENT, {}, dpop=DPoPState(DPoPKey.generate()) if dpop else None)
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(answer(members) if not isinstance(members, OAuthResponse) else members)
    return done.value.value


def test_the_tokens_of_a_response() -> None:
    good = {"access_token": "t", "token_type": "BEARER"}
    for expires, expected in ((3600, 3600.0), ("60", 60.0), ("soon", None), (-1, None), (None, None), ([], None)):
        assert tokens({**good, "expires_in": expires}).expires_in == expected
    assert tokens({**good, "expires_in": 10**400}).expires_in is None
    assert tokens({**good, "refresh_token": ""}).refresh_token is None
    assert "hunter2" not in repr(tokens({**good, "access_token": "hunter2"}))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([], "no JSON object"),
        ({"token_type": "Bearer"}, "no access token"),
        ({"access_token": "a b", "token_type": "Bearer"}, "no access token that can be sent"),
        ({"access_token": "a\r\nx: y", "token_type": "Bearer"}, "no access token that can be sent"),
        ({"access_token": "a"}, "unknown type"),
        ({"access_token": "a", "token_type": "mac"}, "unknown type"),
        ({"access_token": "a", "token_type": "DPoP"}, "bound to a key, and no key was sent"),
        ({"access_token": "a", "token_type": "Bearer", "refresh_token": 1}, "wrong types"),
        ({"access_token": "a", "token_type": "Bearer", "scope": ["a"]}, "wrong types"),
    ],
)
def test_a_broken_response_is_refused(members: object, reason: str) -> None:
    with pytest.raises(OAuthError, match=f"{reason}.*RFC 6749, section 5.1"):
        tokens(members)


def test_a_refusal_shows_no_secret_that_it_repeats() -> None:
    client = OAuthClient("p", client_secret="hunter2")
    steps = token_request(server(), client, {"grant_type": "x", "code": "c0de", "refresh_token": "r3fresh"})
    next(steps)
    with pytest.raises(OAuthError, match=r"invalid_grant: code \*\*\* or \*\*\* of \*\*\*") as caught:
        steps.send(refuse("invalid_grant", error_description="code c0de or r3fresh\tof hunter2"))
    assert caught.value.code == "invalid_grant"


def test_a_servers_text_is_shown_as_one_short_line() -> None:
    assert shown_text("a\n\x1b[31mb" + "c" * 300).startswith("a [31mb")
    assert len(shown_text("c" * 300)) == 203
    assert shown_text(7) == ""
    assert shown_text("abc", [Secret("")]) == "abc"
    assert refusal(OAuthResponse(503), "s", section="x").retryable
    assert not refusal(refuse("invalid_grant"), "s", section="x").retryable
    assert refusal(refuse("not a code!"), "s", section="x").code is None


# DPoP at the authorization server.


def test_a_nonce_is_used_at_once_and_from_then_on() -> None:
    """RFC 9449, section 8."""
    dpop = DPoPState(DPoPKey.generate())
    steps = token_request(server(), CLIENT, {}, dpop=dpop)
    first = next(steps)
    second = steps.send(attrs.evolve(refuse("use_dpop_nonce"), headers={"dpop-nonce": "n1"}))
    assert first.headers["dpop"] != second.headers["dpop"]
    with pytest.raises(OAuthError, match="use_dpop_nonce"):  # a server that is never content
        steps.send(attrs.evolve(refuse("use_dpop_nonce"), headers={"dpop-nonce": "n2"}))
    assert list(dpop.nonces.values()) == ["n2"]
    assert not dpop.note(f"{ISSUER}/token", {"dpop-nonce": "not one\r\n"})


def test_an_error_shows_step_server_issuer_and_advice() -> None:
    error = OAuthError("it fails", step="token request", issuer=ISSUER, target=SERVER, hint="Do this")
    assert str(error) == f"{SERVER}: OAuth, token request, authorization server {ISSUER}: it fails. Do this"
