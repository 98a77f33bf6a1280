"""Credentials over HTTP: the requests that carry them, and the retry after 401."""

from __future__ import annotations

import logging
import ssl
import traceback
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import httpx2
import pytest
import trio
import trustme

from tests.support.scripted_http import Reply, Script, serving
from trioxport import (
    AuthenticationError,
    Notification,
    Request,
    Response,
    TLSError,
    Undelivered,
    UsageError,
    open_transport,
)
from trioxport.auth import ApiKey, Bearer, Secret, TLSOptions, Token
from trioxport.transports.http import Http

BOUND: Final = 15.0
SECRET: Final = "hunter2"


def call(number: int | str = 1, method: str = "tools/call", **metadata: Any) -> Request:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    return Request(number, method, {"_meta": meta}, metadata=metadata)


async def only_answer(url: str, request: Request | None = None, **options: Any) -> Any:
    with trio.fail_after(BOUND):
        async with open_transport(Http(url, **options)) as (tx, rx):
            await tx.send(request or call())
            return await rx.receive()


def wanting(*tokens: str) -> Script:
    """A server that accepts requests with one of ``tokens``."""

    async def script(reply: Reply) -> None:
        if reply.asked.headers.get("authorization") in {f"Bearer {token}" for token in tokens}:
            await (reply.result("fine") if reply.asked.rpc != "notifications/progress" else reply.status(202))
        else:
            await reply.status(401, b"who are you?", www_authenticate="Bearer")

    return script


class Numbered:
    """A provider of ``token-1``, ``token-2`` and so on."""

    def __init__(self, expires_in: float | None = None) -> None:
        self.calls = 0
        self._expires_in = expires_in

    async def __call__(self) -> Token:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        return Token(f"token-{self.calls}", self._expires_in)


# Bearer tokens and keys.


@pytest.mark.parametrize("auth", [Bearer("t"), Bearer(Secret("t")), ApiKey("Authorization", "Bearer t")])
async def test_credentials_go_with_every_request(auth: Bearer | ApiKey) -> None:
    with trio.fail_after(BOUND):
        async with serving(wanting("t")) as server, open_transport(Http(server.url, auth=auth)) as (tx, rx):
            await tx.send(Notification("notifications/progress"))
            await tx.send(call())
            assert await rx.receive() == Response(1, "fine")
    assert len(server.asked) == 2


async def test_a_header_of_the_message_goes_before_the_credentials() -> None:
    provider = Numbered()
    async with serving(wanting("own")) as server:
        request = call(headers={"authorization": "Bearer own"})
        assert await only_answer(server.url, request, auth=Bearer("no")) == Response(1, "fine")
        request = call(headers={"Authorization": "Bearer unknown"})
        assert isinstance(await only_answer(server.url, request, auth=Bearer(provider)), Undelivered)
    assert len(server.asked) == 2
    assert provider.calls == 1


async def test_after_401_there_is_one_more_attempt_with_a_new_token() -> None:
    provider = Numbered()
    async with serving(wanting("token-2")) as server:
        assert await only_answer(server.url, auth=Bearer(provider)) == Response(1, "fine")
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer token-1", "Bearer token-2"]
    assert server.asked[0].body == server.asked[1].body


@pytest.mark.parametrize(("auth", "attempts"), [(Bearer(Numbered()), 2), (Bearer("t"), 1), (ApiKey("x", "t"), 1)])
async def test_after_a_second_401_there_is_none(auth: Bearer | ApiKey, attempts: int) -> None:
    async with serving(wanting()) as server:
        refused = await only_answer(server.url, auth=auth)
    assert isinstance(refused.cause, AuthenticationError)
    assert refused.outcome == "not_sent"
    assert len(server.asked) == attempts


async def test_a_storm_of_401_makes_one_refresh() -> None:
    provider = Numbered()
    waiting = 0
    all_there = trio.Event()

    async def script(reply: Reply) -> None:
        nonlocal waiting
        if reply.asked.headers["authorization"] == "Bearer token-1":
            waiting += 1
            if waiting == 50:
                all_there.set()
            await all_there.wait()
            await reply.status(401)
        else:
            await reply.result("fine")

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(Http(server.url, auth=Bearer(provider))) as (tx, rx):
            for number in range(50):
                await tx.send(call(number))
            answers = [await rx.receive() for _ in range(50)]
    assert all(isinstance(answer, Response) and answer.result == "fine" for answer in answers)
    assert provider.calls == 2
    assert len(server.asked) == 100


async def test_one_token_serves_several_connections() -> None:
    provider = Numbered()
    bearer = Bearer(provider)
    async with serving(wanting("token-1")) as server:
        for _ in range(3):
            assert await only_answer(server.url, auth=bearer) == Response(1, "fine")
    assert provider.calls == 1


