"""The examination of servers: real ones, and broken ones of every kind, each with its finding and its remedy."""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from tests.support.redis_links import redis_server
from tests.support.scripted_http import Reply, serving
from trioxport import UsageError, serve_transport
from trioxport.auth import Bearer
from trioxport.config import load_servers
from trioxport.demo import serve_demo
from trioxport.diagnosis.doctor import STEPS, ServerFindings, StepFinding, certificates, examine
from trioxport.transports.http import Http
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tls
from trioxport.transports.websocket import WebSocket

SDK_SERVER: Final = str(Path(__file__).parents[1] / "peers" / "sdk_server.py")
DISCOVERED: Final = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "scripted", "version": "1"}},
}


async def examined(target: Any, **options: Any) -> dict[str, StepFinding]:
    """The findings by step; each step stands once."""
    with trio.fail_after(25):
        findings = await examine(target, **options)
    assert {each.step for each in findings.all} <= set(STEPS)
    assert len({each.step for each in findings.all}) == len(findings.all)
    assert findings.has_failed == any(each.status == "failed" for each in findings.all)
    return {each.step: each for each in findings.all}


def statuses(findings: dict[str, StepFinding]) -> dict[str, str]:
    return {step: finding.status for step, finding in findings.items()}


def failed(findings: dict[str, StepFinding], step: str) -> StepFinding:
    """The finding of the step that failed, which has a remedy."""
    assert findings[step].status == "failed", findings
    assert findings[step].remedy
    return findings[step]


@asynccontextmanager
async def demo_at(target: Any) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_transport, serve_demo, target))
        yield address
        nursery.cancel_scope.cancel()


def program(code: str) -> Stdio:
    return Stdio(sys.executable, ["-c", code])


# Servers that work


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:0/mcp",
        "ws://127.0.0.1:0/mcp",
        "grpc://127.0.0.1:0",
        "tcp://127.0.0.1:0",
        "unix://FOLDER/s",
        "http+unix://FOLDER/s#/mcp",
    ],
)
async def test_the_demo_server_over_the_network(url: str, tmp_path: Path) -> None:
    async with demo_at(url.replace("FOLDER", str(tmp_path))) as address:
        findings = await examined(address)
    assert set(statuses(findings).values()) == {"ok"}
    assert findings["negotiation"].text.startswith("trioxport-demo 0.1.0 speaks 2026-07-28")
    assert findings["listing"].text.startswith("5 tools: echo, add, ")
    if url.startswith("http+unix"):
        assert list(findings) == ["socket", "http", "negotiation", "listing"]
    elif url.startswith("http"):
        assert list(findings) == ["proxy", "name", "connection", "http", "negotiation", "listing"]
        assert findings["http"].text == "200 OK, application/json"


async def test_the_everything_server(everything_server: list[str]) -> None:
    findings = await examined(Stdio(everything_server[0], everything_server[1:]))
    assert list(findings) == ["command", "start", "stdout", "stderr", "negotiation", "listing"]
    assert set(statuses(findings).values()) == {"ok"}
    assert findings["stderr"].text.startswith("lines: ")
    assert "legacy era" in findings["negotiation"].text
    assert "resources" in findings["listing"].text


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_official_sdks_server(era: Any) -> None:
    findings = await examined(Stdio(sys.executable, [SDK_SERVER]), era=era)
    assert set(statuses(findings).values()) == {"ok"}
    assert f"({era} era)" in findings["negotiation"].text


async def test_a_server_of_a_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    command = {"command": sys.executable, "args": ["-m", "trioxport", "serve-demo", "stdio:"]}
    import json

    file.write_text(json.dumps({"mcpServers": {"demo": command}}))
    assert (await examined(load_servers(file)["demo"]))["listing"].status == "ok"


# Commands


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Stdio("no-such-program"), "there is no program 'no-such-program' on PATH"),
        (Stdio("/no/such/program"), "/no/such/program cannot be run: there is no such file"),
        (Stdio("/etc/passwd"), "/etc/passwd cannot be run: no permission"),
        (Stdio(sys.executable, cwd="/no/such/folder"), "there is no folder /no/such/folder"),
        (Stdio("python3", env={"PATH": "/nowhere"}), "there is no program 'python3' on PATH"),
    ],
)
async def test_a_command_that_is_not_there(target: Stdio, text: str) -> None:
    findings = await examined(target)
    assert failed(findings, "command").text == text
    assert set(statuses(findings).values()) == {"failed", "skipped"}


async def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o700)
    assert "Exec format error" in failed(await examined(Stdio(str(broken))), "start").text


