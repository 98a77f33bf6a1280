"""Every transport keeps every rule of the contract, as client and as server, in both codecs, plain and with layers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import http_links, http_stdio_links, links
from trioxport.abc import Layer
from trioxport.codecs import MessagePack
from trioxport.layers import Logging, Tap
from trioxport.testing import RULES, Faults, MakePair, check_layer, check_transport, tcp_pair, transport_checks

LINKS: dict[str, Callable[..., MakePair]] = {
    "memory": links.memory_link,
    "tcp": links.tcp_link,
    "tls": links.tls_link,
    "unix": links.unix_link,
    "stdio": links.stdio_link,
    "http": http_links.http_link,
    "ws": links.ws_link,
    "wss": links.wss_link,
    "grpc": links.grpc_link,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("transport", LINKS)
async def test_json(transport: str, rule: int, tmp_path: Path) -> None:
    await check_transport(LINKS[transport](tmp_path), rules=[rule])


@pytest.mark.parametrize("rule", RULES)
async def test_http_over_a_unix_socket(rule: int, tmp_path: Path) -> None:
    await check_transport(http_links.http_unix_link(tmp_path), rules=[rule])


@pytest.mark.parametrize("rule", RULES)
async def test_http_over_stdio(rule: int, tmp_path: Path) -> None:
    await check_transport(http_stdio_links.http_stdio_link(tmp_path), rules=[rule])


@pytest.mark.parametrize("rule", RULES)
async def test_http2_by_prior_knowledge(rule: int, tmp_path: Path) -> None:
    await check_transport(http_links.http_link(tmp_path, http2=True), rules=[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("link", [http_links.https_link, http_links.http_unix_link])
async def test_http2_on_other_streams(link: Callable[..., MakePair], rule: int, tmp_path: Path) -> None:
    """On TLS, by ALPN, and on a Unix socket."""
    await check_transport(link(tmp_path, http2=True), rules=[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("transport", [name for name in LINKS if name != "http"])
async def test_message_pack(transport: str, rule: int, tmp_path: Path) -> None:
    options: dict[str, dict[str, str]] = {
        "memory": {},
        "ws": {},
        "wss": {},
        "grpc": {},
        "stdio": {"framing": "length", "codec": "MessagePack"},
    }
    link = LINKS[transport](tmp_path, **options.get(transport, {"framing": "length"}))
    await check_transport(link, rules=[rule], codec=MessagePack)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("transport", [*LINKS, "http2"])
async def test_with_layers(transport: str, rule: int, tmp_path: Path) -> None:
    layers: list[Layer] = [Logging(), Logging("another"), Tap(tmp_path / "client.jsonl")]
    peer_layers: list[Layer] = [Logging(), Tap(tmp_path / "server.jsonl")]
    link = http_links.http_link(tmp_path, http2=True) if transport == "http2" else LINKS[transport](tmp_path)
    await check_transport(link, rules=[rule], layers=layers, peer_layers=peer_layers)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in (2, 4, 5)])
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_modern_http(http2: bool, rule: int, tmp_path: Path) -> None:
    """To the server each request is a connection: nothing ties two of them together, their order and end included."""
    await check_transport(http_links.modern_http_link(tmp_path, http2=http2), rules=[rule])


SAYS_MORE_THAN_ANSWERS = frozenset({"loses_nothing_when_cancelled", "survives_garbage"})
"""Checks of rules 3 and 8 in which a server sends messages that answer nothing, as none can in a unary call."""


@pytest.mark.parametrize("layers", [[], [Logging(), Tap(lambda line: None)]], ids=["plain", "layers"])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in (2, 3)])
async def test_unary_grpc(rule: int, layers: list[Layer]) -> None:
    """As over modern HTTP, nothing ties two requests together; there are answers, and nothing else comes back."""
    checks = [check for check in transport_checks([rule]) if check.name not in SAYS_MORE_THAN_ANSWERS]
    await check_transport(links.unary_grpc_pair, checks=checks, layers=layers)


@pytest.mark.parametrize("layer", [Logging(), Tap(lambda line: None), Faults(1), Faults(1, delay=0.001)])
async def test_layers(layer: Layer) -> None:
    await check_layer(layer)


CUSTOM_TRANSPORT = Path(__file__).parents[2] / "docs" / "examples" / "custom_transport.py"


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("custom_transport", CUSTOM_TRANSPORT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rule", RULES)
async def test_custom_transport_of_the_documentation(rule: int) -> None:
    prefixed = _example().Prefixed
    await check_transport(tcp_pair(lambda port: prefixed("127.0.0.1", port)), rules=[rule])


def test_custom_transport_of_the_documentation_is_short() -> None:
    lines = [line.strip() for line in CUSTOM_TRANSPORT.read_text().splitlines()]
    code = [line for line in lines if line and not line.startswith(("#", '"""'))]
    assert len(code) <= 40
