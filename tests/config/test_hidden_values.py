"""Values of references in URLs and commands: no error, description or log shows them, whatever the target."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.scripted_http import Reply, serving
from trioxport import Failover, Request, TransportError, Undelivered, open_transport
from trioxport.cli import main
from trioxport.config import ConfigError, ServerConfig, load_servers
from trioxport.config.problems import MIN_SECRET_CHARACTERS

SECRET: Final = "SEKplain123456"
MARK: Final = "SEK"
"""A part of each secret, which a cut one would show, too."""

CLOSED: Final = "127.0.0.1:9"
"""An address at which nothing listens."""

HTTP_PATHS: Final = (
    f"http://{CLOSED}/s/${{S}}/mcp",
    f"http://{CLOSED}/mcp?tenant=${{S}}",
    "http://${S}.invalid/mcp",
    "http+unix:///tmp/${S}.sock#/mcp",
    "http+unix:///tmp/none.sock#/${S}",
    "unix:///tmp/${S}.sock#/mcp",
    f"sse+http://{CLOSED}/${{S}}",
)
ENTRIES: Final[tuple[Any, ...]] = (
    *({"url": url} for url in HTTP_PATHS),
    *({"url": url, "options": {"http2": True}} for url in HTTP_PATHS[:3]),
    *({"url": url, "type": "sse"} for url in HTTP_PATHS[:2]),
    {"url": f"http://{CLOSED}/${{S}}", "reconnect": {"attempts": 1}},
    {"url": f"https://{CLOSED}/${{S}}", "tls": {"ca": "/none/${S}.pem"}},
    {"url": f"ws://{CLOSED}/${{S}}"},
    {"url": f"ws://{CLOSED}/mcp?tenant=${{S}}"},
    {"url": "ws://${S}.invalid/mcp"},
    {"url": f"wss://{CLOSED}/mcp", "tls": {"ca": "/none/${S}.pem"}},
    {"url": "grpc://${S}.invalid:9", "options": {"method": "mcp.MCPService/Call"}},
    {"url": "grpc://${S}.invalid:9"},
    {"url": f"grpc://{CLOSED}", "headers": {"x-key": "${S}"}},
    {"url": "tcp://${S}.invalid:9"},
    {"url": "tls://${S}.invalid:9"},
    {"url": f"tls://{CLOSED}", "tls": {"ca": "/none/${S}.pem"}},
    {"url": "unix:///tmp/${S}.sock"},
    {"url": "memory://${S}"},
    {"url": f"redis://agent:${{S}}@{CLOSED}/0?service=a"},
    {"url": f"redis://${{S}}@{CLOSED}/0"},
    {"url": "redis://${S}.invalid/0"},
    {"url": f"redis://{CLOSED}/0?service=${{S}}"},
    {"url": f"redis+stream://:${{S}}@{CLOSED}/0?service=${{S}}"},
    {"url": "${URL}"},
    {"command": "nosuch-${S}"},
    {"command": "/none/${S}/bin"},
    {"command": "/none/${S}/bin", "type": "http+stdio"},
    {"command": sys.executable, "args": ["-c", "raise SystemExit(3)", "${S}", "--x=${S}"]},
    {"command": sys.executable, "args": ["-c", "raise SystemExit('${S}')"]},
    {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"], "cwd": "/none/${S}"},
)


def loaded(entry: Any, secret: str = SECRET, **options: Any) -> ServerConfig:
    environment = {"S": secret, "URL": f"http://{CLOSED}/{secret}"}
    return load_servers({"mcpServers": {"s": entry}}, environment=environment, **options)["s"]


def texts_of(error: TransportError) -> Iterator[str]:
    yield from traceback.format_exception(error)
    yield repr(error)
    yield repr(vars(error))


@pytest.mark.parametrize("entry", ENTRIES, ids=json.dumps)
async def test_a_server_that_cannot_be_reached(entry: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = loaded({**entry, "allowPlaintext": True, "connectTimeout": "5s"})
    shown = [str(config), repr(config)]
    failure: TransportError | None = None
    try:
        async with open_transport(config) as (tx, rx):
            await tx.send(Request(1, "tools/list"))
            found = await rx.receive()
            assert isinstance(found, Undelivered)
            shown += [repr(found), *texts_of(found.cause)]
            await rx.receive()
    except TransportError as error:
        failure = error
    assert failure is not None
    shown += texts_of(failure)
    assert not [text for text in [*shown, caplog.text] if MARK in text]


@pytest.mark.parametrize("secret", ["SEK#plain", "SEK?plain=1", "SEK'plain\"", "SEK;token=plain", "SEK", "SEKa@SEKb"])
def test_descriptions_hide_a_value_that_looks_like_a_part_of_a_url(secret: str) -> None:
    shown: list[str] = []
    for entry in ENTRIES:
        try:
            config = loaded(entry, secret)
        except ConfigError as error:
            shown += [str(error)] if len(secret) >= MIN_SECRET_CHARACTERS else []
        else:
            shown += [str(config), repr(config), str(config.target), repr(config.target)]
    assert not [text for text in shown if MARK in text]


@pytest.mark.parametrize("status", [301, 307, 404, 500])
@pytest.mark.parametrize("fields", [{}, {"type": "sse"}, {"reconnect": {"attempts": 0}}], ids=json.dumps)
async def test_a_server_that_answers_with_a_failure(fields: Any, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def script(reply: Reply) -> None:
        await reply.status(status, location=f"http://{CLOSED}/{SECRET}")

    shown: list[str] = []
    async with serving(script) as server:
        config = loaded({"url": f"{server.url}/${{S}}?tenant=${{S}}", **fields})
        with suppress(TransportError):
            async with open_transport(config) as connection:
                tx, rx = connection
                await tx.send(Request(1, "tools/list"))
                found = await rx.receive()
                assert isinstance(found, Undelivered)
                shown += [repr(connection.info), found.message, *texts_of(found.cause)]
    assert server.asked
    assert not [text for text in [*shown, caplog.text] if MARK in text]


async def test_configured_servers_within_a_failover(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    targets = [loaded({"url": f"http://{CLOSED}/${{S}}"}), loaded({"command": "nosuch-${S}"})]
    with pytest.raises(TransportError) as raised:
        async with open_transport(Failover(targets)):
            pass
    assert not [text for text in [*texts_of(raised.value), caplog.text] if MARK in text]


COMMANDS: Final[tuple[tuple[str, Any, tuple[str, ...]], ...]] = (
    ("list", {"url": f"http://{CLOSED}/${{S}}"}, ()),
    ("info", {"url": f"http://{CLOSED}/${{S}}"}, ("--json",)),
    ("call", {"url": f"http://{CLOSED}/${{S}}"}, ("tool", "-v")),
    ("list", {"url": f"http://{CLOSED}/${{S}}"}, ("--env", "A=b")),
    ("list", {"url": "http://${S}.invalid/mcp", "allowPlaintext": True}, ()),
    ("list", {"url": "http://${S}.invalid/mcp"}, ()),
    ("doctor", {"url": f"http://{CLOSED}/${{S}}"}, ()),
    ("doctor", {"url": "tcp://${S}.invalid:9"}, ("--json",)),
    ("doctor", {"url": "unix:///tmp/${S}.sock"}, ()),
    ("doctor", {"command": "nosuch-${S}"}, ()),
    ("doctor", {"command": sys.executable, "args": ["-c", "print(1)", "${S}"]}, ("-v",)),
    ("list", {"command": "nosuch-${S}"}, ()),
)


@pytest.mark.parametrize(("command", "entry", "more"), COMMANDS)
def test_commands(
    command: str,
    entry: Any,
    more: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("S", SECRET)
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"s": entry}}), encoding="utf-8")
    assert main([command, "s", *more, "--config", str(file)]) in {1, 2, 3}
    out, err = capsys.readouterr()
    assert out + err
    assert MARK not in out + err