async def test_a_command_that_ends_at_once() -> None:
    code = "import sys; sys.exit('cannot load plugin: token=sk-4f9a8b7c6d5e4f3a2b1c')"
    findings = await examined(program(code))
    assert failed(findings, "start").text == "the command ended with exit code 1 before it answered"
    assert "cannot load plugin" in findings["stderr"].text
    assert "sk-4f9a8b7c6d5e4f3a2b1c" not in findings["stderr"].text
    failed(findings, "negotiation")
    assert findings["listing"].status == "skipped"


async def test_output_that_is_no_message() -> None:
    code = (
        "print('Loading...', flush=True)\nimport trio, trioxport.demo as demo\nfrom trioxport import serve_transport\n"
    )
    code += "trio.run(serve_transport, demo.serve_demo, 'stdio:')"
    findings = await examined(program(code))
    assert failed(findings, "stdout").text == "lines that are no messages: 1; the last: Loading..."
    assert "standard error" in str(findings["stdout"].remedy)
    assert findings["listing"].status == "ok"


async def test_a_command_that_says_nothing() -> None:
    findings = await examined(program("import time; time.sleep(60)"), timeout=2)
    assert failed(findings, "start").text == "the command runs, and sends no message"
    assert "did not open the conversation within 2 s" in failed(findings, "negotiation").text


# The network


async def test_a_name_without_an_address() -> None:
    findings = await examined("http://no.such.host.invalid/mcp")
    assert failed(findings, "name").text.startswith("'no.such.host.invalid' has no address: ")
    assert findings["connection"].status == findings["listing"].status == "skipped"


async def test_a_name_with_an_address() -> None:
    async with demo_at("http://127.0.0.1:0/mcp") as address:
        findings = await examined(address.replace("127.0.0.1", "localhost"))
    assert findings["name"].text.startswith("localhost is ")
    assert findings["listing"].status == "ok"


async def test_a_name_service_that_does_not_answer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: object, **options: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", never)
    findings = await examine("tcp://host.example:1", allow_plaintext=True)
    assert findings.all[0].text == "the name service did not answer for 'host.example'"


async def test_no_server_at_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    findings = await examined(f"https://127.0.0.1:{port}/mcp")
    assert failed(findings, "connection").text == f"127.0.0.1:{port}: Connection refused"
    assert findings["tls"].status == "skipped"


async def test_a_host_that_does_not_answer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    findings = await examine("tcp://127.0.0.1:1")
    assert findings.all[1].text == "127.0.0.1:1 does not answer"


