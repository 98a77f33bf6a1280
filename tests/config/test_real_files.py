"""The files of real clients load, and the schema for editors accepts them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from tests.config.real_files import ENVIRONMENT, FILES
from trioxport.auth import TLSOptions
from trioxport.config import ServerConfigs, config_schema, load_servers
from trioxport.config.reading import _JSON_TOKEN
from trioxport.layers import Timeout
from trioxport.transports.stdio import Stdio

each_file = pytest.mark.parametrize("name", FILES)


def loaded(name: str, folder: Path) -> ServerConfigs:
    path = folder / name
    path.write_text(FILES[name], encoding="utf-8")
    (folder / ".env").write_text("FROM_FILE=1\n", encoding="utf-8")
    return load_servers(path, ask=lambda _: "an-answer", environment=ENVIRONMENT)


def timeout_of(name: str, server: str, folder: Path) -> float:
    return next(layer.seconds for layer in loaded(name, folder)[server].layers if isinstance(layer, Timeout))


@each_file
def test_it_loads_and_shows_no_secret(name: str, tmp_path: Path) -> None:
    servers = loaded(name, tmp_path)
    shown = repr(servers) + "".join(map(str, servers.values())) + repr(servers.notes)
    assert servers
    assert not any(secret in shown for secret in (*list(ENVIRONMENT.values())[:2], "an-answer", "abcdef", "v-value"))


@each_file
def test_the_schema_accepts_it(name: str) -> None:
    text = FILES[name]
    content = (
        tomllib.loads(text)
        if name.endswith("toml")
        else json.loads(_JSON_TOKEN.sub(lambda token: token[0] if token[0][0] == '"' else "", text))
    )
    validator = jsonschema_rs.validator_for(config_schema())
    assert [error.message for error in validator.iter_errors(content)] == []


def test_there_are_enough() -> None:
    assert len(FILES) >= 30


@pytest.mark.parametrize(
    ("name", "server", "field", "values"),
    [
        ("gemini_variables.json", "p", "env", {"KEY": "key-from-environment", "PRICE": "$FIVE"}),
        (
            "gemini_variables.json",
            "p",
            "args",
            (*["run", "-i", "-e", "KEY", "-v", "/home/ada:/workspace", "image:latest"],),
        ),
        ("vscode_inputs.json", "p", "env", {"KEY": "an-answer"}),
        ("vscode_sandbox.json", "s", "env", {"FROM_FILE": "1"}),
        ("cursor_stdio.json", "s", "env", {"API_KEY": "key-from-environment"}),
        ("windsurf.json", "f", "headers", {"K": "key-from-environment"}),
        ("codex.toml", "passing", "env", {"API_KEY": "key-from-environment", "TOKEN": "token-from-environment"}),
        ("codex.toml", "remote", "headers", {"X-Region": "eu-1", "X-Key": "key-from-environment"}),
        ("opencode.json", "l", "args", ("-y", "x")),
        (
            "opencode_references.json",
            "c",
            "headers",
            {"KEY": "key-from-environment", "Authorization": "Bearer token-from-environment"},
        ),
        ("continue.json", "s", "headers", {"A": "bcde"}),
        ("copilot_cli.json", "l", "env", {"KEY": "key-from-environment"}),
        ("ours_grpc.json", "mesh", "headers", {"X-Team": "blue"}),
        ("ours_grpc.json", "mesh", "method", "mcp.MCPService/Call"),
        ("ours_grpc.json", "named", "method", "mcp.MCPService/Stream"),
        ("ours_grpc.json", "mesh", "deadline", 5),
        ("ours_grpc.json", "mesh", "tls", TLSOptions(ca="ca.pem")),
    ],
)
def test_values_are_those_that_the_client_uses(
    name: str, server: str, field: str, values: object, tmp_path: Path
) -> None:
    assert getattr(loaded(name, tmp_path)[server].target.transport, field) == values


@pytest.mark.parametrize("editor", [".vscode", ".github", ".cursor"])
def test_a_folder_of_an_editor_is_in_the_workspace(editor: str, tmp_path: Path) -> None:
    folder = tmp_path / editor
    folder.mkdir()
    source = {"mcpServers": {"n": {"command": "n", "args": ["${workspaceFolder}", "${workspaceFolderBasename}"]}}}
    (folder / "mcp.json").write_text(json.dumps(source), encoding="utf-8")
    transport = load_servers(folder / "mcp.json")["n"].target.transport
    assert isinstance(transport, Stdio)
    assert transport.args == (str(tmp_path), tmp_path.name)


def test_a_variable_without_braces_that_is_not_set_is_noted(tmp_path: Path) -> None:
    notes = loaded("gemini_variables.json", tmp_path).notes
    assert ("p", "env.PRICE", "the variable FIVE is not set, so this is a plain text") in [
        (note.server, note.field, note.reason) for note in notes
    ]


@pytest.mark.parametrize(
    ("name", "server", "seconds"),
    [
        ("claude_code_http.json", "api", 600),
        ("gemini.json", "p", 15),
        ("gemini_http.json", "h", 5),
        ("cline.json", "l", 60),
        ("cline_http.json", "r", 1800),
        ("librechat.json", "x", 60),
        ("codex.toml", "local", 45),
        ("ours.json", "all", 30),
    ],
)
def test_timeouts_are_in_the_unit_of_their_client(name: str, server: str, seconds: float, tmp_path: Path) -> None:
    assert timeout_of(name, server, tmp_path) == seconds


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    notes = loaded("cline.json", tmp_path).notes
    assert [(note.server, note.field) for note in notes] == [("l", "alwaysAllow"), ("l", "autoApprove")]


def test_switched_off_servers_are_there(tmp_path: Path) -> None:
    assert loaded("opencode.json", tmp_path)["r"].disabled
    assert loaded("cherry.json", tmp_path)["c"].disabled
    assert loaded("roo.json", tmp_path)["r"].disabled