async def test_a_provider_that_fails_settles_the_request_unsent() -> None:
    async def provider() -> str:
        raise OSError(f"{SECRET} was refused")

    async with serving(wanting()) as server:
        refused = await only_answer(server.url, auth=Bearer(provider))
    assert isinstance(refused.cause, AuthenticationError)
    assert refused.outcome == "not_sent"
    assert "failed with OSError" in str(refused.cause)
    assert SECRET not in refused.message
    assert server.asked == []


async def test_a_provider_that_fails_after_401_settles_the_request() -> None:
    first = True

    async def provider() -> str:
        nonlocal first
        if not first:
            raise OSError
        first = False
        return "t"

    async with serving(wanting()) as server:
        refused = await only_answer(server.url, auth=Bearer(provider))
    assert "failed with OSError" in str(refused.cause)
    assert refused.outcome == "not_sent"
    assert len(server.asked) == 1


async def test_a_request_that_is_cancelled_while_it_waits_for_a_token_is_not_sent() -> None:
    asked_for = trio.Event()

    async def provider() -> str:
        asked_for.set()
        await trio.sleep_forever()

    cancel = Notification("notifications/cancelled", {"requestId": 1})
    with trio.fail_after(BOUND):
        async with serving(wanting()) as server, open_transport(Http(server.url, auth=Bearer(provider))) as (tx, rx):
            await tx.send(call())
            await asked_for.wait()
            await tx.send(cancel)
            await tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
    assert server.asked == []


@pytest.mark.parametrize(
    "auth",
    [Bearer(SECRET), ApiKey("x-api-key", SECRET), httpx.BasicAuth("me", SECRET)],
    ids=lambda auth: str(type(auth)),
)
async def test_no_credential_is_shown(auth: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(401)

    with caplog.at_level(logging.DEBUG):
        async with serving(script) as server:
            target = Http(server.url, auth=auth, tls=TLSOptions(password=SECRET))
            refused = await only_answer(server.url, auth=auth)
    shown = "".join(traceback.format_exception(refused.cause)) + repr(target) + str(target) + repr(refused)
    assert SECRET not in caplog.text + shown


@pytest.mark.parametrize("value", [f"{SECRET}\r\nx-injected: 1", f"{SECRET}ü"])
async def test_credentials_that_are_no_header_are_refused_and_not_quoted(value: str) -> None:
    class Own:
        async def headers(self) -> Mapping[str, str]:
            return {"x-own": value}

        async def refused(self, headers: Mapping[str, str]) -> bool:
            return False

    async with serving(wanting()) as server:
        refused = await only_answer(server.url, auth=Own())
    assert isinstance(refused.cause, UsageError)
    assert refused.outcome == "not_sent"
    assert SECRET not in "".join(traceback.format_exception(refused.cause)) + repr(refused)
    assert server.asked == []


# httpx.Auth, and those of libraries with the same interface.


class TwoSteps:
    """An ``Auth`` that gets a token from ``token_url``, and after a 401, whose body it reads, another one."""

    def __init__(self, library: Any, token_url: str) -> None:
        self._library = library
        self._token_url = token_url
        self.read: list[bytes] = []

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        for _ in range(2):
            token = yield self._library.Request("POST", self._token_url, data={"grant": "x"})
            request.headers["Authorization"] = f"Bearer {(await token.aread()).decode()}"
            response = yield request
            self.read.append(await response.aread())
            if response.status_code != 401:
                return


class ForHttpx(TwoSteps, httpx.Auth):
    pass


class ForHttpx2(TwoSteps, httpx2.Auth):
    pass


@pytest.mark.parametrize(("kind", "library"), [(ForHttpx, httpx), (ForHttpx2, httpx2)], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("elsewhere", [True, False])
async def test_an_auth_may_send_requests_of_its_own(kind: type[TwoSteps], library: Any, elsewhere: bool) -> None:
    issued = 0
    asked_for: list[tuple[str, bytes]] = []

    async def script(reply: Reply) -> None:
        nonlocal issued
        if reply.asked.path == "/token":
            issued += 1
            asked_for.append((reply.asked.headers.get("x-own", ""), reply.asked.body))
            await reply.status(200, f"token-{issued}".encode())
        else:
            await wanting("token-2")(reply)

    with trio.fail_after(BOUND):
        async with serving(script) as server, serving(script) as other:
            auth = kind(library, f"http://127.0.0.1:{(other if elsewhere else server).port}/token")
            assert await only_answer(server.url, auth=auth, headers={"x-own": "1"}) == Response(1, "fine")
    assert len(other.asked) == (2 if elsewhere else 0)
    assert asked_for == [("", b"grant=x")] * 2
    assert auth.read[0] == b"who are you?"
    assert b'"fine"' in auth.read[1]


async def test_a_digest_of_httpx() -> None:
    async def script(reply: Reply) -> None:
        if "authorization" in reply.asked.headers:
            assert SECRET not in reply.asked.headers["authorization"]
            await reply.result("fine")
        else:
            await reply.status(401, www_authenticate='Digest realm="r", nonce="n", qop="auth"')

    async with serving(script) as server:
        assert await only_answer(server.url, auth=httpx.DigestAuth("me", SECRET)) == Response(1, "fine")
    assert server.asked[0].body == server.asked[1].body


async def test_an_auth_does_not_hold_up_a_stream() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "method": "notifications/message"})
        await going_on.wait()
        await reply.answer("fine")
        await reply.end_events()

    going_on = trio.Event()
    with trio.fail_after(BOUND):
        async with (
            serving(script) as server,
            open_transport(Http(server.url, auth=httpx.BasicAuth("me", "pw"))) as (tx, rx),
        ):
            await tx.send(call())
            assert await rx.receive() == Notification("notifications/message")
            going_on.set()
            assert await rx.receive() == Response(1, "fine")
    assert server.asked[0].headers["authorization"] == "Basic bWU6cHc="


