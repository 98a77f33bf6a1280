"""The cost of OAuth to a request: ``python -m benchmarks.oauth``.

An HTTP stack that answers at once gets requests with and without authorization, in turns. The targets are 5 µs for a
valid token, and 100 µs with a DPoP proof.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import httpx
import trio

from trioxport.auth.dpop import DPoPKey
from trioxport.auth.oauth import Login, OAuth, OAuthClient
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.secret import Secret
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.http.client.stack.authorized import AuthorizedRequests
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest

URL: Final = "https://mcp.example.com/mcp"
ISSUER: Final = "https://login.example.com"
TARGETS: Final = {"valid token": 5.0, "DPoP": 100.0}


def _login(*, dpop: bool) -> Login:
    now = time.time()
    return Login(
        resource=URL,
        server=AuthorizationServer(ISSUER, f"{ISSUER}/token"),
        client=OAuthClient("me"),
        access_token=Secret("a" * 800),
        token_type="dpop" if dpop else "bearer",
        expires_at=now + 3600,
        issued_at=now,
        dpop_key=DPoPKey.generate().pem() if dpop else None,
    )


async def measure(rounds: int, count: int) -> dict[str, float]:
    """Microseconds a request beyond one without authorization: medians of ``rounds`` of ``count`` requests."""
    head = ResponseHead(200, "OK", {"content-type": "application/json"})
    request = HTTPRequest("POST", "/mcp", {"mcp-method": "tools/call", "mcp-name": "add"}, b"{}")

    async def plain(_: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        return head, cast("BodyStream", None)

    found: dict[str, list[float]] = {name: [] for name in TARGETS}
    async with trio.open_nursery() as nursery:
        senders = {}
        for name in TARGETS:
            auth = OAuth()
            auth.session(URL).use(_login(dpop=name == "DPoP"))
            senders[name] = AuthorizedRequests(plain, httpx.URL(URL), auth, nursery.start_soon).send
        for _ in range(rounds):
            without = await _seconds(plain, request, count)
            for name, send in senders.items():
                found[name].append((await _seconds(send, request, count) - without) / count * 1e6)
    return {name: statistics.median(each) for name, each in found.items()}


async def _seconds(send: Callable[[HTTPRequest], Awaitable[Any]], request: HTTPRequest, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        await send(request)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oauth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=5000)
    arguments = parser.parse_args()
    results = trio.run(measure, arguments.rounds, arguments.count)
    print("| OAuth, µs a request | trioxport | target |\n| --- | --- | --- |")
    for name, micros in results.items():
        print(f"| {name} | {micros:.1f} | ≤ {TARGETS[name]:g} |")


if __name__ == "__main__":
    main()
