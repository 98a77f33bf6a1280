"""An MCP server and its authorization server, without input and output: a strict one, which counts and remembers."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import attrs
import trio

from tests.support.scripted_http import Reply, serving
from trioxport.auth.oauth import OAuth, OutOfBand
from trioxport.auth.oauth.sender import GuardedSender
from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse

SERVER: Final = "https://mcp.test/mcp"
ISSUER: Final = "https://as.test"
REDIRECT: Final = "http://localhost:9999/callback"


def answer(body: object, status: int = 200, **headers: str) -> OAuthResponse:
    """A response with JSON; underscores in the names of headers stand for hyphens."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return OAuthResponse(status, {"content-type": "application/json", **fields}, json.dumps(body).encode())


def refuse(code: str, status: int = 400, **members: str) -> OAuthResponse:
    return answer({"error": code, **members}, status)


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a JWT, whose signature is not checked."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@attrs.define
class Issued:
    """An access token: its family of refresh tokens, and what it is good for."""

    family: int
    scopes: frozenset[str]
    expires_at: float
    resource: str | None
    jkt: str | None = None


@attrs.define
class Site:
    """An MCP server and its authorization server.

    Args:
        server: The MCP server.
        issuer: Its authorization server.
        lifetime: Seconds for which an access token lives; 0 for tokens that tell no expiry.
        needed: The scopes that each operation needs.
    """

    server: str = SERVER
    issuer: str = ISSUER
    lifetime: float = 3600.0
    needed: dict[str, frozenset[str]] = attrs.Factory(dict)
    gives_refresh_tokens: bool = True
    rotates: bool = True
    tells_scopes: bool = True
    refuses_all: bool = False
    dpop: bool = False
    nonce: str | None = None
    resource_metadata: dict[str, Any] = attrs.Factory(dict)
    metadata: dict[str, Any] = attrs.Factory(dict)
    challenge: str | None = None
    requests: list[OAuthRequest] = attrs.Factory(list)
    forms: list[dict[str, str]] = attrs.Factory(list)
    pages: list[str] = attrs.Factory(list)
    counts: Counter[str] = attrs.Factory(Counter)
    answers: dict[str, Callable[[OAuthRequest], Awaitable[OAuthResponse | None]]] = attrs.Factory(dict)
    authorization_answer: dict[str, str | None] = attrs.Factory(dict)
    granted: str | None = None
    access: dict[str, Issued] = attrs.Factory(dict)
    refresh: dict[str, Issued] = attrs.Factory(dict)
    used: dict[str, int] = attrs.Factory(dict)
    revoked: set[int] = attrs.Factory(set)
    registered: dict[str, dict[str, Any]] = attrs.Factory(dict)
    _codes: dict[str, dict[str, str]] = attrs.Factory(dict)

    # Documents.

    def about_resource(self) -> dict[str, Any]:
        known: dict[str, Any] = {"resource": self.server, "authorization_servers": [self.issuer]}
        if self.dpop:
            known["dpop_signing_alg_values_supported"] = ["ES256"]
        return {**known, **self.resource_metadata}

    def about_issuer(self) -> dict[str, Any]:
        known: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": True,
        }
        if self.dpop:
            known["dpop_signing_alg_values_supported"] = ["ES256"]
        return {name: value for name, value in {**known, **self.metadata}.items() if value is not None}

    # The network.

    async def send(self, request: OAuthRequest) -> OAuthResponse:
        """Answer a request to any of the two servers."""
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        path = urlsplit(request.url).path
        own = self.answers.get(request.url) or self.answers.get(path)
        if own is not None and (found := await own(request)) is not None:
            return found
        if request.method == "GET":
            return self._document(request.url, path)
        if path.endswith("/register"):
            return self._register(request)
        form = dict(parse_qsl((request.content or b"").decode()))
        self.forms.append(form)
        return self._token(form, request)

    def _document(self, url: str, path: str) -> OAuthResponse:
        if path.startswith("/.well-known/oauth-protected-resource"):
            if path.removeprefix("/.well-known/oauth-protected-resource") == urlsplit(self.server).path:
                return answer(self.about_resource())
        elif url.startswith(self.issuer) and path == "/.well-known/oauth-authorization-server":
            return answer(self.about_issuer())
        return answer({"error": "not_found"}, 404)

    def _register(self, request: OAuthRequest) -> OAuthResponse:
        self.counts["registrations"] += 1
        members = json.loads(request.content or b"{}")
        name = f"client-{self.counts['registrations']}"
        self.registered[name] = members
        return answer({**members, "client_id": name}, 201)

    def _token(self, form: dict[str, str], request: OAuthRequest) -> OAuthResponse:
        kind = form.get("grant_type", "")
        self.counts[kind] += 1
        jkt = self._key_of(request)
        if self.dpop and self.nonce is not None and self._claim(request, "nonce") != self.nonce:
            return attrs.evolve(refuse("use_dpop_nonce"), headers={"dpop-nonce": self.nonce})
        match kind:
            case "authorization_code":
                return self._by_code(form, jkt)
            case "refresh_token":
                return self._by_refresh_token(form, jkt)
        return self._issue(frozenset(form.get("scope", "").split()), form.get("resource"), jkt)

    def _by_code(self, form: Mapping[str, str], jkt: str | None) -> OAuthResponse:
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return refuse("invalid_grant")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return refuse("invalid_grant", error_description="PKCE")
        scope = asked.get("scope", "") if self.granted is None else self.granted
        return self._issue(frozenset(scope.split()), form.get("resource"), jkt)

    def _by_refresh_token(self, form: Mapping[str, str], jkt: str | None) -> OAuthResponse:
        token = form.get("refresh_token", "")
        if token in self.used:
            self.counts["reuses"] += 1
            self.revoked.add(self.used[token])
        known = self.refresh.get(token)
        if known is None or known.family in self.revoked:
            return refuse("invalid_grant")
        if self.rotates:
            self.used[token] = known.family
            del self.refresh[token]
        return self._issue(known.scopes, form.get("resource"), jkt, known.family)

    def _issue(
        self, scopes: frozenset[str], resource: str | None, jkt: str | None, family: int | None = None
    ) -> OAuthResponse:
        self.counts["issued"] += 1
        number = self.counts["issued"]
        issued = Issued(family or number, scopes, time.time() + (self.lifetime or 1e9), resource, jkt)
        token = f"access-{number}-{secrets.token_hex(4)}"
        self.access[token] = issued
        members: dict[str, Any] = {"access_token": token, "token_type": "DPoP" if jkt else "Bearer"}
        if self.lifetime:
            members["expires_in"] = self.lifetime
        if self.tells_scopes:
            members["scope"] = " ".join(sorted(scopes))
        if self.gives_refresh_tokens and (self.rotates or family is None):
            members["refresh_token"] = refresh = f"refresh-{number}-{secrets.token_hex(4)}"
            self.refresh[refresh] = issued
        return answer(members)

    def _key_of(self, request: OAuthRequest) -> str | None:
        from joserfc.jwk import ECKey

        if "dpop" not in request.headers:
            return None
        header = request.headers["dpop"].split(".")[0]
        jwk = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["jwk"]
        return ECKey.import_key(jwk).thumbprint()

    def _claim(self, request: OAuthRequest, name: str) -> object:
        return claims_of(request.headers["dpop"]).get(name) if "dpop" in request.headers else None

    # The person.

    async def consent(self, url: str) -> str:
        """Agree to everything on the page, and return the URL that the browser is redirected to."""
        await trio.lowlevel.checkpoint()
        self.pages.append(url)
        asked = dict(parse_qsl(urlsplit(url).query))
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        given: dict[str, str | None] = {"code": code, "state": asked.get("state"), "iss": self.issuer}
        given |= self.authorization_answer
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return f"{asked.get('redirect_uri', REDIRECT)}?{query}"

    # The MCP server.

    def call(self, headers: Mapping[str, str], operation: str = "") -> tuple[int, dict[str, str]]:
        """The status and the headers of the answer to a request with ``headers``."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        known = self.access.get(token)
        if self.refuses_all or known is None or known.family in self.revoked or time.time() >= known.expires_at:
            metadata = urlsplit(self.server)._replace(
                path=f"/.well-known/oauth-protected-resource{urlsplit(self.server).path}"
            )
            named = f'Bearer resource_metadata="{metadata.geturl()}"' if self.challenge is None else self.challenge
            return 401, {"www-authenticate": named}
        assert known.resource == self.server, "a token for another resource"
        assert scheme == ("DPoP" if known.jkt else "Bearer")
        if lacking := self.needed.get(operation, frozenset()) - known.scopes:
            return 403, {"www-authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(sorted(lacking))}"'}
        return 200, {}

    async def request(self, auth: OAuth, operation: str = "", start_soon: Callable[..., Any] | None = None) -> int:
        """Make one request as a client does, and return the status of its last answer."""
        attempt = auth.attempt(self.server, operation)
        while True:
            status, headers = self.call(await attempt.fields("POST", self.server, start_soon), operation)
            if not await attempt.answered(status, self.server, headers):
                return status

    def client(self, **options: Any) -> OAuth:
        """Credentials whose person consents to everything; use them under :func:`connected`."""
        if "grant" not in options:
            options.setdefault("interaction", OutOfBand(REDIRECT, self.consent))
        return OAuth(**options)

    def sent(self, method: str = "POST") -> list[str]:
        """The paths of the requests with ``method`` so far."""
        return [urlsplit(each.url).path for each in self.requests if each.method == method]

    def revoke_access(self) -> None:
        """Refuse all access tokens so far."""
        self.access.clear()


def basic(request: OAuthRequest) -> tuple[str, str]:
    """The name and the password of a request."""
    found = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    name, _, password = found.partition(":")
    return unquote(name), unquote(password)


def connect(monkeypatch: Any, site: Site) -> Site:
    """Send all requests of OAuth to ``site`` instead of the network."""

    async def send(_self: GuardedSender, request: OAuthRequest) -> OAuthResponse:
        return await site.send(request)

    monkeypatch.setattr(GuardedSender, "send", send)
    return site


@asynccontextmanager
async def serving_site(**options: Any) -> AsyncGenerator[Site]:
    """A site on loopback, both servers on one port; ``ping`` and ``tools/list`` are what its MCP server answers."""
    site = Site(**options)

    async def script(reply: Reply) -> None:
        asked = reply.asked
        if asked.path.startswith("/mcp"):
            status, headers = site.call(asked.headers, asked.headers.get("mcp-method", ""))
            if status != 200:
                await reply.status(status, b"", **{name.replace("-", "_"): value for name, value in headers.items()})
            elif not asked.body:
                await reply.status(405)
            elif "id" not in asked.message:
                await reply.status(202)
            else:
                await reply.result(RESULTS.get(asked.message["method"], {}))
        elif asked.path.startswith("/authorize"):
            await reply.status(302, location=await site.consent(f"{site.issuer}{asked.path}"))
        else:
            request = OAuthRequest(asked.method, f"{site.issuer}{asked.path}", "token", asked.headers, asked.body)
            response = await site.send(request)
            fields = {name.replace("-", "_"): value for name, value in response.headers.items()}
            await reply.status(response.status, response.body, **fields)

    async with serving(script) as found:
        site.server, site.issuer = found.url, found.url.removesuffix("/mcp")
        yield site


RESULTS: Final[dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "protected", "version": "1"},
    },
    "server/discover": {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "protected", "version": "1"},
        "ttlMs": 0,
        "cacheScope": "private",
    },
    "tools/list": {"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"},
}
