"""Configuration files of commands: inputs that are asked for on the terminal, and the schema for editors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

import trioxport
from trioxport.cli import main
from trioxport.cli._configuration import find_server
from trioxport.config import config_schema
from trioxport.transports.stdio import Stdio

REGION: Final = {
    "id": "region",
    "type": "pickString",
    "description": "The region",
    "options": ["north", {"label": "The south", "value": "south"}],
}


class Terminal(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def config(tmp_path: Path) -> str:
    entry = {"command": "no-such-program", "env": {"REGION": "${input:region}"}}
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"inputs": [REGION], "servers": {"s": entry}}), encoding="utf-8")
    return str(file)


def test_an_input_with_choices_takes_one_of_them(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("east\nsouth\n"))
    transport: Any = find_server("s", config).target.transport
    assert isinstance(transport, Stdio)
    assert transport.env == {"REGION": "south"}
    err = capsys.readouterr().err
    assert "The region (north, south): " in err
    assert "'east' is not one of 'north', 'south'" in err


def test_an_input_without_a_terminal(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("south\n"))
    assert main(["list", "s", "--config", config]) == 2
    err = capsys.readouterr().err
    assert "the input 'region' has no value. Run the command in a terminal, where it asks" in err
    assert "ask=" not in err


def test_the_schema_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == config_schema()
    validator = jsonschema_rs.validator_for(schema)
    server = {"type": "redis", "url": "redis://r.example", "options": {"service": "a", "password": "${P}"}}
    assert validator.is_valid({"$schema": "./mcp.schema.json", "mcpServers": {"s": server}})
    assert not validator.is_valid({"mcpServers": {"s": server | {"options": {"servce": "a"}}}})


def test_names_that_a_shell_completes() -> None:
    listed = dir(trioxport)
    assert {"Http", "Redis", "RedisStream", "open_transport"} <= {*listed}
    assert not {"Any", "Final", "TYPE_CHECKING", "import_module"} & {*listed}