@pytest.mark.parametrize(("name", "text"), [("none", "No such file"), ("file", "is no socket")])
async def test_a_unix_socket_that_is_not_there(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for scheme in ("unix", "http+unix"):
        assert text in failed(await examined(f"{scheme}://{tmp_path}/{name}"), "socket").text


async def test_a_target_that_is_none() -> None:
    with pytest.raises(UsageError):
        await examine("nope://x")


# TLS


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@asynccontextmanager
async def tls_demo(certificate: trustme.LeafCert) -> AsyncGenerator[int]:
    async with demo_at(Tls("127.0.0.1", 0, ssl_context=context_of(certificate))) as address:
        yield int(address.rpartition(":")[2])


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def days_from_now(days: int) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


async def test_a_certificate_that_is_right() -> None:
    authority = trustme.CA(organization_name="Test Authority")
    certificate = authority.issue_cert("127.0.0.1", not_after=days_from_now(100))
    async with tls_demo(certificate) as port:
        findings = await examined(Tls("127.0.0.1", port, ssl_context=trusting(authority)))
    assert findings["tls"].status == "ok"
    assert "TLSv1.3" in findings["tls"].text
    assert "certificate for 127.0.0.1, issued by Test Authority" in findings["tls"].text
    assert findings["listing"].status == "ok"


async def test_a_certificate_that_ends_soon() -> None:
    authority = trustme.CA()
    async with tls_demo(authority.issue_cert("127.0.0.1", not_after=days_from_now(5))) as port:
        findings = await examined(Tls("127.0.0.1", port, ssl_context=trusting(authority)))
    assert findings["tls"].status == "warning"
    assert findings["tls"].remedy == "Renew the certificate of the server soon"


@pytest.mark.parametrize(
    ("name", "days", "trusted", "text"),
    [
        ("127.0.0.1", -2, True, "the certificate has expired: for 127.0.0.1, issued by "),
        ("other.example", 10, True, "the certificate is for another address: for other.example, "),
        ("127.0.0.1", 10, False, "the issuer of the certificate is not known: for 127.0.0.1, "),
    ],
)
async def test_a_certificate_that_is_wrong(name: str, days: int, trusted: bool, text: str) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(name, not_before=days_from_now(-10), not_after=days_from_now(days))
    context = trusting(authority) if trusted else ssl.create_default_context()
    async with tls_demo(certificate) as port:
        findings = await examined(Tls("127.0.0.1", port, ssl_context=context))
    assert failed(findings, "tls").text.startswith(text)
    assert "valid from" in findings["tls"].text
    assert findings["negotiation"].status == "skipped"


@pytest.mark.parametrize("reason", ["cryptography", "unreadable", "closed"])
async def test_a_certificate_that_is_wrong_and_cannot_be_shown(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(der: bytes) -> str:
        raise ValueError("no certificate")

    async def closed(*arguments: object) -> None:
        raise OSError("refused")

    async with tls_demo(trustme.CA().issue_cert("127.0.0.1")) as port:
        if reason == "cryptography":
            monkeypatch.setattr(certificates, "find_spec", lambda name: None)
        elif reason == "unreadable":
            monkeypatch.setattr(certificates, "_described", unreadable)
        else:
            monkeypatch.setattr(certificates, "_connect", closed)
        findings = await examined(f"tls://127.0.0.1:{port}")
    assert failed(findings, "tls").text == "the issuer of the certificate is not known"


async def test_a_server_that_demands_a_certificate_of_the_client() -> None:
    authority = trustme.CA()
    context = context_of(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the refusal comes within the handshake
    authority.configure_trust(context)
    async with demo_at(Tls("127.0.0.1", 0, ssl_context=context)) as address:
        port = int(address.rpartition(":")[2])
        findings = await examined(Tls("127.0.0.1", port, ssl_context=trusting(authority)))
    assert failed(findings, "tls").text.startswith("the handshake failed: ")


async def test_a_certificate_that_is_not_verified_is_a_warning() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with tls_demo(trustme.CA().issue_cert("127.0.0.1")) as port:
        findings = await examined(Tls("127.0.0.1", port, ssl_context=context))
    assert findings["tls"].status == "warning"


async def test_a_port_without_tls() -> None:
    async with demo_at("http://127.0.0.1:0/mcp") as address:
        findings = await examined(address.replace("http", "https"))
    assert "does not speak TLS" in failed(findings, "tls").text


async def test_a_port_that_closes_or_hangs(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.2

    async def close(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    for serve, text in ((close, "the server closed the connection"), (hang, "does not answer the TLS handshake")):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            findings = await examine(WebSocket(f"wss://127.0.0.1:{listener.socket.getsockname()[1]}/"))
            nursery.cancel_scope.cancel()
        assert text in next(each.text for each in findings.all if each.step == "tls")


# HTTP


@asynccontextmanager
async def http_server(status: int, headers: Mapping[str, str], body: bytes = b"") -> AsyncGenerator[str]:
    async def script(reply: Reply) -> None:
        await reply.status(status, body, **headers)

    async with serving(script) as server:
        yield server.url


@pytest.mark.parametrize(
    ("status", "headers", "text", "remedy"),
    [
        (200, {"content_type": "text/html"}, "this is no endpoint of MCP", "/mcp"),
        (404, {"content_type": "text/html"}, "this is no endpoint of MCP", "/mcp"),
        (403, {}, "403 Said, no content type", "Origin"),
        (421, {}, "421", "allowed hosts"),
        (429, {}, "429", "limits the rate"),
        (503, {}, "503", "gateway"),
        (302, {"location": "https://login.example/"}, "redirected to https://login.example/", "https://login.example/"),
        (307, {"location": "https://other.example/mcp"}, "redirected to https://other.example/mcp", "Use the target"),
    ],
)
async def test_an_answer_that_is_final(status: int, headers: dict[str, str], text: str, remedy: str) -> None:
    async with http_server(status, headers) as url:
        finding = failed(await examined(url), "http")
    assert text in finding.text
    assert remedy in str(finding.remedy)


@pytest.mark.parametrize(("status", "hint"), [(404, "/mcp"), (405, "sse+http://"), (418, "log")])
async def test_an_answer_after_which_an_older_transport_may_follow(status: int, hint: str) -> None:
    async with http_server(status, {}) as url:
        findings = await examined(url)
    assert findings["http"].status == "warning"
    assert hint in str(findings["http"].remedy)
    failed(findings, "negotiation")


async def test_a_redirect_within_the_server() -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.path == "/mcp":
            await reply.status(307, location="/mcp/")
        elif reply.asked.rpc == "server/discover":
            await reply.result(DISCOVERED)
        else:
            await reply.result({"tools": [{"name": "a", "inputSchema": {}}, {"name": "a", "inputSchema": {}}]})

    async with serving(script) as server:
        findings = await examined(server.url)
    assert findings["http"].status == "warning"
    assert str(findings["http"].remedy).endswith("/mcp/")
    assert findings["negotiation"].text == "scripted 1 speaks 2026-07-28 (modern era)"
    assert findings["listing"].status == "warning"
    assert "names that stand twice: a" in findings["listing"].text


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        ('Bearer resource_metadata="https://a.example/m", scope="files"', "scope='files'"),
        ("", "no WWW-Authenticate header"),
    ],
)
async def test_a_server_that_demands_credentials(challenge: str, text: str) -> None:
    headers = {"www_authenticate": challenge} if challenge else {}
    async with http_server(401, headers) as url:
        findings = await examined(url)
        refused = await examined(Http(url, headers={"Authorization": "Bearer sk-4f9a8b7c6d5e4f3a2b1c"}))
        tried = await examined(Http(url, auth=Bearer("sk-4f9a8b7c6d5e4f3a2b1c")))
    assert text in failed(findings, "authorization").text
    assert "--token-file" in str(findings["authorization"].remedy)
    assert findings["http"].status == "ok"
    assert findings["negotiation"].status == "skipped"
    assert failed(refused, "authorization").text.startswith("refused: ")
    assert "sk-4f9a8b7c6d5e4f3a2b1c" not in str(refused) + str(tried)
    assert tried["http"].text.startswith("401 without credentials, ")
    failed(tried, "authorization")
    assert tried["negotiation"].status == "skipped"


async def test_credentials_that_are_right() -> None:
    async def script(reply: Reply) -> None:
        if "authorization" not in reply.asked.headers:
            await reply.status(401, www_authenticate="Bearer")
        elif reply.asked.rpc == "server/discover":
            await reply.result({**DISCOVERED, "capabilities": {}, "_meta": {}})
        else:
            await reply.result({})

    async with serving(script) as server:
        findings = await examined(Http(server.url, auth=Bearer("right")))
    assert findings["authorization"].text == "the server accepts the given credentials"
    assert findings["negotiation"].status == "warning"  # it has no name
    assert findings["listing"].text == "the server offers no tools, prompts or resources"


async def test_a_listing_that_fails() -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "server/discover":
            await reply.result(DISCOVERED)
        else:
            await reply.error(-32603, reply.asked.message["id"], 200)

    async with serving(script) as server:
        findings = await examined(server.url)
    assert failed(findings, "listing").text == "the server answered with error -32603: no"


async def test_a_legacy_endpoint_and_events() -> None:
    async def legacy(reply: Reply) -> None:
        await reply.error(-32600, None, 400)

    async def events(reply: Reply) -> None:
        await reply.begin_events()
        await reply.answer(DISCOVERED if reply.asked.rpc == "server/discover" else {"tools": []})
        await reply.end_events()

    async with serving(legacy) as server:
        findings = await examined(server.url)
    assert "a legacy server refuses server/discover so" in findings["http"].text
    assert "the server answered with error -32600" in failed(findings, "negotiation").text
    async with serving(events) as server:
        findings = await examined(server.url)
    assert findings["http"].text == "200 OK, text/event-stream"
    assert findings["listing"].text == "no tools"


async def test_a_port_that_does_not_speak_http() -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(b"SSH-2.0-OpenSSH\r\n")
        await reply.close()

    async with serving(script) as server:
        assert "the request failed: " in failed(await examined(server.url), "http").text


@pytest.mark.parametrize("alert", [b"", b"\x15\x03\x01\x00\x02\x02\x28"])
async def test_a_port_that_speaks_https(alert: bytes) -> None:
    """Its server closes the connection after an alert of TLS, or without one."""

    async def script(reply: Reply) -> None:
        await reply.raw(alert)
        await reply.close()

    async with serving(script) as server:
        remedy = failed(await examined(server.url), "http").remedy
    assert remedy == "If the server speaks TLS on this port, use https://"


async def test_an_endpoint_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioxport.diagnosis.doctor.http_probe.STEP_SECONDS", 0.2)

    async def script(reply: Reply) -> None:
        await reply.gone()

    async with serving(script) as server:
        assert failed(await examined(server.url), "http").text == "the server does not answer a request"


async def test_an_endless_page_is_not_read_to_its_end() -> None:
    async with http_server(200, {"content_type": "text/plain"}, b"x" * 1_000_000) as url:
        assert "this is no endpoint of MCP" in failed(await examined(url), "http").text


# Proxies


@asynccontextmanager
async def proxy(answer: bytes, heads: list[bytes]) -> AsyncGenerator[int]:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive_some())
            await stream.send_all(answer)

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answers 'HTTP/1.1 407 Proxy Authentication Required'"),
        (b"", "does not answer"),
    ],
)
async def test_a_proxy_that_refuses(answer: bytes, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []
    async with proxy(answer, heads) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
        findings = await examined("https://mcp.example/mcp")
    assert text in failed(findings, "proxy").text
    assert "secret" not in str(findings)
    assert heads[0].startswith(b"CONNECT mcp.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " in heads[0]
    assert findings["tls"].status == "skipped"


async def test_a_proxy_that_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []
    async with proxy(b"HTTP/1.1 200 Connected\r\n\r\n", heads) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        findings = await examined("https://mcp.example/mcp")
    assert findings["proxy"].status == "ok"
    assert "closed the connection" in failed(findings, "tls").text


async def test_a_proxy_for_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []
    async with proxy(b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", heads) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        findings = await examined("http://mcp.example/mcp", allow_plaintext=True)
    assert findings["proxy"].text == f"requests go through http://127.0.0.1:{port}"
    assert "502" in failed(findings, "http").text


# Services behind Redis


@pytest.mark.parametrize("scheme", ["redis", "redis+stream"])
async def test_a_service_behind_redis(scheme: str) -> None:
    async with redis_server() as redis:
        url = f"{scheme}://127.0.0.1:{redis.port}?service=demo"
        async with demo_at(url):
            findings = await examined(url)
        absent = await examined(url)
    assert list(findings) == ["name", "connection", "redis", "service", "negotiation", "listing"]
    assert set(statuses(findings).values()) == {"ok"}
    assert re.fullmatch(r"Redis \d+\.[\d.]+ accepts the default user", findings["redis"].text)
    assert findings["service"].text == "1 server of the service 'demo'"
    assert absent["redis"].status == "ok"
    finding = failed(absent, "service")
    assert finding.text == "no server of the service 'demo' is connected to Redis"
    assert "both sides use the same service" in str(finding.remedy)
    assert absent["negotiation"].status == "skipped"


@pytest.mark.parametrize(
    ("arguments", "credentials", "step", "text", "remedy"),
    [
        (["--requirepass", "secret-of-redis"], "", "redis", "Redis demands a password", "Give the password"),
        (["--requirepass", "other"], ":secret-of-redis@", "redis", "the user or the password", "credentials"),
        (["--user", "narrow on nopass +@all -pubsub"], "narrow:x@", "service", "to run the 'pubsub", "permissions"),
    ],
)
async def test_a_redis_that_refuses(arguments: list[str], credentials: str, step: str, text: str, remedy: str) -> None:
    words = [word for each in arguments for word in each.split()]
    async with redis_server(*words) as redis:
        findings = await examined(f"redis://{credentials}127.0.0.1:{redis.port}")
    finding = failed(findings, step)
    assert text in finding.text and remedy in str(finding.remedy)
    assert "secret-of-redis" not in str(findings)
    assert statuses(findings).get("service") == ("failed" if step == "service" else "skipped")


async def test_a_redis_beyond_this_machine_has_to_be_encrypted() -> None:
    findings = await examined("redis://192.0.2.1")
    assert list(findings) == ["redis", "negotiation", "listing"]
    assert "unencrypted" in failed(findings, "redis").text


async def test_the_certificate_of_a_redis(tmp_path: Path) -> None:
    authority = trustme.CA(organization_name="Test Authority")
    [listener] = await trio.open_ssl_over_tcp_listeners(
        0, context_of(authority.issue_cert("127.0.0.1")), host="127.0.0.1"
    )
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):  # one connection is for the certificate alone
                await stream.receive_some()
                await stream.send_all(b"-ERR unknown command `HELLO`\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]  # Trio's type is wider
        findings = await examined(f"rediss://127.0.0.1:{port}?ca={tmp_path / 'ca.pem'}")
        nursery.cancel_scope.cancel()
    assert "issued by Test Authority" in findings["tls"].text
    assert "Redis 6 or later" in str(failed(findings, "redis").remedy)


def test_findings_as_json() -> None:
    async def made() -> ServerFindings:
        findings = ServerFindings(lambda finding: None)
        findings.add("name", "failed", "text with token=sk-4f9a8b7c6d5e4f3a2b1c", "remedy")
        await trio.lowlevel.checkpoint()
        return findings

    told = trio.run(made).as_json("tcp://h:1")
    assert (told["target"], told["healthy"]) == ("tcp://h:1", False)
    assert told["findings"][0]["remedy"] == "remedy"
    assert "sk-4f9a8b7c6d5e4f3a2b1c" not in str(told)