class Failing(httpx.Auth):
    """An ``Auth`` that ends without a request, or raises with the response it gets."""

    def __init__(self, url: str, reads: bool) -> None:
        self._url = url
        self._reads = reads

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        response = yield httpx.Request("GET", self._url)
        if self._reads:
            raise ValueError((await response.aread())[:10])


@pytest.mark.parametrize(
    ("elsewhere", "reads", "size", "text"),
    [
        (True, False, 1000, "ended without a request to the endpoint"),
        (True, True, 1000, "failed with ValueError"),
        (False, True, 2_000_000, "too large for it"),
    ],
)
async def test_an_auth_that_fails_settles_the_request(elsewhere: bool, reads: bool, size: int, text: str) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(200, b"x" * size)

    with trio.fail_after(BOUND):
        async with serving(script) as server, serving(script) as other:
            url = (other if elsewhere else server).url
            refused = await only_answer(server.url, auth=Failing(url, reads))
    assert isinstance(refused, Undelivered)
    assert isinstance(refused.cause, AuthenticationError)
    assert text in str(refused.cause)
    assert refused.outcome == "not_sent"
    assert all(asked.method == "GET" for asked in server.asked)


@pytest.mark.parametrize(("status", "outcome"), [(200, "unknown"), (401, "not_sent")])
async def test_an_auth_that_fails_after_the_answer(status: int, outcome: str) -> None:
    class Late(httpx.Auth):
        async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
            yield request
            raise ValueError

    async def script(reply: Reply) -> None:
        await reply.json({}, status)

    async with serving(script) as server:
        refused = await only_answer(server.url, auth=Late())
    assert isinstance(refused.cause, AuthenticationError)
    assert refused.outcome == outcome


async def test_an_auth_whose_own_server_is_not_there() -> None:
    async with serving(wanting()) as server:
        refused = await only_answer(server.url, auth=ForHttpx2(httpx2, "http://127.0.0.1:1/token"))
    assert "to 127.0.0.1 failed with ConnectError" in str(refused.cause)
    assert (refused.outcome, refused.cause.retryable) == ("not_sent", True)
    assert server.asked == []


async def test_an_auth_of_no_library_is_refused() -> None:
    class Alone:
        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            yield request

    async with serving(wanting()) as server:
        with pytest.raises(UsageError, match="inherits from no Auth class"):
            await only_answer(server.url, auth=Alone())


async def test_an_auth_sends_no_credentials_in_plain_text() -> None:
    async with serving(wanting()) as server:
        refused = await only_answer(server.url, auth=ForHttpx(httpx, "http://192.0.2.1/token"))
    assert isinstance(refused.cause, UsageError)
    assert "not encrypted" in str(refused.cause)
    assert server.asked == []


# TLS.


@attrs.frozen
class Files:
    ca: str
    server: ssl.SSLContext
    client: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An authority, a server that requires a certificate of it, and a client's certificate."""
    authority = trustme.CA()
    folder: Path = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return Files(str(folder / "ca.pem"), context, str(folder / "client.pem"))


async def test_a_client_certificate_and_a_private_authority(files: Files) -> None:
    async def script(reply: Reply) -> None:
        await reply.result("fine")

    async with serving(script, files.server) as server:
        options = TLSOptions(ca=files.ca, cert=files.client)
        assert await only_answer(server.url, tls=options) == Response(1, "fine")
        assert await only_answer(server.url, tls=options.client_context()) == Response(1, "fine")


async def test_a_private_authority_is_not_trusted_by_itself(files: Files) -> None:
    async with serving(wanting(), files.server) as server:
        with pytest.raises(TLSError, match="self-signed certificate in certificate chain"):
            await only_answer(server.url, auth=Bearer("t"))
    assert server.asked == []
