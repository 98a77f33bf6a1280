"""``examine``: all steps that apply to a target."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx

from trioxport.abc import ConnectionSettings, Era, Layer, Transport
from trioxport.auth.tls import TLSOptions
from trioxport.config.server import ConfiguredTarget, ServerConfig
from trioxport.diagnosis.doctor.command import check_command
from trioxport.diagnosis.doctor.conversation import STEPS as CONVERSATION
from trioxport.diagnosis.doctor.conversation import ConversationOptions, check_conversation
from trioxport.diagnosis.doctor.findings import OnFinding, ServerFindings
from trioxport.diagnosis.doctor.grpc_health import check_health
from trioxport.diagnosis.doctor.http_probe import check_http
from trioxport.diagnosis.doctor.network import NetworkAddress, check_network
from trioxport.diagnosis.doctor.redis_server import STEPS as REDIS
from trioxport.diagnosis.doctor.redis_server import check_redis, may_connect
from trioxport.targets import Target, describe, to_transport
from trioxport.transports.grpc import Grpc
from trioxport.transports.http import Http
from trioxport.transports.http.client.stack.proxies import proxy_for
from trioxport.transports.http_stdio import HttpStdio
from trioxport.transports.redis import Redis
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tcp, Tls, Unix
from trioxport.transports.websocket import WebSocket

STEPS: Final = (
    *("name", "connection", "proxy", "tls", "http", "authorization", "health"),
    *REDIS,
    *("command", "start", "stdout", "stderr", "socket"),
    *CONVERSATION,
    "closing",
)
"""The names of all steps; a target has some of them."""

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def _ignore(_finding: object) -> None:
    """Do nothing: the caller reads the findings at the end."""


async def examine(
    target: Target,
    *,
    on_finding: OnFinding = _ignore,
    timeout: float = 60.0,
    era: Era | None = None,
    allow_plaintext: bool = False,
    layers: Sequence[Layer] = (),
) -> ServerFindings:
    """Examine a server, step by step, up to the step that fails.

    Args:
        target: The server.
        on_finding: Called with each finding as soon as it is there; it must not block.
        timeout: Seconds for connecting and negotiating, and for each answer.
        era: The era, if it is not to be negotiated.
        allow_plaintext: Whether unencrypted traffic may leave this machine.
        layers: Frame layers of the conversation.

    Raises:
        UsageError: The target is none.

    An endpoint over HTTP gets a request without the credentials of ``auth``, and then the usual ones with them. A
    command is started.
    """
    options = ConversationOptions(timeout, era, allow_plaintext)
    configured = _configured(target)
    transport = configured.transport or to_transport(target)
    findings = ServerFindings(on_finding, configured.hidden)
    if isinstance(transport, Stdio | HttpStdio):
        await check_command(configured, transport, options, findings, layers)
    elif isinstance(transport, Unix) and not _check_socket(transport.path, findings):
        findings.skip(CONVERSATION, "there is no socket")
    elif await _check_way(transport, options, findings):
        await check_conversation(target, options, findings, layers)
    else:
        findings.skip(CONVERSATION, "an earlier step failed")
    return findings


def _configured(target: Target) -> ConfiguredTarget:
    if isinstance(target, ServerConfig):
        return target.target
    return ConfiguredTarget(describe(target), to_transport(target))


async def _check_way(transport: Transport, options: ConversationOptions, findings: ServerFindings) -> bool:
    """Check the steps before the first message; returns whether to go on."""
    match transport:
        case Http():
            return await _check_endpoint(transport, findings)
        case WebSocket():
            parts = urlsplit(transport.url)
            tls = (transport.tls or TLSOptions()) if parts.scheme == "wss" else None
            return await check_network(
                NetworkAddress(parts.hostname or "", parts.port or _PORTS[parts.scheme], tls), findings
            )
        case Grpc():
            tls = (transport.tls or TLSOptions()) if transport.is_encrypted else None
            address = NetworkAddress(*transport.address, tls, protocols=["h2"])
            if not await check_network(address, findings):
                findings.skip(["health"], "an earlier step failed")
                return False
            return await check_health(transport, allow_plaintext=options.allow_plaintext, findings=findings)
        case Tls():
            tls = transport.ssl_context or TLSOptions(transport.ca, transport.cert, transport.key)
            return await check_network(NetworkAddress(transport.host, transport.port, tls), findings)
        case Tcp():
            return await check_network(NetworkAddress(transport.host, transport.port), findings)
        case Redis():
            settings = ConnectionSettings("client", str(transport), allow_plaintext=options.allow_plaintext)
            if not may_connect(transport, settings, findings):
                return False
            address = NetworkAddress(transport.host, transport.port, transport.tls_context())
            return await check_network(address, findings) and await check_redis(transport, findings)
        case _:
            return True


async def _check_endpoint(target: Http, findings: ServerFindings) -> bool:
    if target.unix is not None:
        return _check_socket(target.unix.path, findings) and await check_http(target, None, findings)
    url = httpx.URL(target.url)
    proxy = proxy_for(url, str(target))
    tls = (target.tls or TLSOptions()) if url.scheme == "https" else None
    named = None if proxy is None else str(proxy)
    if named is None:
        findings.add("proxy", "ok", "none: the environment names none for this host")
    address = NetworkAddress(url.host, url.port or _PORTS[url.scheme], tls, named)
    return await check_network(address, findings) and await check_http(target, named, findings)


def _check_socket(path: str, findings: ServerFindings) -> bool:
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        remedy = "Check the path, and that the server runs"
        findings.add("socket", "failed", f"{path}: {error.strerror}", remedy)
        return False
    if is_socket:
        findings.add("socket", "ok", f"{path} is a socket")
        return True
    findings.add("socket", "failed", f"{path} is no socket", "Check the path")
    return False
