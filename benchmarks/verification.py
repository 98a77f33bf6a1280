"""The cost of access tokens to a server: ``python -m benchmarks.verification``.

The whole check of a request's token, with one token that the verifier knows, with one that it sees for the first time,
and with a DPoP proof for a token that it knows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio
from joserfc import jwt
from joserfc.jwk import ECKey

from trioxport.auth import VerifiedToken
from trioxport.auth.dpop import DPoPKey, token_hash
from trioxport.auth.verification import DPoP, JWTVerifier
from trioxport.transports._access.bearer import BearerAuth
from trioxport.transports._access.protected import ProtectedResource

URL: Final = "https://mcp.example.com/mcp"
ISSUER: Final = "https://login.example.com"
CASES: Final = ("known token", "unknown token, ES256", "known token, DPoP")


@attrs.define
class TokenRequest:
    """A request as the check of its token sees it."""

    headers: Mapping[str, str]
    method: str = "POST"
    full_path: str = "/mcp"
    peer: str | None = None
    secure: bool = True
    principal: str | None = None
    token: VerifiedToken | None = None
    fields: list[tuple[bytes, bytes]] = attrs.Factory(list[tuple[bytes, bytes]])


def _issued(key: ECKey, **claims: object) -> str:
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": URL,
        "sub": "ada",
        "client_id": "editor",
        "scope": "mcp",
        "iat": now,
        "exp": now + 600,
    }
    return jwt.encode({"alg": "ES256", "kid": "one", "typ": "at+jwt"}, {**usual, **claims}, key)


async def measure(rounds: int, count: int) -> dict[str, float]:
    """Microseconds a request: medians of ``rounds`` of ``count`` requests."""
    issuer_key, client = ECKey.generate_key("P-256", {"kid": "one"}), DPoPKey()
    keys: dict[str, Any] = {"keys": [issuer_key.as_dict(private=False)]}
    known, unknown = (JWTVerifier(ISSUER, URL, keys=keys, cached=cached) for cached in (100, 0))
    plain, bound = _issued(issuer_key), _issued(issuer_key, cnf={"jkt": client.thumbprint})
    checks = {
        name: BearerAuth(ProtectedResource(verify, scopes=["mcp"], dpop=DPoP()), "/mcp", publishes_metadata=True)
        for name, verify in zip(CASES, (known, unknown, known), strict=True)
    }
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, check in checks.items():
            requests = [_request(plain)] * count
            if name.endswith("DPoP"):
                requests = [_request(bound, client) for _ in range(count)]
            began = time.perf_counter()
            for request in requests:
                await check.authenticate(request, check.token_of(request))
            found[name].append((time.perf_counter() - began) / count * 1e6)
    return {name: statistics.median(each) for name, each in found.items()}


def _request(token: str, key: DPoPKey | None = None) -> TokenRequest:
    if key is None:
        return TokenRequest({"authorization": f"Bearer {token}"})
    return TokenRequest({"authorization": f"DPoP {token}", "dpop": key.proof("POST", URL, ath=token_hash(token))})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verification", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    print("| access tokens, µs a request | trioxport |\n| --- | --- |")
    for name, micros in trio.run(measure, arguments.rounds, arguments.count).items():
        print(f"| {name} | {micros:.1f} |")


if __name__ == "__main__":
    main()
