"""Generated broken files: one report each, which names server and field, and shows no secret."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import jsonschema_rs
import pytest

from trioxport import UsageError
from trioxport.config import ConfigError, config_schema, load_servers

FILES: Final = 200


def stdio(secret: str) -> dict[str, Any]:
    return {"command": "python", "args": ["s.py"], "env": {"API_KEY": secret}}


def http(secret: str) -> dict[str, Any]:
    return {"url": "https://a.example/mcp", "headers": {"Authorization": f"Bearer {secret}"}, "layers": ["Metrics"]}


Breakage = tuple[str, Callable[[str], dict[str, Any]]]
BREAKAGES: Final[tuple[Breakage, ...]] = (
    ("command", lambda s: stdio(s) | {"command": 5}),
    ("command", lambda s: stdio(s) | {"command": ""}),
    ("args", lambda s: stdio(s) | {"args": s}),
    ("args", lambda s: stdio(s) | {"args": [{"a": s}]}),
    ("env.B", lambda s: stdio(s) | {"env": {"A": s, "B": [s]}}),
    ("env.A", lambda s: stdio(s) | {"env": {"A": "${NOT_THERE}", "B": s}}),
    ("env.A", lambda s: stdio(s) | {"env": {"A": "${input:nothing}", "B": s}}),
    ("env.A", lambda s: stdio(s) | {"env": {"A": "${file:not-there}", "B": s}}),
    ("env.A", lambda s: stdio(s) | {"env": {"A": "${keyring:wrong}", "B": s}}),
    ("envFile", lambda s: stdio(s) | {"envFile": "not-there"}),
    ("cwd", lambda s: stdio(s) | {"cwd": [s]}),
    ("disabled", lambda s: stdio(s) | {"disabled": s}),
    ("timeout", lambda s: stdio(s) | {"timeout": s}),
    ("timeout", lambda s: stdio(s) | {"timeout": -1}),
    ("type", lambda s: stdio(s) | {"type": "studio"}),
    ("url", lambda s: http(s) | {"url": f"nothing://{s}"}),
    ("url", lambda s: http(s) | {"url": f"https://user:{s}@a.example/mcp"}),
    ("url", lambda s: http(s) | {"url": "unix:///run/s#mcp"}),
    ("url", lambda s: http(s) | {"url": [s]}),
    ("headers", lambda s: http(s) | {"headers": [s]}),
    ("url", lambda s: http(s) | {"headers": {"A": f"{s}\n{s}"}}),
    ("auth.type", lambda s: http(s) | {"auth": {"type": "magic", "token": s}}),
    ("auth", lambda s: http(s) | {"auth": {"type": "bearer", "tokn": s}}),
    ("auth", lambda s: http(s) | {"auth": {"type": "bearer", "token": f"{s}\n"}}),
    ("layers[0]", lambda s: http(s) | {"layers": ["Metrix"]}),
    ("layers[0].Retry.attempts", lambda s: http(s) | {"layers": [{"Retry": {"attempts": s}}]}),
    ("layers[0].Retry", lambda s: http(s) | {"layers": [{"Retry": {"attempts": 0}}]}),
    ("layers[0].Signing", lambda s: http(s) | {"layers": [{"Signing": {"keys": {"k": s}}}]}),
    ("layers", lambda s: http(s) | {"layers": [{"Compression": {}}, "Metrics"]}),
    ("reconnect.atempts", lambda s: http(s) | {"reconnect": {"atempts": 3}}),
    ("reconnect", lambda s: http(s) | {"reconnect": {"attempts": -1}}),
    ("limits", lambda s: http(s) | {"limits": s}),
    ("tls", lambda s: http(s) | {"tls": s}),
    ("layrs", lambda s: http(s) | {"layrs": [], "limits": {}}),
    ("options.idle_timeot", lambda s: http(s) | {"options": {"idle_timeot": 3}}),
    ("env", lambda s: http(s) | {"env": {"A": s}}),
)


BEYOND_SHAPE: Final = {
    *("${NOT_THERE}", "${input:nothing}", "${file:not-there}", "${keyring:wrong}", "nothing://", "https://user:"),
    *("unix:///run/s#mcp", '"envFile": "not-there"', "\\n", '"attempts": 0', '"attempts": -1', '"keys"'),
    *('{"Compression": {}}, "Metrics"', '"layers": ["Metrics"], "env"'),
}
"""Mistakes in values, which the schema cannot see."""


def test_the_schema_refuses_all_that_is_wrong_in_shape() -> None:
    validator = jsonschema_rs.validator_for(config_schema())
    for field, make in BREAKAGES:
        entry = make("secret")
        is_beyond = any(text in json.dumps(entry) for text in BEYOND_SHAPE)
        assert validator.is_valid({"mcpServers": {"a": entry}}) == is_beyond, field


@pytest.mark.parametrize("seed", range(FILES))
def test_each_has_one_report(seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    random = Random(seed)
    secret = f"{random.getrandbits(80):020x}"
    chosen = [BREAKAGES[seed % len(BREAKAGES)], *random.sample(BREAKAGES, random.randrange(3))]
    entries = {f"server-{number}": make(secret) for number, (_, make) in enumerate(chosen)}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {**entries, "right": stdio(secret)}}), encoding="utf-8")

    with pytest.raises(ConfigError) as raised:
        load_servers(path)

    assert isinstance(raised.value, UsageError)
    places = {(problem.server, problem.field) for problem in raised.value.problems}
    assert {(f"server-{number}", field) for number, (field, _) in enumerate(chosen)} <= places
    assert {server for server, _ in places} == set(entries)
    assert all(problem.hint for problem in raised.value.problems)
    shown = "".join(traceback.format_exception(raised.value))
    assert secret not in shown + repr(raised.value) + repr(raised.value.problems) + caplog.text


@pytest.mark.parametrize("seed", range(40))
def test_a_file_that_is_cut_shows_no_secret(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    secret = f"{random.getrandbits(80):020x}"
    text = json.dumps({"mcpServers": {"a": stdio(secret), "b": http(secret)}})
    path = tmp_path / random.choice(["mcp.json", "mcp.toml"])
    path.write_text(text[: random.randrange(len(text))], encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_servers(path)
    assert len(raised.value.problems) == 1
    assert secret not in "".join(traceback.format_exception(raised.value))
