"""The network before a server: its name, the way to it, and its certificate."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
import trio

from trioxport._core.error_mapping import system_reason
from trioxport.auth.tls import TLSOptions
from trioxport.diagnosis.doctor.certificates import check_certificate, explain_refusal
from trioxport.diagnosis.doctor.findings import ServerFindings
from trioxport.diagnosis.latencies import duration

STEP_SECONDS: Final = 15.0
"""Seconds that each step of the network may take."""
MAX_HEAD_BYTES: Final = 65536

_UNREACHABLE: Final = "Check that the server runs, the port, and firewalls between here and there"


@attrs.frozen
class NetworkAddress:
    """The address of a server, and the way to it.

    Args:
        host: Its host name or address.
        port: Its port.
        tls: The trust and certificates for TLS; None without TLS.
        proxy: The URL of the proxy before it; None without one.
        protocols: The protocols that are offered by ALPN; none by default.
    """

    host: str
    port: int
    tls: TLSOptions | ssl.SSLContext | None = None
    proxy: str | None = None
    protocols: Sequence[str] = ()


async def check_network(address: NetworkAddress, findings: ServerFindings) -> bool:
    """Check the name, the connection, the proxy and TLS, up to the first that fails; returns whether all are right."""
    steps = ["name", "connection", *(["proxy"] if address.proxy else []), *(["tls"] if address.tls else [])]
    proxy = None if address.proxy is None else urlsplit(address.proxy)
    host = address.host if proxy is None else proxy.hostname or ""
    port = address.port if proxy is None else proxy.port or (443 if proxy.scheme == "https" else 80)
    if not await _check_name(host, port, findings):
        findings.skip(steps[1:], f"{host} has no address")
        return False
    async with _connected(host, port, findings) as stream:
        if stream is None:
            findings.skip(steps[2:], f"there is no connection to {host}:{port}")
            return False
        if proxy is not None and not await _check_proxy(stream, address, proxy, findings):
            return False
        if address.tls is not None and (proxy is None or proxy.scheme == "http"):
            return await _check_tls(stream, address, findings)
    return True


async def _check_name(host: str, port: int, findings: ServerFindings) -> bool:
    findings.begin()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        findings.add("name", "ok", f"{host} is an address")
        return True
    remedy = "Check the spelling of the host name and the name service of this machine"
    try:
        with trio.fail_after(STEP_SECONDS):
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except trio.TooSlowError:
        findings.add("name", "failed", f"the name service did not answer for {host!r}", remedy, timed=True)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no host name"
        findings.add("name", "failed", f"{host!r} has no address: {reason}", remedy, timed=True)
    else:
        addresses = ", ".join(dict.fromkeys(str(each[4][0]) for each in found))
        findings.add("name", "ok", f"{host} is {addresses}", timed=True)
        return True
    return False


@asynccontextmanager
async def _connected(host: str, port: int, findings: ServerFindings) -> AsyncGenerator[trio.SocketStream | None]:
    findings.begin()
    stream = None
    try:
        with trio.fail_after(STEP_SECONDS):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        findings.add("connection", "failed", f"{host}:{port} does not answer", _UNREACHABLE, timed=True)
    except OSError as error:
        findings.add("connection", "failed", f"{host}:{port}: {system_reason(error)}", _UNREACHABLE, timed=True)
    if stream is None:
        yield None
        return
    async with stream:
        peer = stream.socket.getpeername()
        findings.add("connection", "ok", f"{peer[0]} takes connections at port {peer[1]}", timed=True)
        yield stream


async def _check_proxy(
    stream: trio.SocketStream, address: NetworkAddress, proxy: SplitResult, findings: ServerFindings
) -> bool:
    """Ask the proxy for a connection, where one to the server is needed."""
    name = f"{proxy.scheme}://{proxy.hostname}:{proxy.port or ''}".rstrip(":")
    if address.tls is None or proxy.scheme != "http":
        findings.add("proxy", "ok", f"requests go through {name}")
        return True
    findings.begin()
    remedy = "Check the proxy, and HTTPS_PROXY in the environment; NO_PROXY lists hosts without one"
    try:
        with trio.fail_after(STEP_SECONDS):
            status = await _tunnel(stream, f"{address.host}:{address.port}", proxy)
    except (trio.TooSlowError, trio.BrokenResourceError):
        status = ""
    if status.split()[1:2] == ["200"]:
        findings.add("proxy", "ok", f"{name} connects to {address.host}:{address.port}", timed=True)
        return True
    answer = f"answers {status!r}" if status else "does not answer"
    findings.add("proxy", "failed", f"{name} {answer}", remedy, timed=True)
    findings.skip(["tls"], "the proxy does not connect")
    return False


async def _tunnel(stream: trio.SocketStream, server: str, proxy: SplitResult) -> str:
    """Ask for a tunnel (RFC 9110, section 9.3.6), and return the status line."""
    head = f"CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n"
    if proxy.username is not None:
        user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        head += f"Proxy-Authorization: Basic {b64encode(user.encode()).decode()}\r\n"
    await stream.send_all(f"{head}\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < MAX_HEAD_BYTES:
        chunk = await stream.receive_some()
        if not chunk:
            break
        answer += chunk
    return answer.partition(b"\r\n")[0].decode("ascii", "replace")


async def _check_tls(stream: trio.SocketStream, address: NetworkAddress, findings: ServerFindings) -> bool:
    assert address.tls is not None
    context = address.tls if isinstance(address.tls, ssl.SSLContext) else address.tls.client_context()
    if address.protocols:
        context.set_alpn_protocols([*address.protocols])
    findings.begin()
    wrapped = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
    try:
        with trio.fail_after(STEP_SECONDS):
            await wrapped.do_handshake()
    except trio.TooSlowError:
        findings.add("tls", "failed", "the server does not answer the TLS handshake", "Check the port", timed=True)
    except trio.BrokenResourceError as error:
        await explain_refusal(error.__cause__, address.host, address.port, findings, direct=address.proxy is None)
    else:
        version = str(wrapped.version())
        took = duration(trio.current_time() - findings.began)
        check_certificate(wrapped.getpeercert(), f"{version}, handshake in {took}", findings)
        return True
    return False
