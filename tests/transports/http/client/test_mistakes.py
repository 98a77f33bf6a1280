"""Mistakes in a client's configuration, and in the application's code: each has an error of its own."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from tests.support.scripted_http import Reply, serving
from tests.support.surviving_connection import answer_of
from trioxport import TransportError, Undelivered, UsageError, open_transport
from trioxport.auth import ApiKey, Bearer, TLSOptions
from trioxport.errors import ConnectionLost, ServerUnreachable, TLSError
from trioxport.transports.http import Http

BOUND = 15.0
URL = "https://somewhere.invalid/mcp"


BEARER: Any = Bearer
API_KEY: Any = ApiKey
HTTP: Any = Http

# Arguments.


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(BEARER, None), "Bearer needs a token, not None"),
        (partial(BEARER, 7), "Bearer needs a token, not an int"),
        (partial(API_KEY, "X-Api-Key", None), "the API key is None"),
        (partial(API_KEY, None, "key"), "None is no name of a header"),
        (partial(BEARER, "t", margin="5"), "margin"),
        (partial(HTTP, URL, auth="token"), "auth is a str"),
        (partial(HTTP, URL, auth=Bearer), "auth is the class Bearer"),
        (partial(HTTP, URL, auth=object()), "auth is an object"),
        (partial(HTTP, URL, headers={"X": None}), "the header X is None"),
        (partial(HTTP, URL, headers={1: "x"}), "1 is no name of a header"),
        (partial(HTTP, URL, headers="X: y"), "headers is a str"),
        (partial(HTTP, URL, headers={"X": "a\nb"}), "the header X has characters"),
        (partial(HTTP, URL, tls="ca.pem"), "tls is a str"),
        (partial(HTTP, URL, client=object()), "client is an object"),
        (partial(HTTP, URL, idle_timeout="5"), "idle_timeout is '5'"),
        (partial(HTTP, URL, total_timeout=None), "total_timeout is None"),
        (partial(HTTP, URL, max_concurrency=True), "max_concurrency is True"),
        (partial(HTTP, None), "an endpoint is written"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_where_it_is_given(make: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert told in str(caught.value)


def test_what_a_bearer_without_a_token_is_told_names_the_usual_cause() -> None:
    with pytest.raises(UsageError, match="environment variable"):
        BEARER(None)


# Errors in the application's own code.


class Broken:
    """Credentials whose code raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def headers(self) -> Mapping[str, str]:
        raise self._error

    async def refused(self, headers: Mapping[str, str]) -> bool:
        return False


@pytest.mark.parametrize("error", [AssertionError(), AttributeError("no such thing"), KeyError("x"), ValueError("v")])
async def test_an_error_of_the_program_is_no_loss_of_the_network(error: Exception) -> None:
    async def script(reply: Reply) -> None:
        raise NotImplementedError

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(Http(server.url, auth=Broken(error))) as connection:
            answer = await answer_of(connection)
    assert isinstance(answer, Undelivered)
    assert not isinstance(answer.cause, ConnectionLost)
    assert not answer.cause.retryable
    assert type(error).__name__ in str(answer.cause)
    assert answer.cause.__cause__ is error


# Ports of another protocol.


async def refused(target: Any, **options: Any) -> TransportError:
    with trio.fail_after(BOUND):
        try:
            async with open_transport(target, **options) as connection:
                answer = await answer_of(connection)
        except TransportError as error:
            return error
    assert isinstance(answer, Undelivered)
    return answer.cause


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("says_why", [True, False])
async def test_http_to_a_port_that_speaks_tls(tls: ssl.SSLContext, says_why: bool) -> None:
    alert = bytes.fromhex("15030300020246")

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if says_why:
                await stream.send_all(alert)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        error = await refused(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp")
        nursery.cancel_scope.cancel()
    assert isinstance(error, ConnectionLost)
    assert "role=SERVER" not in str(error)
    assert ("TLS alert" if says_why else "without an answer") in str(error)
    assert "https://" in str(error)


async def test_a_server_that_has_answered_before_is_not_taken_for_one_of_tls() -> None:
    async def script(reply: Reply) -> None:
        if len(server.asked) == 1:
            await reply.result()
        else:
            await reply.close()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await answer_of(connection)
            answer = await answer_of(connection)
    assert isinstance(answer.cause, ConnectionLost)
    assert "without an answer" in str(answer.cause)
    assert "https" not in str(answer.cause)


async def test_https_to_a_port_that_speaks_http() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        error = await refused(f"https://127.0.0.1:{listener.socket.getsockname()[1]}/mcp")
        nursery.cancel_scope.cancel()
    assert isinstance(error, TLSError)
    assert "does not speak TLS" in str(error)
    assert "http://" in str(error)
    assert "certificate" not in str(error)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
async def test_a_certificate_file_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    missing = str(tmp_path / f"{name}.pem")
    present = tmp_path / "present.pem"
    trustme.CA().issue_cert("a.invalid").cert_chain_pems[0].write_to_path(present)
    files: dict[str, Any] = {"key": {"cert": str(present), "key": missing}}.get(name, {name: missing})
    error = await refused(Http(URL, tls=TLSOptions(**files)))
    assert isinstance(error, UsageError)
    assert missing in str(error)
    assert "No such file" in str(error)


# Proxies.


async def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:hunter2@127.0.0.1:1")
    error = await refused(URL)
    assert isinstance(error, ServerUnreachable)
    assert "the proxy http://127.0.0.1:1" in str(error).replace("me:***@", "")
    assert "Connection refused" in str(error)
    assert "HTTPS_PROXY" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("answer", ["407 Proxy Authentication Required", "403 \x9b31mForbidden"])
async def test_a_proxy_that_refuses_is_named(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def proxy(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode("latin-1"))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, proxy, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        error = await refused(URL)
        nursery.cancel_scope.cancel()
    assert isinstance(error, ServerUnreachable)
    assert f"the proxy http://127.0.0.1:{port}" in str(error)
    assert answer[:3] in str(error)
    assert "HTTPS_PROXY" in str(error)
    assert str(error).isprintable()
    assert error.retryable is False


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("given", ["environment", "client"])
async def test_the_proxy_that_wants_credentials_is_told_apart_from_the_server(
    scheme: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, proxy, 0, host="127.0.0.1"))
        address = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        url = f"{scheme}://somewhere.invalid/mcp"
        if given == "environment":
            monkeypatch.setenv(f"{scheme}_proxy", address)
            error = await refused(url, allow_plaintext=True)
        else:
            async with httpx.AsyncClient(proxy=address) as client:
                error = await refused(Http(url, client=client), allow_plaintext=True)
        nursery.cancel_scope.cancel()
    assert "407" in str(error)
    assert "proxy" in str(error).partition(". ")[2]
    assert "the server runs" not in str(error)
    assert (address in str(error)) == (given == "environment")
    assert (error.outcome, error.retryable) == ("not_sent", False)
