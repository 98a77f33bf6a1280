"""Operating an HTTP server: proxies in front, guessed tokens, logs, counters, renewed certificates, large bodies."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from tests.support.raw_http import Conversation, asking, calling, initialized, modern, modern_fields, talking
from tests.support.recording_handler import serving
from trioxport import AuthenticationError, Limits, open_transport, serve_transport
from trioxport.auth import Bearer, TLSOptions, tls
from trioxport.demo import serve_demo
from trioxport.layers import Metrics
from trioxport.transports.http.server import Bounds, HttpServer, ProtectedResource
from trioxport.transports.stream import Tls
from trioxport.transports.websocket import WebSocket

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"


async def ada(token: str) -> str | None:
    return "ada" if token == "good" else None


# Logs and counters.


async def test_a_server_says_where_it_serves_and_when_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    with trio.fail_after(BOUND):
        for target in (ANYWHERE, "tcp://127.0.0.1:0", "ws://127.0.0.1:0/"):
            async with trio.open_nursery() as nursery:
                [address] = await nursery.start(serve_transport, serve_demo, target)
                assert f"serving {address}" in caplog.text
                assert "stopped serving" not in caplog.text
                nursery.cancel_scope.cancel()
            assert f"{target}: stopped serving" in caplog.text
            caplog.clear()


async def test_the_access_log_has_a_line_for_each_request_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport.access")
    config = HttpServer(ANYWHERE, access_log=True, verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            async with calling(f"{served.url}?token=s3cret", modern("hello"), Authorization="Bearer good") as reply:
                body = await reply.body()
            async with calling(served.url, modern("hello"), Authorization="Bearer s3cret"):
                pass
            client = await initialized(served.url, authorization="Bearer good")
    answered, refused, opened, *_ = [each for each in caplog.records if each.name == "trioxport.access"]
    seen = vars(answered)
    assert (seen["http_method"], seen["http_path"], seen["http_status"]) == ("POST", "/mcp", 200)
    assert (seen["mcp_principal"], seen["mcp_method"], seen["http_bytes"]) == ("ada", "hello", len(body))
    assert seen["http_seconds"] >= 0
    assert str(seen["http_peer"]).startswith("127.0.0.1:")
    assert (vars(refused)["http_status"], vars(refused)["mcp_principal"]) == (401, None)
    assert vars(opened)["mcp_method"] == "initialize"
    assert client is not None
    assert "s3cret" not in caplog.text
    assert '"POST /mcp" 200' in answered.getMessage()


def accessed(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == "trioxport.access"]


async def test_the_access_log_has_lines_for_websockets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport.access")
    config = HttpServer(ANYWHERE, websocket=True, access_log=True, verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            url = served.url.replace("http", "ws")
            async with open_transport(WebSocket(url, auth=Bearer("good"))):
                assert accessed(caplog) == []
            with pytest.raises(AuthenticationError):
                async with open_transport(url):
                    pass
    opened, refused = accessed(caplog)
    assert (opened.http_status, opened.mcp_principal, opened.http_path) == (101, "ada", "/mcp")
    assert (refused.http_status, refused.mcp_principal) == (401, None)
    assert opened.http_peer.startswith("127.0.0.1:")


async def test_a_request_that_failed_is_logged_with_its_status(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(token: str) -> str | None:
        raise LookupError("the verifier's own")

    caplog.set_level(logging.INFO, "trioxport.access")
    config = HttpServer(ANYWHERE, access_log=True, verify=ProtectedResource(fails))
    with trio.fail_after(BOUND):
        async with serving(config) as served, calling(served.url, modern("x"), Authorization="Bearer t") as reply:
            assert reply.status == 500
    [line] = accessed(caplog)
    assert line.http_status == 500


async def test_lines_of_the_access_log_stay_short_and_let_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport.access")
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, access_log=True)) as served:
            async with calling(served.url, modern("m" * 100_000), mcp_method="m"):
                pass
            client = await initialized(served.url)
            async with asking(served.url, "GET", path="/%E2%80%AE%E2%80%A8"):
                pass
    session = client.fields["mcp-session-id"]
    long, *_, told, odd = accessed(caplog)
    assert len(long.getMessage()) < 500
    assert len(long.mcp_method) == 200
    assert told.mcp_session == session[:8]
    assert session not in str([vars(record) for record in accessed(caplog)])
    assert odd.getMessage().isprintable()


async def test_without_access_log_nothing_is_logged_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport.access")
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("hello")):
            pass
    assert not [each for each in caplog.records if each.name == "trioxport.access"]


async def test_control_characters_of_a_client_do_not_reach_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, access_log=True)) as served,
            asking(served.url, "GET", path="/a%1b%5b31m%0ab") as reply,
        ):
            assert reply.status == 404
    assert "\x1b" not in caplog.text
    assert r"\x1b[31m\x0ab" in caplog.text


async def test_refusals_are_counted_by_reason_and_logged_without_flooding(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioxport")
    metrics = Metrics()
    config = HttpServer(ANYWHERE, verify=ProtectedResource(ada))
    with trio.fail_after(BOUND):
        async with serving(config, layers=[metrics]) as served:
            for _ in range(25):
                async with calling(served.url, modern("hello"), Authorization="Bearer bad"):
                    pass
            async with calling(served.url, modern("hello"), host="evil.example"):
                pass
            async with calling(served.url, modern("hello"), Origin="https://evil.example"):
                pass
            async with talking(served.url) as reply:
                await reply.stream.send_all(b"GARBAGE\r\n\r\n")
                await reply.head()
            assert served.received == []
    assert metrics.snapshot().refusals == {
        "401 Unauthorized (token)": 25,
        "421 Misdirected Request": 1,
        "403 Forbidden (Origin)": 1,
        "400 Bad Request": 1,
    }
    lines = [each.getMessage() for each in caplog.records]
    assert len([line for line in lines if "401" in line]) == 2
    assert any("(10 so far)" in line for line in lines)
    assert any("the Host is 'evil.example'; add it to hosts=" in line for line in lines)
    assert any("the Origin is 'https://evil.example'; add it to origins=" in line for line in lines)


# Renewed certificates.


def certificate(ca: trustme.CA, folder: Path, name: str = "127.0.0.1") -> str:
    """The path of a file with a certificate for ``name`` and its key, made anew."""
    new = folder / "new.pem"
    ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(new)
    new.replace(folder / "server.pem")
    return str(folder / "server.pem")


@pytest.mark.parametrize("binding", ["https", "tls", "wss"])
async def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(
    binding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "RENEWAL_CHECK_SECONDS", 0.0)
    first, second = trustme.CA(), trustme.CA()
    file = certificate(first, tmp_path)
    target: Any = {
        "https": HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=file)),
        "tls": Tls("127.0.0.1", 0, cert=file),
        "wss": WebSocket("wss://127.0.0.1:0/", tls=TLSOptions(cert=file)),
    }[binding]
    with trio.fail_after(BOUND):
        async with serving(target) as served:
            port = int(served.url.rpartition(":")[2].partition("/")[0])
            assert await trusted_by(first, port)
            certificate(second, tmp_path)
            assert await trusted_by(second, port)
            assert not await trusted_by(first, port)
            await trio.Path(file).write_text("broken")
            assert await trusted_by(second, port)
            assert await trusted_by(second, port)
    assert caplog.text.count("the renewed certificate is not used") == 1


async def test_a_pair_that_is_replaced_by_halves_is_used_once_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "RENEWAL_CHECK_SECONDS", 0.0)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    old, new = trustme.CA(), trustme.CA()
    for ca, files in ((old, (cert, key)), (new, (tmp_path / "new-cert.pem", tmp_path / "new-key.pem"))):
        issued = ca.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(files[0])
        issued.private_key_pem.write_to_path(files[1])
    config = HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=str(cert), key=str(key)))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            port = int(served.url.rpartition(":")[2].partition("/")[0])
            (tmp_path / "new-cert.pem").replace(cert)
            assert await trusted_by(old, port)
            (tmp_path / "new-key.pem").replace(key)
            assert await trusted_by(new, port)
    assert caplog.text.count("the renewed certificate is not used") == 1


async def test_files_are_not_looked_at_for_each_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "RENEWAL_CHECK_SECONDS", 3600.0)
    old, new = trustme.CA(), trustme.CA()
    file = certificate(old, tmp_path)
    config = HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=file))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            port = int(served.url.rpartition(":")[2].partition("/")[0])
            assert await trusted_by(old, port)
            certificate(new, tmp_path)
            assert await trusted_by(old, port)


async def trusted_by(ca: trustme.CA, port: int) -> bool:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1", https_compatible=True
    )
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError:
        return False
    else:
        return True
    finally:
        await trio.aclose_forcefully(stream)


# Bodies.


@asynccontextmanager
async def half_sent(url: str, size: int) -> AsyncGenerator[Conversation]:
    """A connection on which ``size`` bytes of a request's body arrived, and one more is due."""
    async with talking(url) as slow:
        fields = "".join(f"{name}: {value}\r\n" for name, value in modern_fields(modern("hello")).items())
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Content-Length: {size + 1}\r\n\r\n"
        await slow.stream.send_all(head.encode() + b" " * size)
        await trio.testing.wait_all_tasks_blocked(0.05)
        yield slow


async def test_unfinished_bodies_are_bounded_together() -> None:
    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=200_000))
    large = modern("hello", ballast="x" * 170_000)
    with trio.fail_after(BOUND):
        async with serving(config, limits=Limits(max_message_size=300_000)) as served:
            async with half_sent(served.url, 200_000), calling(served.url, large) as reply:
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with calling(served.url, large) as reply:
                assert reply.status == 200


async def test_large_unfinished_bodies_keep_no_small_request_out() -> None:
    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=100_000))
    with trio.fail_after(BOUND):
        async with (
            serving(config, limits=Limits(max_message_size=300_000)) as served,
            half_sent(served.url, 99_990),
            half_sent(served.url, 10 + 2 * 64 * 1024),
            calling(served.url, modern("hello", ballast="x" * 60_000)) as reply,
        ):
            assert reply.status == 200


async def test_a_body_that_is_alone_may_be_as_large_as_a_message() -> None:
    config = HttpServer(ANYWHERE, bounds=Bounds(unfinished_bodies=100_000))
    with trio.fail_after(BOUND):
        async with (
            serving(config, limits=Limits(max_message_size=500_000)) as served,
            calling(served.url, modern("hello", ballast="x" * 400_000)) as reply,
        ):
            assert reply.status == 200
